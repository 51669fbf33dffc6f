package rules

import (
	"strings"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

const setKnown = meta.SetMode | meta.SetUID | meta.SetGID | meta.SetSize | meta.SetAtime |
	meta.SetMtime | meta.SetAtimeNow | meta.SetMtimeNow | meta.KillPriv

// CheckSetAttr applies the rules of ownership and size. Whether the caller may
// write the file, or is in the group it gives the file to, only its kernel
// knows.
func CheckSetAttr(a *meta.Attr, x *meta.SetAttr) error {
	if x.Set&^setKnown != 0 {
		return fail("rules.setattr", errs.Invalid, "unknown bits %#x", x.Set&^setKnown)
	}
	if x.Set&meta.SetSize != 0 {
		switch {
		case a.IsDir():
			return fail("rules.setattr", errs.IsDir, "inode %d is a directory", a.Ino)
		case !a.IsRegular():
			return fail("rules.setattr", errs.Invalid, "inode %d is not a regular file", a.Ino)
		case x.Size > meta.MaxSize:
			return fail("rules.setattr", errs.FileTooLarge, "size %d, the limit is %d", x.Size, meta.MaxSize)
		}
	}
	if x.Cred.UID == 0 {
		return nil
	}
	if x.Set&meta.SetUID != 0 && (x.UID != a.UID || x.Cred.UID != a.UID) {
		return fail("rules.setattr", errs.Permission, "only root changes owners")
	}
	if x.Set&(meta.SetMode|meta.SetGID|meta.SetAtime|meta.SetMtime) != 0 && x.Cred.UID != a.UID {
		return fail("rules.setattr", errs.Permission, "inode %d belongs to user %d", a.Ino, a.UID)
	}
	return nil
}

// SetAttr executes x on a: CheckSetAttr, and if it passes all effects on the
// attributes but Bytes. A new size counts as a change of content even when it
// is the old one.
func SetAttr(a *meta.Attr, x *meta.SetAttr, now int64) error {
	if err := CheckSetAttr(a, x); err != nil {
		return err
	}
	mtime := a.Mtime
	if x.Set&meta.SetSize != 0 {
		a.Size = x.Size
		a.DataVersion++
		mtime = Later(mtime, now)
		if x.Cred.UID != 0 {
			dropPrivileges(x.Cred, a)
		}
	}
	if x.Set&meta.KillPriv != 0 && !a.IsDir() {
		dropPrivileges(x.Cred, a)
	}
	setOwner(x, a)
	if x.Set&meta.SetMode != 0 {
		a.Mode = a.Mode&meta.ModeType | x.Mode&meta.ModePerm
	}
	switch {
	case x.Set&meta.SetAtimeNow != 0:
		a.Atime = now
	case x.Set&meta.SetAtime != 0:
		a.Atime = x.Atime
	}
	switch {
	case x.Set&meta.SetMtimeNow != 0:
		mtime = now
	case x.Set&meta.SetMtime != 0:
		mtime = x.Mtime
	}
	a.Mtime = mtime
	Touch(a, now)
	return nil
}

// setOwner is chown(2). It takes setuid and setgid from everything but
// directories, whoever calls.
func setOwner(x *meta.SetAttr, a *meta.Attr) {
	if x.Set&(meta.SetUID|meta.SetGID) == 0 {
		return
	}
	if !a.IsDir() {
		dropPrivileges(x.Cred, a)
	}
	if x.Set&meta.SetUID != 0 {
		a.UID = x.UID
	}
	if x.Set&meta.SetGID != 0 {
		a.GID = x.GID
	}
}

// dropPrivileges clears setuid and setgid as a write by someone else does.
// Setgid without group execution stays for members of the group, as far as
// the credentials tell.
func dropPrivileges(cred meta.Cred, a *meta.Attr) {
	a.Mode &^= meta.ModeSetuid
	if a.Mode&0o010 != 0 || (cred.UID != 0 && cred.GID != a.GID) {
		a.Mode &^= meta.ModeSetgid
	}
}

// CheckWrite refuses to write what is not a regular file: errs.IsDir,
// errs.Invalid.
func CheckWrite(a *meta.Attr) error {
	if a.IsDir() {
		return fail("rules.write", errs.IsDir, "inode %d is a directory", a.Ino)
	}
	if !a.IsRegular() {
		return fail("rules.write", errs.Invalid, "inode %d is not a regular file", a.Ino)
	}
	return nil
}

// Wrote is what a write by cred that ends at byte end changes, but for Bytes.
// killPriv: clear setuid and setgid, as every write by another user than root
// does anyway.
func Wrote(a *meta.Attr, cred meta.Cred, end uint64, killPriv bool, now int64) {
	a.Size = max(a.Size, end)
	if killPriv || cred.UID != 0 {
		dropPrivileges(cred, a)
	}
	Modify(a, now)
}

// CheckXattrName refuses names and namespaces that an inode cannot have:
// errs.Range, errs.Invalid, errs.Unsupported. Reads check it after the inode.
func CheckXattrName(name string) error {
	if name == "" || len(name) > meta.MaxName {
		return fail("rules.xattr", errs.Range, "attribute name of %d bytes", len(name))
	}
	if strings.IndexByte(name, 0) >= 0 {
		return fail("rules.xattr", errs.Invalid, "attribute name holds NUL")
	}
	for _, space := range [...]string{"user.", "trusted.", "security."} {
		if strings.HasPrefix(name, space) {
			if len(name) == len(space) {
				return fail("rules.xattr", errs.Invalid, "attribute name %q ends with its namespace", name)
			}
			return nil
		}
	}
	return fail("rules.xattr", errs.Unsupported, "attribute namespace of %q", name)
}

// CheckXattrWrite applies the rules of the namespaces to a change of an
// attribute of a.
func CheckXattrWrite(cred meta.Cred, a *meta.Attr, name string) error {
	if err := CheckXattrName(name); err != nil {
		return err
	}
	switch {
	case strings.HasPrefix(name, "trusted."):
		if cred.UID != 0 {
			return fail("rules.xattr", errs.Permission, "trusted attributes are for root")
		}
	case strings.HasPrefix(name, "user."):
		if !a.IsRegular() && !a.IsDir() {
			return fail("rules.xattr", errs.Permission, "user attributes are for files and directories")
		}
		if a.IsDir() && a.Mode&meta.ModeSticky != 0 && cred.UID != 0 && cred.UID != a.UID {
			return fail("rules.xattr", errs.Permission, "directory %d is sticky", a.Ino)
		}
	}
	return nil
}

// Xattred is what a change of extended attributes changes; left: there are
// some now.
func Xattred(a *meta.Attr, left bool, now int64) {
	a.Xattrs = left
	Touch(a, now)
}
