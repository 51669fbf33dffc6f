package tree

import (
	"fmt"

	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/rules"
)

// unit is one operation on its way: it hands out each inode once, so that two
// names for one inode share its changes, and writes the changed ones at the
// end. Until every check has passed an operation writes nothing: changes of
// names and extents are noted by edit and written by commit too.
type unit struct {
	Space
	tx    kv.Tx
	st    Stamp
	nodes []*node
	edits []edit
	count counters
	dirty bool // count changed
	// replaced are bytes that a Write put over others that wait for the queue:
	// they count twice until then, but do not grow the drive.
	replaced uint64
}

// node is an inode in use by a unit.
type node struct {
	inode
	dirty bool
	dead  bool
}

// edit is a write that waits for commit; val nil deletes.
type edit struct{ key, val []byte }

func (u *unit) loadCounters() error {
	ok, err := get(u.tx, u.counterKey(), &u.count)
	if err != nil {
		return err
	}
	if !ok || u.count.Dropped {
		return fail("tree.apply", errs.Stale, "the drive was deleted")
	}
	return nil
}

// load gives the inode ino for reading and changing.
func (u *unit) load(ino meta.Ino) (*node, error) {
	for _, n := range u.nodes {
		if n.Ino == ino {
			return n, nil
		}
	}
	in, err := u.inode(u.tx, ino)
	if err != nil {
		return nil, err
	}
	n := &node{inode: *in}
	u.nodes = append(u.nodes, n)
	return n, nil
}

// loadDir is load for a directory.
func (u *unit) loadDir(ino meta.Ino) (*node, error) {
	n, err := u.load(ino)
	if err == nil {
		err = rules.CheckDir(&n.Attr)
	}
	return n, err
}

// loadEntry gives the inode behind an entry. Its absence is corruption.
func (u *unit) loadEntry(e entry) (*node, error) {
	n, err := u.load(e.Ino)
	if errs.Is(err, errs.Stale) {
		return nil, errs.E("tree.entry", errs.Corrupt, fmt.Sprintf("entry names inode %d, which does not exist", e.Ino), nil)
	}
	return n, err
}

func (u *unit) set(k, val []byte) { u.edits = append(u.edits, edit{k, val}) }
func (u *unit) del(k []byte)      { u.edits = append(u.edits, edit{k, nil}) }

// owe puts a debt into the queue.
func (u *unit) owe(kind uint8, id uint64, d debt) { u.set(u.debtKey(kind, id), encode(&d)) }

// commit writes everything down, in an order that depends on the operation
// alone.
func (u *unit) commit() {
	for _, e := range u.edits {
		if e.val == nil {
			u.tx.Delete(e.key)
		} else {
			u.tx.Set(e.key, e.val)
		}
	}
	for _, n := range u.nodes {
		switch {
		case n.dead:
			u.tx.Delete(u.inodeKey(n.Ino))
		case n.dirty:
			u.tx.Set(u.inodeKey(n.Ino), encode(&n.inode))
		}
	}
	if u.dirty {
		u.tx.Set(u.counterKey(), encode(&u.count))
	}
	u.edits, u.nodes, u.dirty = nil, nil, false
}

// resize books a change of the allocated bytes of n.
func (u *unit) resize(n *node, add, sub uint64) {
	if add == sub {
		return
	}
	n.Bytes += add - sub
	u.count.Bytes += add - sub
	n.dirty, u.dirty = true, true
}

// changed notes that the attributes of nodes changed.
func changed(nodes ...*node) {
	for _, n := range nodes {
		n.dirty = true
	}
}

// addEntry names n in dir. The caller has checked that the name is free.
func (u *unit) addEntry(dir *node, name string, n *node) {
	u.set(u.entryKey(dir.Ino, name), encode(&entry{Ino: n.Ino, Type: n.Mode & meta.ModeType}))
}

// dropEntry removes a name that exists.
func (u *unit) dropEntry(dir *node, name string) {
	u.del(u.entryKey(dir.Ino, name))
}
