package posixtest

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"

	"agentdrive/metaserver/metatest"
)

// ok expects success, no an error.
func ok(op metatest.Op) step                      { return step{op: op} }
func no(errno syscall.Errno, op metatest.Op) step { return step{op: op, errno: errno} }

// as runs an operation as another user, of the group with the same number.
func as(uid uint32, op metatest.Op) metatest.Op {
	op.UID, op.GID = uid, uid
	return op
}

func create(path string, mode uint32) metatest.Op {
	return metatest.Op{Kind: metatest.Create, Path: path, Mode: mode, Excl: true}
}

func mkdir(path string, mode uint32) metatest.Op {
	return metatest.Op{Kind: metatest.Mkdir, Path: path, Mode: mode}
}

func mknod(path string, mode uint32) metatest.Op {
	return metatest.Op{Kind: metatest.Mknod, Path: path, Mode: mode}
}

func symlink(target, path string) metatest.Op {
	return metatest.Op{Kind: metatest.Symlink, Path: path, Path2: target}
}

func link(old, path string) metatest.Op {
	return metatest.Op{Kind: metatest.Link, Path: old, Path2: path}
}

func unlink(path string) metatest.Op  { return metatest.Op{Kind: metatest.Unlink, Path: path} }
func rmdir(path string) metatest.Op   { return metatest.Op{Kind: metatest.Rmdir, Path: path} }
func stat(path string) metatest.Op    { return metatest.Op{Kind: metatest.GetStat, Path: path} }
func readdir(path string) metatest.Op { return metatest.Op{Kind: metatest.ReadDir, Path: path} }

func rename(from, to string) metatest.Op {
	return metatest.Op{Kind: metatest.Rename, Path: from, Path2: to}
}

func noReplace(from, to string) metatest.Op {
	return metatest.Op{Kind: metatest.Rename, Path: from, Path2: to, Flags: 1}
}

func exchange(a, b string) metatest.Op {
	return metatest.Op{Kind: metatest.Rename, Path: a, Path2: b, Flags: 2}
}

func chmod(path string, mode uint32) metatest.Op {
	return metatest.Op{Kind: metatest.Chmod, Path: path, Mode: mode}
}

func chown(path string, owner, group int) metatest.Op {
	return metatest.Op{Kind: metatest.Chown, Path: path, Owner: owner, Group: group}
}

func utimes(path string, atime, mtime int64) metatest.Op {
	return metatest.Op{Kind: metatest.Utimes, Path: path, Atime: atime, Mtime: mtime}
}

func truncate(path string, size uint64) metatest.Op {
	return metatest.Op{Kind: metatest.Truncate, Path: path, Size: size}
}

func open(path string, h int) metatest.Op {
	return metatest.Op{Kind: metatest.Open, Path: path, Handle: h}
}

func closing(h int) metatest.Op { return metatest.Op{Kind: metatest.Close, Handle: h} }
func fstat(h int) metatest.Op   { return metatest.Op{Kind: metatest.GetStat, Handle: h} }

func write(h int, off, size, seed uint64) metatest.Op {
	return metatest.Op{Kind: metatest.Write, Handle: h, Off: off, Size: size, Seed: seed}
}

func appending(h int, size, seed uint64) metatest.Op {
	return metatest.Op{Kind: metatest.Write, Handle: h, Append: true, Size: size, Seed: seed}
}

func read(h int, off, size uint64) metatest.Op {
	return metatest.Op{Kind: metatest.Read, Handle: h, Off: off, Size: size}
}

func setxattr(path, name string, size uint64, flags uint32) metatest.Op {
	return metatest.Op{Kind: metatest.SetXattr, Path: path, Name: name, Size: size, Seed: size, Flags: flags}
}

func xattr(kind metatest.Kind, path, name string) metatest.Op {
	return metatest.Op{Kind: kind, Path: path, Name: name}
}

// wants checks the attributes of an answer.
func wants(op metatest.Op, what string, check func(s metatest.Stat) bool) step {
	return step{op: op, check: func(out metatest.Outcome) string {
		if out.Stat == nil || !check(*out.Stat) {
			return fmt.Sprintf("want %s, got %+v", what, out.Stat)
		}
		return ""
	}}
}

func nlink(path string, n uint32) step {
	return wants(stat(path), fmt.Sprint(n, " links"), func(s metatest.Stat) bool { return s.Nlink == n })
}

func mode(path string, m uint32) step {
	return wants(stat(path), fmt.Sprintf("mode %o", m), func(s metatest.Stat) bool { return s.Mode&0o7777 == m })
}

func size(path string, n uint64) step {
	return wants(stat(path), fmt.Sprint("size ", n), func(s metatest.Stat) bool { return s.Size == n })
}

func owner(path string, uid, gid uint32) step {
	return wants(stat(path), fmt.Sprint("owner ", uid, " ", gid), func(s metatest.Stat) bool { return s.UID == uid && s.GID == gid })
}

// names checks a listing.
func names(path string, want ...string) step {
	return step{op: readdir(path), check: func(out metatest.Outcome) string {
		if got := strings.Join(out.Names, " "); got != strings.Join(want, " ") {
			return fmt.Sprintf("names %q, want %q", got, want)
		}
		return ""
	}}
}

// holds checks the bytes of an answer.
func holds(op metatest.Op, want []byte) step {
	return step{op: op, check: func(out metatest.Outcome) string {
		if !bytes.Equal(out.Data, want) {
			return fmt.Sprintf("%d bytes that differ from the %d wanted", len(out.Data), len(want))
		}
		return ""
	}}
}

// data is what write and setxattr with the same numbers store.
func data(size, seed uint64) []byte {
	op := metatest.Op{Size: size, Seed: seed}
	return op.Data()
}

// join puts pieces together; a number is that many zeros.
func join(pieces ...any) (all []byte) {
	for _, p := range pieces {
		switch x := p.(type) {
		case int:
			all = append(all, make([]byte, x)...)
		case []byte:
			all = append(all, x...)
		}
	}
	return all
}

// later checks that a time moved between two looks at path.
func later(path string, op metatest.Op, pick func(s metatest.Stat) int64) []step {
	var before int64
	return []step{
		{op: stat(path), check: func(out metatest.Outcome) string { before = pick(*out.Stat); return "" }},
		ok(op),
		{op: stat(path), check: func(out metatest.Outcome) string {
			if now := pick(*out.Stat); now <= before {
				return fmt.Sprintf("time %d after %d", now, before)
			}
			return ""
		}},
	}
}

func mtime(s metatest.Stat) int64 { return s.Mtime }
func ctime(s metatest.Stat) int64 { return s.Ctime }

func steps(lists ...[]step) (all []step) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}
