package rules

import (
	"math"
	"strings"
	"testing"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

func TestLater(t *testing.T) {
	for _, c := range []struct{ old, now, want int64 }{
		{5, 9, 9}, {9, 9, 10}, {9, 5, 10}, {math.MaxInt64, 5, math.MaxInt64}, {-7, -5, -5}, {math.MinInt64, math.MinInt64, math.MinInt64 + 1},
	} {
		if got := Later(c.old, c.now); got != c.want {
			t.Errorf("Later(%d, %d) = %d, want %d", c.old, c.now, got, c.want)
		}
	}
}

func TestCheckName(t *testing.T) {
	long := strings.Repeat("x", meta.MaxName)
	for name, want := range map[string]errs.Kind{
		"": errs.Invalid, ".": errs.Invalid, "..": errs.Invalid, "a/b": errs.Invalid, "a\x00": errs.Invalid, long + "x": errs.NameTooLong,
	} {
		if err := CheckName(name); !errs.Is(err, want) {
			t.Errorf("%q: %v, want %v", name, err, want)
		}
	}
	for _, name := range []string{"a", "...", "\xff\n", long} {
		if err := CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

const (
	dirMode  = meta.ModeDir | 0o755
	fileMode = meta.ModeRegular | 0o644
)

func TestBorn(t *testing.T) {
	plain := &meta.Attr{Ino: 1, Mode: dirMode, Nlink: 2, UID: 7, GID: 8}
	setgid := &meta.Attr{Ino: 1, Mode: dirMode | meta.ModeSetgid, Nlink: 2, UID: 7, GID: 8}
	user := meta.Cred{UID: 3, GID: 4}
	for _, c := range []struct {
		name string
		dir  *meta.Attr
		op   meta.Make
		want meta.Attr // but ino and times
	}{
		{"file", plain, meta.Make{Cred: user, Mode: fileMode}, meta.Attr{Mode: fileMode, Nlink: 1, UID: 3, GID: 4}},
		{"no type", plain, meta.Make{Cred: user, Mode: 0o600}, meta.Attr{Mode: meta.ModeRegular | 0o600, Nlink: 1, UID: 3, GID: 4}},
		{"directory", plain, meta.Make{Cred: user, Mode: dirMode | meta.ModeSetuid | meta.ModeSetgid}, meta.Attr{Mode: dirMode, Nlink: 2, UID: 3, GID: 4}},
		{"setgid parent", setgid, meta.Make{Cred: user, Mode: fileMode}, meta.Attr{Mode: fileMode, Nlink: 1, UID: 3, GID: 8}},
		{"setgid parent, directory", setgid, meta.Make{Cred: user, Mode: dirMode}, meta.Attr{Mode: dirMode | meta.ModeSetgid, Nlink: 2, UID: 3, GID: 8}},
		{"setgid program of a foreign group", setgid, meta.Make{Cred: user, Mode: meta.ModeRegular | 0o2755}, meta.Attr{Mode: meta.ModeRegular | 0o755, Nlink: 1, UID: 3, GID: 8}},
		{"setgid program by root", setgid, meta.Make{Mode: meta.ModeRegular | 0o2755}, meta.Attr{Mode: meta.ModeRegular | 0o2755, Nlink: 1, GID: 8}},
		{"link", plain, meta.Make{Cred: user, Mode: meta.ModeSymlink | 0o600, Target: "abc"}, meta.Attr{Mode: meta.ModeSymlink | 0o777, Nlink: 1, UID: 3, GID: 4, Size: 3}},
		{"device", plain, meta.Make{Mode: meta.ModeChar | 0o600, Rdev: 9, Target: "ignored"}, meta.Attr{Mode: meta.ModeChar | 0o600, Nlink: 1, Rdev: 9}},
	} {
		c.op.Name = "n"
		mode, err := CheckMake(&c.op)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		c.want.Ino, c.want.Atime, c.want.Mtime, c.want.Ctime, c.want.Btime = 99, 50, 50, 50, 50
		if got := Born(c.dir, &c.op, mode, 99, 50); got != c.want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", c.name, got, c.want)
		}
	}
}

func TestDirectoryCounts(t *testing.T) {
	a := &meta.Attr{Ino: 1, Mode: dirMode, Nlink: 4, Size: 2, Mtime: 10, Ctime: 20, DataVersion: 5}
	b := &meta.Attr{Ino: 2, Mode: dirMode, Nlink: 3, Size: 1}
	d := &meta.Attr{Ino: 3, Mode: dirMode, Nlink: 2}
	e := &meta.Attr{Ino: 4, Mode: dirMode, Nlink: 2}
	f := &meta.Attr{Ino: 5, Mode: fileMode, Nlink: 2}
	move := func(flags uint32, from, to, n, over *meta.Attr) {
		m := Move{Op: &meta.Rename{Flags: flags}, From: from, To: to, Moved: n, Over: over}
		if m.Nothing() {
			t.Fatal("nothing")
		}
		if err := m.Check(); err != nil {
			t.Fatal(err)
		}
		m.Apply(30)
	}
	want := func(what string, d *meta.Attr, nlink uint32, size uint64) {
		t.Helper()
		if d.Nlink != nlink || d.Size != size {
			t.Errorf("%s: directory %d: %d links, %d entries, want %d and %d", what, d.Ino, d.Nlink, d.Size, nlink, size)
		}
	}
	move(0, a, b, d, e) // d of a over e in b
	want("over", a, 3, 1)
	want("over", b, 3, 1)
	if e.Nlink != 0 || d.Nlink != 2 {
		t.Errorf("replaced directory: %d links, moved %d", e.Nlink, d.Nlink)
	}
	if a.Mtime != 30 || a.Ctime != 30 || a.DataVersion != 6 {
		t.Errorf("times of the directory: %+v", a)
	}
	move(meta.RenameExchange, b, a, d, f) // d of b and f of a change places
	want("exchange", a, 4, 1)
	want("exchange", b, 2, 1)
	if f.Nlink != 2 || f.Ctime != 30 || a.DataVersion != 7 || a.Mtime != 31 {
		t.Errorf("after the exchange: file %+v, directory %+v", f, a)
	}
	move(0, a, a, d, nil) // within one directory
	want("rename", a, 4, 1)
	if a.DataVersion != 8 {
		t.Errorf("one rename in one directory counted %d changes", a.DataVersion-7)
	}
	Unlinked(b, f, 40)
	want("unlink", b, 2, 0)
	Unlinked(a, d, 40)
	want("rmdir", a, 3, 0)
	if f.Nlink != 1 || d.Nlink != 0 {
		t.Errorf("%d links of the file, %d of the directory", f.Nlink, d.Nlink)
	}
}

func TestSticky(t *testing.T) {
	dir := &meta.Attr{Ino: 1, Mode: dirMode | meta.ModeSticky, UID: 7}
	n := &meta.Attr{Ino: 2, Mode: fileMode, UID: 8}
	for uid, ok := range map[uint32]bool{0: true, 7: true, 8: true, 9: false} {
		err := CheckUnlink(&meta.Unlink{Cred: meta.Cred{UID: uid}}, dir, n)
		if (err == nil) != ok || err != nil && !errs.Is(err, errs.Permission) {
			t.Errorf("user %d: %v", uid, err)
		}
	}
}

func TestSetAttr(t *testing.T) {
	base := meta.Attr{Ino: 1, Mode: meta.ModeRegular | 0o6755, Nlink: 1, UID: 7, GID: 8, Size: 100, Bytes: 90, Atime: 1, Mtime: 40, Ctime: 40, DataVersion: 3}
	set := func(f func(*meta.Attr)) meta.Attr { a := base; f(&a); return a }
	owner := meta.Cred{UID: 7, GID: 8}
	for _, c := range []struct {
		name string
		op   meta.SetAttr
		kind errs.Kind
		want meta.Attr
	}{
		{"mode", meta.SetAttr{Cred: owner, Set: meta.SetMode, Mode: 0o600}, 0, set(func(a *meta.Attr) { a.Mode, a.Ctime = meta.ModeRegular|0o600, 50 })},
		{"mode of another", meta.SetAttr{Cred: meta.Cred{UID: 9}, Set: meta.SetMode}, errs.Permission, base},
		{"size", meta.SetAttr{Set: meta.SetSize, Size: 100}, 0, set(func(a *meta.Attr) { a.Ctime, a.Mtime, a.DataVersion = 50, 50, 4 })},
		{"size by a user", meta.SetAttr{Cred: owner, Set: meta.SetSize, Size: 4}, 0, set(func(a *meta.Attr) {
			a.Ctime, a.Mtime, a.DataVersion, a.Size, a.Mode = 50, 50, 4, 4, meta.ModeRegular|0o755
		})},
		{"too large", meta.SetAttr{Set: meta.SetSize, Size: meta.MaxSize + 1}, errs.FileTooLarge, base},
		{"size and mtime", meta.SetAttr{Set: meta.SetSize | meta.SetMtime, Size: 4, Mtime: 2}, 0, set(func(a *meta.Attr) { a.Ctime, a.Mtime, a.DataVersion, a.Size = 50, 2, 4, 4 })},
		{"times now", meta.SetAttr{Cred: meta.Cred{UID: 9}, Set: meta.SetAtimeNow | meta.SetMtimeNow}, 0, set(func(a *meta.Attr) { a.Ctime, a.Mtime, a.Atime = 50, 50, 50 })},
		{"owner by root", meta.SetAttr{Set: meta.SetUID | meta.SetGID, UID: 1, GID: 2}, 0, set(func(a *meta.Attr) { a.UID, a.GID, a.Mode, a.Ctime = 1, 2, meta.ModeRegular|0o755, 50 })},
		{"owner by owner", meta.SetAttr{Cred: owner, Set: meta.SetUID, UID: 1}, errs.Permission, base},
		{"same owner by owner", meta.SetAttr{Cred: owner, Set: meta.SetUID, UID: 7}, 0, set(func(a *meta.Attr) { a.Mode, a.Ctime = meta.ModeRegular|0o755, 50 })},
		{"unknown bit", meta.SetAttr{Set: 1 << 20}, errs.Invalid, base},
		{"kill", meta.SetAttr{Cred: meta.Cred{UID: 9}, Set: meta.KillPriv}, 0, set(func(a *meta.Attr) { a.Mode, a.Ctime = meta.ModeRegular|0o755, 50 })},
	} {
		a := base
		err := SetAttr(&a, &c.op, 50)
		if (err == nil) != (c.kind == 0) || err != nil && !errs.Is(err, c.kind) || a != c.want {
			t.Errorf("%s: %v\ngot  %+v\nwant %+v", c.name, err, a, c.want)
		}
	}
}

func TestWrote(t *testing.T) {
	base := meta.Attr{Ino: 1, Mode: meta.ModeRegular | 0o6745, UID: 7, GID: 8, Size: 100, Mtime: 60, Ctime: 70, DataVersion: 3}
	a := base
	Wrote(&a, meta.Cred{}, 50, false, 65)
	want := base
	want.Mtime, want.Ctime, want.DataVersion = 65, 71, 4
	if a != want {
		t.Errorf("inside, by root: %+v", a)
	}
	a = base
	Wrote(&a, meta.Cred{UID: 7, GID: 8}, 150, false, 80)
	want.Mtime, want.Ctime, want.Size, want.Mode = 80, 80, 150, meta.ModeRegular|0o2745 // no group execution: setgid stays
	if a != want {
		t.Errorf("beyond the end, by the owner: %+v", a)
	}
}
