package rules

import (
	"fmt"
	"math"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

func fail(op string, kind errs.Kind, format string, args ...any) error {
	return errs.E(op, kind, fmt.Sprintf(format, args...), nil)
}

// Later is the time to stamp over old: now, or one nanosecond after old if now
// is not later.
func Later(old, now int64) int64 {
	if old == math.MaxInt64 || old < now {
		return max(old, now)
	}
	return old + 1
}

// Touch marks a change of attributes.
func Touch(a *meta.Attr, now int64) { a.Ctime = Later(a.Ctime, now) }

// Modify marks a change of content, or of a directory's entries.
func Modify(a *meta.Attr, now int64) {
	a.Mtime = Later(a.Mtime, now)
	a.DataVersion++
	Touch(a, now)
}

// CheckName refuses what cannot be a name: errs.Invalid, errs.NameTooLong.
func CheckName(name string) error {
	if len(name) > meta.MaxName {
		return fail("rules.name", errs.NameTooLong, "name of %d bytes, the limit is %d", len(name), meta.MaxName)
	}
	if name == "" || name == "." || name == ".." {
		return fail("rules.name", errs.Invalid, "%q is not a name", name)
	}
	for i := 0; i < len(name); i++ {
		if name[i] == 0 || name[i] == '/' {
			return fail("rules.name", errs.Invalid, "name %q holds NUL or a slash", name)
		}
	}
	return nil
}

// CheckDir refuses what is not a directory: errs.NotDir.
func CheckDir(a *meta.Attr) error {
	if !a.IsDir() {
		return fail("rules.dir", errs.NotDir, "inode %d is not a directory", a.Ino)
	}
	return nil
}

// CheckLive refuses new names in a directory that was removed: errs.NotExist.
func CheckLive(dir *meta.Attr) error {
	if dir.Nlink == 0 {
		return fail("rules.dir", errs.NotExist, "directory %d was removed", dir.Ino)
	}
	return nil
}

// CheckMake validates what the caller of Make controls and gives the full mode
// of the new inode, before inheritance.
func CheckMake(x *meta.Make) (mode uint32, err error) {
	if err := CheckName(x.Name); err != nil {
		return 0, err
	}
	mode = x.Mode & (meta.ModeType | meta.ModePerm)
	switch mode & meta.ModeType {
	case 0: // mknod(2) means a regular file
		return mode | meta.ModeRegular, nil
	case meta.ModeSymlink:
		return meta.ModeSymlink | 0o777, checkTarget(x.Target)
	case meta.ModeDir: // mkdir(2) takes no set-id bits; setgid is inherited
		return mode &^ (meta.ModeSetuid | meta.ModeSetgid), nil
	case meta.ModeRegular, meta.ModeFIFO, meta.ModeSocket, meta.ModeChar, meta.ModeBlock:
		return mode, nil
	}
	return 0, fail("rules.make", errs.Invalid, "file type %o", mode&meta.ModeType)
}

func checkTarget(target string) error {
	if target == "" {
		return fail("rules.make", errs.NotExist, "empty link target")
	}
	if len(target) > meta.MaxTarget {
		return fail("rules.make", errs.NameTooLong, "link target of %d bytes, the limit is %d", len(target), meta.MaxTarget)
	}
	for i := 0; i < len(target); i++ {
		if target[i] == 0 {
			return fail("rules.make", errs.Invalid, "link target holds NUL")
		}
	}
	return nil
}

// Existing decides on a Make of the given mode whose name an inode has, of
// which the type bits are typ. nil: that inode is the result. Otherwise
// errs.IsDir or errs.Exist. A Make with a number of its own (x.Ino) wants a new
// inode, whatever Excl says: its client has already answered that it made one.
func Existing(x *meta.Make, mode, typ uint32) error {
	if !x.Excl && x.Ino == 0 && mode&meta.ModeType == meta.ModeRegular {
		switch typ & meta.ModeType {
		case meta.ModeRegular:
			return nil
		case meta.ModeDir:
			return fail("rules.make", errs.IsDir, "%q is a directory", x.Name)
		}
	}
	return fail("rules.make", errs.Exist, "%q exists", x.Name)
}

// Born gives the attributes of the inode ino that x makes in dir; mode is that
// of CheckMake. A child of a setgid directory has its group, and a directory
// there is setgid too.
func Born(dir *meta.Attr, x *meta.Make, mode uint32, ino meta.Ino, now int64) meta.Attr {
	gid := x.Cred.GID
	if dir.Mode&meta.ModeSetgid != 0 {
		gid = dir.GID
		switch {
		case mode&meta.ModeType == meta.ModeDir:
			mode |= meta.ModeSetgid
		case mode&(meta.ModeSetgid|0o010) == meta.ModeSetgid|0o010 && x.Cred.UID != 0 && x.Cred.GID != gid:
			mode &^= meta.ModeSetgid // no program of a group that the caller is not in
		}
	}
	a := meta.Attr{
		Ino: ino, Mode: mode, Nlink: 1, UID: x.Cred.UID, GID: gid,
		Atime: now, Mtime: now, Ctime: now, Btime: now,
	}
	switch mode & meta.ModeType {
	case meta.ModeDir:
		a.Nlink = 2
	case meta.ModeSymlink:
		a.Size = uint64(len(x.Target))
	case meta.ModeChar, meta.ModeBlock:
		a.Rdev = x.Rdev
	}
	return a
}

// Made is what the birth of child changes in its directory.
func Made(dir, child *meta.Attr, now int64) {
	if child.IsDir() {
		dir.Nlink++
	}
	dir.Size++
	Modify(dir, now)
}

// CheckLink decides on a Link of n in dir; taken: the name exists.
func CheckLink(x *meta.Link, dir, n *meta.Attr, taken bool) error {
	switch {
	case taken:
		return fail("rules.link", errs.Exist, "%q exists", x.Name)
	case n.IsDir():
		return fail("rules.link", errs.Permission, "inode %d is a directory", n.Ino)
	case n.Nlink == 0:
		return fail("rules.link", errs.NotExist, "inode %d was removed", n.Ino)
	case n.Nlink >= meta.MaxLink:
		return fail("rules.link", errs.TooManyLinks, "inode %d has %d links", n.Ino, n.Nlink)
	}
	return CheckLive(dir)
}

// Linked is what a further name of n in dir changes.
func Linked(dir, n *meta.Attr, now int64) {
	n.Nlink++
	Touch(n, now)
	dir.Size++
	Modify(dir, now)
}

// checkSticky is the rule of directories with the sticky bit: only the owner
// of the entry, the owner of the directory and root may take a name away.
func checkSticky(cred meta.Cred, dir, n *meta.Attr) error {
	if dir.Mode&meta.ModeSticky == 0 || cred.UID == 0 || cred.UID == dir.UID || cred.UID == n.UID {
		return nil
	}
	return fail("rules.sticky", errs.Permission, "directory %d is sticky", dir.Ino)
}

// CheckUnlink decides on an Unlink of n's name in dir.
func CheckUnlink(x *meta.Unlink, dir, n *meta.Attr) error {
	if err := checkSticky(x.Cred, dir, n); err != nil {
		return err
	}
	if n.IsDir() {
		return fail("rules.unlink", errs.IsDir, "%q is a directory", x.Name)
	}
	return nil
}

// CheckRmdir decides on a Rmdir of n in dir.
func CheckRmdir(x *meta.Rmdir, dir, n *meta.Attr) error {
	if err := checkSticky(x.Cred, dir, n); err != nil {
		return err
	}
	if !n.IsDir() {
		return fail("rules.rmdir", errs.NotDir, "%q is not a directory", x.Name)
	}
	if n.Size != 0 {
		return fail("rules.rmdir", errs.NotEmpty, "%q holds %d entries", x.Name, n.Size)
	}
	return nil
}

// Unlinked is what the removal of a name of n from dir changes, by Unlink or
// Rmdir. Nlink 0: it was the last name.
func Unlinked(dir, n *meta.Attr, now int64) {
	dropped(dir, n, now)
	Modify(dir, now)
}

// dropped is Unlinked without the times of dir.
func dropped(dir, n *meta.Attr, now int64) {
	Touch(n, now)
	if n.IsDir() {
		dir.Nlink--
		n.Nlink = 0
	} else {
		n.Nlink--
	}
	dir.Size--
}
