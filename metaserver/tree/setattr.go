package tree

import (
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

const setKnown = meta.SetMode | meta.SetUID | meta.SetGID | meta.SetSize | meta.SetAtime |
	meta.SetMtime | meta.SetAtimeNow | meta.SetMtimeNow | meta.KillPriv

// setAttr executes SetAttr.
func (u *unit) setAttr(x *meta.SetAttr) (meta.Result, error) {
	n, err := u.load(x.Ino)
	if err != nil {
		return nil, err
	}
	if err := checkSetAttr(x, n); err != nil {
		return nil, err
	}
	if x.Set&meta.SetSize != 0 {
		if err := u.truncate(n, x.Size); err != nil {
			return nil, err
		}
		if x.Cred.UID != 0 {
			dropPrivileges(x.Cred, n)
		}
	}
	if x.Set&meta.KillPriv != 0 && !n.IsDir() {
		dropPrivileges(x.Cred, n)
	}
	setOwner(x, n)
	if x.Set&meta.SetMode != 0 {
		n.Mode = n.Mode&meta.ModeType | x.Mode&meta.ModePerm
	}
	u.setTimes(x, n)
	u.touch(n)
	return &meta.AttrResult{Attr: n.Attr}, nil
}

// checkSetAttr applies the rules of ownership. Whether the caller may write
// the file, or is in the group it gives the file to, only its kernel knows.
func checkSetAttr(x *meta.SetAttr, n *node) error {
	if x.Set&^setKnown != 0 {
		return fail("tree.setattr", errs.Invalid, "unknown bits %#x", x.Set&^setKnown)
	}
	if x.Set&meta.SetSize != 0 {
		switch {
		case n.IsDir():
			return fail("tree.setattr", errs.IsDir, "inode %d is a directory", n.Ino)
		case !n.IsRegular():
			return fail("tree.setattr", errs.Invalid, "inode %d is not a regular file", n.Ino)
		case x.Size > meta.MaxSize:
			return fail("tree.setattr", errs.FileTooLarge, "size %d, the limit is %d", x.Size, meta.MaxSize)
		}
	}
	if x.Cred.UID == 0 {
		return nil
	}
	if x.Set&meta.SetUID != 0 && (x.UID != n.UID || x.Cred.UID != n.UID) {
		return fail("tree.setattr", errs.Permission, "only root changes owners")
	}
	if x.Set&(meta.SetMode|meta.SetGID|meta.SetAtime|meta.SetMtime) != 0 && x.Cred.UID != n.UID {
		return fail("tree.setattr", errs.Permission, "inode %d belongs to user %d", n.Ino, n.UID)
	}
	return nil
}

// setOwner is chown(2). It takes setuid and setgid from everything but
// directories, whoever calls.
func setOwner(x *meta.SetAttr, n *node) {
	if x.Set&(meta.SetUID|meta.SetGID) == 0 {
		return
	}
	if !n.IsDir() {
		dropPrivileges(x.Cred, n)
	}
	if x.Set&meta.SetUID != 0 {
		n.UID = x.UID
	}
	if x.Set&meta.SetGID != 0 {
		n.GID = x.GID
	}
}

func (u *unit) setTimes(x *meta.SetAttr, n *node) {
	switch {
	case x.Set&meta.SetAtimeNow != 0:
		n.Atime = u.st.Now
	case x.Set&meta.SetAtime != 0:
		n.Atime = x.Atime
	}
	switch {
	case x.Set&meta.SetMtimeNow != 0:
		n.Mtime = u.st.Now
	case x.Set&meta.SetMtime != 0:
		n.Mtime = x.Mtime
	}
}
