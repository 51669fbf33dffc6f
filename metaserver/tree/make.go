package tree

import (
	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/rules"
)

// create executes Make.
func (u *unit) create(x *meta.Make) (meta.Result, error) {
	mode, err := rules.CheckMake(x)
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
	if err := rules.CheckLive(&dir.Attr); err != nil {
		return nil, err
	}
	ino := x.Ino
	if ino == 0 {
		ino = u.newIno(dir)
	} else if err := u.checkIno(ino, dir); err != nil {
		return nil, err
	}
	n := &node{inode: inode{Attr: rules.Born(&dir.Attr, x, mode, ino, u.st.Now), Parent: dir.Ino}}
	if mode&meta.ModeType == meta.ModeSymlink {
		n.Target = x.Target
	}
	u.nodes = append(u.nodes, n)
	u.count.Files++
	u.dirty = true
	u.addEntry(dir, x.Name, n)
	rules.Made(&dir.Attr, &n.Attr, u.st.Now)
	changed(dir, n)
	return &meta.EntryResult{Attr: n.Attr, Created: true}, nil
}

// MaxGroups bounds the locality groups allocated at once.
const MaxGroups = 1 << 16

// AllocGroups sets n locality groups aside, [first, first + n), which nobody
// else will get: no inode is born in them unless a Make chooses its number
// there.
func (s Space) AllocGroups(tx kv.Tx, n uint32) (first uint64, err error) {
	u := &unit{Space: s, tx: tx}
	if err := u.loadCounters(); err != nil {
		return 0, err
	}
	if n == 0 || n > MaxGroups {
		return 0, fail("tree.groups", errs.Invalid, "%d locality groups at once, 1 to %d can be had", n, MaxGroups)
	}
	first = u.count.NextGroup
	if first+uint64(n) >= 1<<(64-meta.SlotBits) {
		return 0, fail("tree.groups", errs.NoSpace, "no locality groups are left")
	}
	u.count.NextGroup += uint64(n)
	u.dirty = true
	u.commit()
	return first, nil
}

// existing answers a Make whose name is taken.
func (u *unit) existing(x *meta.Make, mode uint32, e entry) (meta.Result, error) {
	if err := rules.Existing(x, mode, e.Type); err != nil {
		return nil, err
	}
	n, err := u.loadEntry(e)
	if err != nil {
		return nil, err
	}
	return &meta.EntryResult{Attr: n.Attr}, nil
}

// checkIno refuses a number that a client may not choose: one of a group that
// nobody has, or in which the servers themselves give birth. That the group is
// the client's own is checked by package state, which knows sessions.
func (u *unit) checkIno(ino meta.Ino, dir *node) error {
	group := uint64(ino) >> meta.SlotBits
	if group == 0 || group >= u.count.NextGroup || group == dir.Group {
		return fail("tree.make", errs.Invalid, "inode %d is not the client's to choose", ino)
	}
	_, exists, err := u.tx.Get(u.inodeKey(ino))
	if err == nil && exists {
		err = fail("tree.make", errs.Exist, "inode %d exists", ino)
	}
	return err
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
	if err := rules.CheckName(x.Name); err != nil {
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
	_, taken, err := u.entry(u.tx, x.Parent, x.Name)
	if err != nil {
		return nil, err
	}
	if err := rules.CheckLink(x, &dir.Attr, &n.Attr, taken); err != nil {
		return nil, err
	}
	rules.Linked(&dir.Attr, &n.Attr, u.st.Now)
	changed(dir, n)
	if err := u.linked(n, dir.Ino); err != nil {
		return nil, err
	}
	u.addEntry(dir, x.Name, n)
	return &meta.EntryResult{Attr: n.Attr}, nil
}

// linked books the newest link of n, in the directory parent.
func (u *unit) linked(n *node, parent meta.Ino) error {
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
