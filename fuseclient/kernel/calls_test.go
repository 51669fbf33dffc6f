package kernel

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"agentdrive/metaserver/meta"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErrno(t *testing.T, what string, err error, want syscall.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func lstat(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return st
}

func TestAttributes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root changes owners and makes devices")
	}
	fs := newMemFS()
	m := mount(t, fs, nil)
	f := filepath.Join(m.Dir(), "f")
	must(t, os.WriteFile(f, []byte("hello"), 0o666))
	must(t, os.Chmod(f, 0o6755))
	must(t, os.Chown(f, 7, 8))
	if st := lstat(t, f); st.Mode != syscall.S_IFREG|0o755 || st.Uid != 7 || st.Gid != 8 {
		t.Errorf("chown must kill setuid and setgid: mode %o, owner %d:%d", st.Mode, st.Uid, st.Gid)
	}
	at, mt := time.Unix(1, 2), time.Unix(-3, 4)
	must(t, os.Chtimes(f, at, mt))
	if st := lstat(t, f); st.Atim != (unix.Timespec{Sec: 1, Nsec: 2}) || st.Mtim != (unix.Timespec{Sec: -3, Nsec: 4}) {
		t.Errorf("times %v %v", st.Atim, st.Mtim)
	}
	before := time.Now().Add(-time.Hour).Unix()
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, f, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_NOW}}, 0))
	if st := lstat(t, f); st.Atim.Sec != 1 || st.Mtim.Sec < before {
		t.Errorf("UTIME_OMIT, UTIME_NOW: %v %v", st.Atim, st.Mtim)
	}
	must(t, os.Truncate(f, 3))
	if b, err := os.ReadFile(f); err != nil || string(b) != "hel" {
		t.Errorf("after truncate: %q %v", b, err)
	}
	var sx unix.Statx_t
	must(t, unix.Statx(unix.AT_FDCWD, f, 0, unix.STATX_BTIME|unix.STATX_BASIC_STATS, &sx))
	if sx.Mask&unix.STATX_BTIME == 0 || sx.Btime.Sec == 0 || sx.Size != 3 || sx.Uid != 7 {
		t.Errorf("statx %+v", sx)
	}
	var sf unix.Statfs_t
	must(t, unix.Statfs(m.Dir(), &sf))
	if sf.Bfree != 1<<30/4096 || sf.Namelen != meta.MaxName || sf.Blocks != sf.Bfree+1<<20/4096 {
		t.Errorf("statfs %+v", sf)
	}
	must(t, unix.Mkfifo(filepath.Join(m.Dir(), "fifo"), 0o644))
	must(t, unix.Mknod(filepath.Join(m.Dir(), "dev"), unix.S_IFCHR|0o600, int(unix.Mkdev(10, 300))))
	if st := lstat(t, filepath.Join(m.Dir(), "dev")); unix.Major(st.Rdev) != 10 || unix.Minor(st.Rdev) != 300 {
		t.Errorf("device %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	must(t, unix.Statx(unix.AT_FDCWD, filepath.Join(m.Dir(), "dev"), 0, unix.STATX_BTIME, &sx))
	if sx.Rdev_major != 10 || sx.Rdev_minor != 300 {
		t.Errorf("statx device %d:%d", sx.Rdev_major, sx.Rdev_minor)
	}
	unmount(t, m, fs)
}

func TestNames(t *testing.T) {
	fs := newMemFS()
	m := mount(t, fs, nil)
	p := func(n string) string { return filepath.Join(m.Dir(), n) }
	must(t, os.WriteFile(p("a"), []byte("a"), 0o644))
	must(t, os.WriteFile(p("b"), []byte("b"), 0o644))
	ren := func(o, n string, flags uint) error {
		return unix.Renameat2(unix.AT_FDCWD, p(o), unix.AT_FDCWD, p(n), flags)
	}
	wantErrno(t, "NOREPLACE", ren("a", "b", unix.RENAME_NOREPLACE), syscall.EEXIST)
	wantErrno(t, "WHITEOUT", ren("a", "c", unix.RENAME_WHITEOUT), syscall.EINVAL)
	must(t, ren("a", "b", unix.RENAME_EXCHANGE))
	if b, err := os.ReadFile(p("a")); err != nil || string(b) != "b" {
		t.Errorf("after exchange: %q %v", b, err)
	}
	raw := "bytes\xff\xfe\x01"
	must(t, os.WriteFile(p(raw), nil, 0o644))
	names, err := os.ReadDir(m.Dir())
	must(t, err)
	found := false
	for _, e := range names {
		found = found || e.Name() == raw
	}
	if !found {
		t.Errorf("%q is not among %v", raw, names)
	}
	_, err = os.Lstat(p(string(bytes.Repeat([]byte("x"), 256))))
	wantErrno(t, "long name", err, syscall.ENAMETOOLONG)
	_, err = os.OpenFile(p("a"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	wantErrno(t, "O_EXCL", err, syscall.EEXIST)
	must(t, os.Symlink("a", p("l")))
	fd, err := os.OpenFile(p("l"), os.O_CREATE|os.O_RDONLY, 0o644)
	must(t, err)
	must(t, fd.Close())
	// The umask is the kernel's: modes arrive with it applied.
	old := unix.Umask(0o077)
	err = os.Mkdir(p("masked"), 0o777)
	unix.Umask(old)
	must(t, err)
	if st := lstat(t, p("masked")); st.Mode != syscall.S_IFDIR|0o700 {
		t.Errorf("mode %o under umask 077", st.Mode)
	}
	wantErrno(t, "rmdir of a file", unix.Rmdir(p("a")), syscall.ENOTDIR)
	wantErrno(t, "unlink of a directory", unix.Unlink(p("masked")), syscall.EISDIR)
	unmount(t, m, fs)
}

func TestXattrSizes(t *testing.T) {
	fs := newMemFS()
	m := mount(t, fs, nil)
	f := filepath.Join(m.Dir(), "f")
	must(t, os.WriteFile(f, nil, 0o644))
	value := bytes.Repeat([]byte("v"), 5000) // larger than a small request
	must(t, unix.Setxattr(f, "user.big", value, unix.XATTR_CREATE))
	must(t, unix.Setxattr(f, "user.empty", nil, 0))
	wantErrno(t, "CREATE again", unix.Setxattr(f, "user.big", nil, unix.XATTR_CREATE), syscall.EEXIST)
	wantErrno(t, "REPLACE of none", unix.Setxattr(f, "user.no", nil, unix.XATTR_REPLACE), syscall.ENODATA)
	if n, err := unix.Getxattr(f, "user.big", nil); err != nil || n != len(value) {
		t.Errorf("size of value: %d %v", n, err)
	}
	_, err := unix.Getxattr(f, "user.big", make([]byte, 10))
	wantErrno(t, "short buffer", err, syscall.ERANGE)
	got := make([]byte, 6000)
	n, err := unix.Getxattr(f, "user.big", got)
	if err != nil || !bytes.Equal(got[:n], value) {
		t.Errorf("value: %d bytes %v", n, err)
	}
	if n, err := unix.Getxattr(f, "user.empty", got); err != nil || n != 0 {
		t.Errorf("empty value: %d %v", n, err)
	}
	list := "user.big\x00user.empty\x00"
	if n, err := unix.Listxattr(f, nil); err != nil || n != len(list) {
		t.Errorf("size of list: %d %v", n, err)
	}
	_, err = unix.Listxattr(f, make([]byte, 5))
	wantErrno(t, "short list", err, syscall.ERANGE)
	if n, err := unix.Listxattr(f, got); err != nil || string(got[:n]) != list {
		t.Errorf("list %q %v", got[:max(n, 0)], err)
	}
	must(t, unix.Removexattr(f, "user.big"))
	wantErrno(t, "remove again", unix.Removexattr(f, "user.big"), syscall.ENODATA)
	unmount(t, m, fs)
}

// asUser runs f on a thread with another file system identity.
func asUser(uid, gid int, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := unix.Setfsgid(gid); err != nil {
			done <- err
			return
		}
		if err := unix.Setfsuid(uid); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// TestCreateRace: another mount makes the file between this kernel's lookup
// and its CREATE. Access must be checked and O_TRUNC honoured all the same.
func TestCreateRace(t *testing.T) {
	for _, c := range []struct {
		name string
		mode uint32 // of the file that is there first, root's
		flag int
		want syscall.Errno
		size uint64
	}{
		{"private", 0o600, unix.O_RDWR, syscall.EACCES, 4},
		{"readable", 0o644, unix.O_RDONLY, 0, 4},
		{"truncated", 0o666, unix.O_WRONLY | unix.O_TRUNC, 0, 0},
		{"no right to truncate", 0o644, unix.O_RDONLY | unix.O_TRUNC, syscall.EACCES, 4},
		{"symlink", meta.ModeSymlink, unix.O_RDWR, syscall.EACCES, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := newMemFS()
			m := mount(t, fs, func(c *Config) { c.AllowOther = true })
			must(t, os.Chmod(m.Dir(), 0o777))
			first := &meta.Make{Parent: meta.RootIno, Name: "f", Mode: meta.ModeRegular | c.mode}
			if c.mode == meta.ModeSymlink {
				r, err := fs.direct(&meta.Make{Parent: meta.RootIno, Name: "target", Mode: meta.ModeRegular | 0o600})
				must(t, err)
				setData(fs, r, "data")
				first.Mode, first.Target = meta.ModeSymlink|0o777, "target"
			}
			fs.hang(func(op any) bool { mk, ok := op.(*meta.Make); return ok && mk.Name == "f" && mk.Cred.UID == 65534 })
			dir, err := unix.Open(m.Dir(), unix.O_PATH, 0)
			must(t, err)
			opened := make(chan error, 1)
			go func() {
				// Only root may walk the directories of tests.
				opened <- asUser(65534, 65534, func() error {
					fd, err := unix.Openat(dir, "f", unix.O_CREAT|c.flag, 0o644)
					if err != nil {
						return err
					}
					return unix.Close(fd)
				})
			}()
			select {
			case <-fs.held:
			case err := <-opened:
				t.Fatalf("open ended before CREATE: %v", err)
			}
			r, err := fs.direct(first)
			must(t, err)
			if first.Target == "" {
				setData(fs, r, "data")
			}
			fs.letGo()
			if err := <-opened; !errors.Is(err, c.want) && !(err == nil && c.want == 0) {
				t.Errorf("open: %v, want %v", err, c.want)
			}
			if st, err := os.Stat(filepath.Join(m.Dir(), "f")); err != nil || uint64(st.Size()) != c.size {
				t.Errorf("size %v %v, want %d", st, err, c.size)
			}
			must(t, unix.Close(dir))
			unmount(t, m, fs)
		})
	}
}

func setData(fs *memFS, entry any, data string) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n := fs.inodes[entry.(*meta.EntryResult).Attr.Ino]
	n.data = []byte(data)
	fs.touch(n)
}

func TestReadOnly(t *testing.T) {
	fs := newMemFS()
	m := mount(t, fs, func(c *Config) { c.ReadOnly = true })
	_, err := os.Create(filepath.Join(m.Dir(), "f"))
	wantErrno(t, "create", err, syscall.EROFS)
	unmount(t, m, fs)
}

// TestSubtree mounts a directory inside a drive: its inode shows as the root.
func TestSubtree(t *testing.T) {
	fs := newMemFS()
	r, err := fs.direct(&meta.Make{
		Cred:   meta.Cred{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())},
		Parent: meta.RootIno, Name: "sub", Mode: meta.ModeDir | 0o755, Excl: true,
	})
	must(t, err)
	sub := r.(*meta.EntryResult).Attr.Ino
	m := mount(t, fs, func(c *Config) { c.Root = sub })
	if st := lstat(t, m.Dir()); st.Ino != uint64(sub) {
		t.Errorf("root shows inode %d, want %d", st.Ino, sub)
	}
	must(t, os.Mkdir(filepath.Join(m.Dir(), "d"), 0o755))
	must(t, os.WriteFile(filepath.Join(m.Dir(), "d", "f"), nil, 0o644))
	must(t, os.Rename(filepath.Join(m.Dir(), "d", "f"), filepath.Join(m.Dir(), "f")))
	if _, err := fs.direct(&meta.Lookup{Parent: sub, Name: "f"}); err != nil {
		t.Errorf("renamed into the root: %v", err)
	}
	unmount(t, m, fs)
}
