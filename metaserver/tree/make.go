package tree

import (
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// create executes Make.
func (u *unit) create(x *meta.Make) (meta.Result, error) {
	mode, err := checkMake(x)
	if err != nil {
		return nil, err
	}
	dir, err := u.loadDir(x.Parent)
	if err != nil {
		return nil, err
	}
	e, exists, err := u.entry(u.tx, x.Parent, x.Name)
	if err != nil {
		return nil, err
	}
	if exists {
		return u.existing(x, mode, e)
	}
	if err := checkLive(dir); err != nil {
		return nil, err
	}
	n := u.newNode(dir, mode, x.Cred)
	switch mode & meta.ModeType {
	case meta.ModeDir:
		n.Nlink = 2
		dir.Nlink++
	case meta.ModeSymlink:
		n.Target, n.Size = x.Target, uint64(len(x.Target))
	case meta.ModeChar, meta.ModeBlock:
		n.Rdev = x.Rdev
	}
	u.addEntry(dir, x.Name, n)
	u.modify(dir)
	return &meta.EntryResult{Attr: n.Attr, Created: true}, nil
}

// checkMake validates what the caller controls and returns the full mode.
func checkMake(x *meta.Make) (uint32, error) {
	if err := checkName(x.Name); err != nil {
		return 0, err
	}
	mode := x.Mode & (meta.ModeType | meta.ModePerm)
	switch mode & meta.ModeType {
	case 0: // mknod(2) means a regular file
		return mode | meta.ModeRegular, nil
	case meta.ModeSymlink:
		if x.Target == "" {
			return 0, fail("tree.make", errs.NotExist, "empty link target")
		}
		if len(x.Target) > meta.MaxTarget {
			return 0, fail("tree.make", errs.NameTooLong, "link target of %d bytes, the limit is %d", len(x.Target), meta.MaxTarget)
		}
		for i := 0; i < len(x.Target); i++ {
			if x.Target[i] == 0 {
				return 0, fail("tree.make", errs.Invalid, "link target holds NUL")
			}
		}
		return meta.ModeSymlink | 0o777, nil
	case meta.ModeDir: // mkdir(2) takes no set-id bits; setgid is inherited
		return mode &^ (meta.ModeSetuid | meta.ModeSetgid), nil
	case meta.ModeRegular, meta.ModeFIFO, meta.ModeSocket, meta.ModeChar, meta.ModeBlock:
		return mode, nil
	}
	return 0, fail("tree.make", errs.Invalid, "file type %o", mode&meta.ModeType)
}

// existing answers a Make whose name is taken.
func (u *unit) existing(x *meta.Make, mode uint32, e entry) (meta.Result, error) {
	if !x.Excl && mode&meta.ModeType == meta.ModeRegular {
		n, err := u.loadEntry(e)
		if err != nil {
			return nil, err
		}
		if n.IsRegular() {
			return &meta.EntryResult{Attr: n.Attr}, nil
		}
		if n.IsDir() {
			return nil, fail("tree.make", errs.IsDir, "%q is a directory", x.Name)
		}
	}
	return nil, fail("tree.make", errs.Exist, "%q exists", x.Name)
}

// newNode gives birth to an inode in dir.
func (u *unit) newNode(dir *node, mode uint32, cred meta.Cred) *node {
	gid := cred.GID
	if dir.Mode&meta.ModeSetgid != 0 {
		gid = dir.GID
		switch {
		case mode&meta.ModeType == meta.ModeDir:
			mode |= meta.ModeSetgid
		case mode&(meta.ModeSetgid|0o010) == meta.ModeSetgid|0o010 && cred.UID != 0 && cred.GID != gid:
			mode &^= meta.ModeSetgid // no program of a group that the caller is not in
		}
	}
	now := u.st.Now
	n := &node{inode: inode{Attr: meta.Attr{
		Ino: u.newIno(dir), Mode: mode, Nlink: 1, UID: cred.UID, GID: gid,
		Atime: now, Mtime: now, Ctime: now, Btime: now,
	}, Parent: dir.Ino}, dirty: true, touched: true}
	u.nodes = append(u.nodes, n)
	u.count.Files++
	u.dirty = true
	return n
}

// newIno takes the next slot of the directory's locality group, and a fresh
// group at the first child and when the old one is full.
func (u *unit) newIno(dir *node) meta.Ino {
	if dir.Group == 0 || dir.NextSlot == 1<<meta.SlotBits {
		dir.Group, dir.NextSlot = u.count.NextGroup, 0
		u.count.NextGroup++
		u.dirty = true
	}
	ino := meta.Ino(dir.Group<<meta.SlotBits | uint64(dir.NextSlot))
	dir.NextSlot++
	dir.dirty = true
	return ino
}

// link executes Link.
func (u *unit) link(x *meta.Link) (meta.Result, error) {
	if err := checkName(x.Name); err != nil {
		return nil, err
	}
	n, err := u.load(x.Ino)
	if err != nil {
		return nil, err
	}
	dir, err := u.loadDir(x.Parent)
	if err != nil {
		return nil, err
	}
	_, exists, err := u.entry(u.tx, x.Parent, x.Name)
	switch {
	case err != nil:
		return nil, err
	case exists:
		return nil, fail("tree.link", errs.Exist, "%q exists", x.Name)
	case n.IsDir():
		return nil, fail("tree.link", errs.Permission, "inode %d is a directory", x.Ino)
	case n.Nlink == 0:
		return nil, fail("tree.link", errs.NotExist, "inode %d was removed", x.Ino)
	case n.Nlink >= meta.MaxLink:
		return nil, fail("tree.link", errs.TooManyLinks, "inode %d has %d links", x.Ino, n.Nlink)
	}
	if err := checkLive(dir); err != nil {
		return nil, err
	}
	if err := u.linked(n, dir.Ino); err != nil {
		return nil, err
	}
	u.addEntry(dir, x.Name, n)
	u.touch(n)
	u.modify(dir)
	return &meta.EntryResult{Attr: n.Attr}, nil
}

// linked books another link of n, in the directory parent.
func (u *unit) linked(n *node, parent meta.Ino) error {
	n.Nlink++
	n.dirty = true
	if n.Nlink == 2 { // from now on the parents are counted in K|
		if n.Parent == parent {
			u.set(u.parentKey(n.Ino, parent), encode(&count{2}))
		} else {
			u.set(u.parentKey(n.Ino, n.Parent), encode(&count{1}))
			u.set(u.parentKey(n.Ino, parent), encode(&count{1}))
		}
		n.Parent = 0
		return nil
	}
	return u.countParent(n.Ino, parent, 1)
}

// countParent changes the links of ino in parent by delta, 1 or -1.
func (u *unit) countParent(ino, parent meta.Ino, delta int) error {
	k := u.parentKey(ino, parent)
	var c count
	ok, err := get(u.tx, k, &c)
	if err != nil {
		return err
	}
	if !ok && delta < 0 {
		return fail("tree.parents", errs.Corrupt, "inode %d has no link in directory %d", ino, parent)
	}
	c.N = uint32(int(c.N) + delta)
	if c.N == 0 {
		u.del(k)
	} else {
		u.set(k, encode(&c))
	}
	return nil
}
