package tree

import (
	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/rules"
)

// victim resolves a name that is to be taken away from dir.
func (u *unit) victim(parent meta.Ino, name string) (dir, n *node, err error) {
	if err := rules.CheckName(name); err != nil {
		return nil, nil, err
	}
	if dir, err = u.loadDir(parent); err != nil {
		return nil, nil, err
	}
	e, ok, err := u.entry(u.tx, parent, name)
	if err != nil {
		return nil, nil, err
	}
	if !ok {
		return nil, nil, fail("tree.entry", errs.NotExist, "no %q in directory %d", name, parent)
	}
	n, err = u.loadEntry(e)
	return dir, n, err
}

// unlink executes Unlink.
func (u *unit) unlink(x *meta.Unlink) (meta.Result, error) {
	dir, n, err := u.victim(x.Parent, x.Name)
	if err != nil {
		return nil, err
	}
	if err := rules.CheckUnlink(x, &dir.Attr, &n.Attr); err != nil {
		return nil, err
	}
	return u.remove(dir, n, x.Name)
}

// rmdir executes Rmdir.
func (u *unit) rmdir(x *meta.Rmdir) (meta.Result, error) {
	dir, n, err := u.victim(x.Parent, x.Name)
	if err != nil {
		return nil, err
	}
	if err := rules.CheckRmdir(x, &dir.Attr, &n.Attr); err != nil {
		return nil, err
	}
	return u.remove(dir, n, x.Name)
}

// remove takes a name of n out of dir.
func (u *unit) remove(dir, n *node, name string) (meta.Result, error) {
	rules.Unlinked(&dir.Attr, &n.Attr, u.st.Now)
	changed(dir, n)
	if err := u.unlinked(n, dir); err != nil {
		return nil, err
	}
	u.dropEntry(dir, name)
	return &meta.AttrResult{Attr: n.Attr}, nil
}

// unlinked books that a link of n, from dir, is gone. The last one makes it an
// orphan.
func (u *unit) unlinked(n, dir *node) error {
	switch n.Nlink {
	case 0:
		n.Parent = 0
		u.set(u.orphanKey(n.Ino), encode(&orphan{}))
		u.set(u.unresolvedKey(n.Ino), []byte{recordVersion})
		return nil
	case 1:
		return u.lastParent(n, dir.Ino)
	}
	return u.countParent(n.Ino, dir.Ino, -1)
}

// lastParent turns the counted parents of n, of which one link in gone just
// went, back into a stored one.
func (u *unit) lastParent(n *node, gone meta.Ino) error {
	lo := key(prefixParent, uint64(u.Layer), uint64(n.Ino))
	var failed error
	n.Parent = 0
	err := u.tx.Scan(lo, keysEnd(lo), func(k, val []byte) bool {
		var c count
		if failed = decode(k, val, &c); failed != nil {
			return false
		}
		parent := meta.Ino(keyInt(k, 2))
		if parent != gone || c.N > 1 {
			n.Parent = parent
		}
		u.del(append([]byte(nil), k...))
		return true
	})
	if err == nil {
		err = failed
	}
	if err == nil && n.Parent == 0 {
		err = fail("tree.parents", errs.Corrupt, "inode %d has a link in no directory", n.Ino)
	}
	return err
}

// die removes an orphan for good: the record at once, the rest now if it is
// little and through the queue if not.
func (u *unit) die(n *node) error {
	if n.Extents > 0 {
		if err := u.dropContent(n); err != nil {
			return err
		}
	}
	if n.XattrKeys > 0 {
		u.owe(debtXattrs, uint64(n.Ino), debt{})
	}
	u.del(u.orphanKey(n.Ino))
	u.del(u.unresolvedKey(n.Ino))
	u.resize(n, 0, n.Bytes)
	u.count.Files--
	u.dirty, n.dead = true, true
	return nil
}

// Orphan is an inode without a name.
type Orphan struct {
	Ino      meta.Ino
	Resolved bool             // Pins are known
	Pins     []meta.SessionID // sessions whose kernels may still reference it
}

// Orphans lists up to limit orphans with numbers above after, ascending.
func (s Space) Orphans(v kv.View, after meta.Ino, limit int) ([]Orphan, error) {
	var list []Orphan
	var failed error
	end := key(prefixOrphan, uint64(s.Layer)+1)
	err := v.Scan(s.orphanKey(after+1), end, func(k, val []byte) bool {
		if len(list) >= limit {
			return false
		}
		var o orphan
		if failed = decode(k, val, &o); failed != nil {
			return false
		}
		list = append(list, Orphan{meta.Ino(keyInt(k, 1)), o.Resolved, o.Pins})
		return true
	})
	if err == nil {
		err = failed
	}
	return list, err
}

// Unresolved lists up to limit orphans whose pins are not known yet, with
// numbers above after, ascending. It costs nothing for the others.
func (s Space) Unresolved(v kv.View, after meta.Ino, limit int) ([]Orphan, error) {
	var list []Orphan
	err := v.Scan(s.unresolvedKey(after+1), key(prefixUnresolved, uint64(s.Layer)+1), func(k, _ []byte) bool {
		if len(list) >= limit {
			return false
		}
		list = append(list, Orphan{Ino: meta.Ino(keyInt(k, 1))})
		return true
	})
	return list, err
}

// ResolveOrphan says which sessions pin the orphan ino; with none it dies.
// Pins already known are kept beside the new ones. An inode that is no orphan
// (any more) is left alone.
func (s Space) ResolveOrphan(tx kv.Tx, st Stamp, ino meta.Ino, pins []meta.SessionID) error {
	u, live, err := s.begin(tx, st)
	if err != nil || !live {
		return err
	}
	var o orphan
	if ok, err := get(tx, s.orphanKey(ino), &o); err != nil || !ok {
		return err
	}
	o.Resolved = true
	u.del(s.unresolvedKey(ino))
	for _, session := range pins {
		if !contains(o.Pins, session) {
			o.Pins = append(o.Pins, session)
			u.set(s.pinKey(session, ino), []byte{recordVersion})
		}
	}
	if err := u.settle(ino, o); err != nil {
		return err
	}
	u.commit()
	return nil
}

// begin starts a unit for the upkeep of a drive. One that was dropped needs
// none any more: live is false.
func (s Space) begin(tx kv.Tx, st Stamp) (u *unit, live bool, err error) {
	u = &unit{Space: s, tx: tx, st: st}
	ok, err := get(tx, s.counterKey(), &u.count)
	return u, ok && !u.count.Dropped, err
}

// settle writes an orphan record back, or ends the inode.
func (u *unit) settle(ino meta.Ino, o orphan) error {
	if !o.Resolved || len(o.Pins) > 0 {
		u.set(u.orphanKey(ino), encode(&o))
		return nil
	}
	n, err := u.load(ino)
	if err != nil {
		return err
	}
	return u.die(n)
}

// unpinNow bounds the orphans that one UnpinOrphans takes off itself.
const unpinNow = 256

// UnpinOrphans takes the pins of session off the orphans inos; nil means all
// of them, many of which go through the queue. Pins it does not hold are
// ignored.
func (s Space) UnpinOrphans(tx kv.Tx, st Stamp, session meta.SessionID, inos []meta.Ino) error {
	if _, live, err := s.begin(tx, st); err != nil || !live {
		return err
	}
	if inos == nil {
		var more bool
		var err error
		if inos, more, err = s.pinned(tx, session, unpinNow); err != nil {
			return err
		}
		if more {
			tx.Set(s.debtKey(debtSession, uint64(session)), encode(&debt{}))
		}
	}
	for _, ino := range inos {
		if err := s.unpin(tx, st, session, ino); err != nil {
			return err
		}
	}
	return nil
}

// pinned lists orphans pinned by session, and tells whether there are more.
func (s Space) pinned(v kv.View, session meta.SessionID, limit int) (inos []meta.Ino, more bool, err error) {
	lo := key(prefixPin, uint64(session), uint64(s.Layer))
	err = v.Scan(lo, keysEnd(lo), func(k, _ []byte) bool {
		if more = len(inos) >= limit; more {
			return false
		}
		inos = append(inos, meta.Ino(keyInt(k, 2)))
		return true
	})
	return inos, more, err
}

// unpin takes one pin off.
func (s Space) unpin(tx kv.Tx, st Stamp, session meta.SessionID, ino meta.Ino) error {
	k := s.pinKey(session, ino)
	if _, ok, err := tx.Get(k); err != nil || !ok {
		return err
	}
	var o orphan
	ok, err := get(tx, s.orphanKey(ino), &o)
	if err != nil {
		return err
	}
	if !ok {
		return fail("tree.unpin", errs.Corrupt, "session %d pins inode %d, which is no orphan", session, ino)
	}
	u, live, err := s.begin(tx, st)
	if err != nil || !live {
		return err
	}
	pins := make([]meta.SessionID, 0, len(o.Pins))
	for _, p := range o.Pins {
		if p != session {
			pins = append(pins, p)
		}
	}
	o.Pins = pins
	u.del(k)
	if err := u.settle(ino, o); err != nil {
		return err
	}
	u.commit()
	return nil
}

func contains(list []meta.SessionID, x meta.SessionID) bool {
	for _, v := range list {
		if v == x {
			return true
		}
	}
	return false
}
