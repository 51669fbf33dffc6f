package tree

import (
	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
)

// Drop hands the whole drive to the queue. From now on every mutation fails
// with errs.Stale, and the root is gone. The blocks of the drive are freed as
// ReclaimStep comes to them.
func (s Space) Drop(tx kv.Tx, st Stamp) error {
	u, live, err := s.begin(tx, st)
	if err != nil || !live {
		return err
	}
	u.count.Dropped, u.count.Bytes, u.count.Files = true, 0, 0
	u.dirty = true
	u.owe(debtDrop, 0, debt{})
	u.del(u.inodeKey(meta.RootIno))
	u.commit()
	return nil
}

// Queued gives the first layer with a number of at least from that has work
// waiting in the queue.
func Queued(v kv.View, from meta.LayerID) (layer meta.LayerID, ok bool, err error) {
	err = v.Scan(key(prefixQueue, uint64(from)), []byte{prefixQueue + 1}, func(k, _ []byte) bool {
		layer, ok = meta.LayerID(keyInt(k, 0)), true
		return false
	})
	return layer, ok, err
}

// ReclaimStep works off the queue of the drive, touching about budget keys: at
// least one item is done, and the last one begun is finished. done: nothing is
// left in the queue.
func (s Space) ReclaimStep(tx kv.Tx, st Stamp, budget int) (done bool, err error) {
	for budget > 0 {
		var k []byte
		var d debt
		var failed error
		lo := key(prefixQueue, uint64(s.Layer))
		err := tx.Scan(lo, keysEnd(lo), func(key, val []byte) bool {
			k = append(k, key...)
			failed = decode(key, val, &d)
			return false
		})
		if err == nil {
			err = failed
		}
		if err != nil || k == nil {
			return k == nil, err
		}
		kind, id, ok := splitDebtKey(k)
		if !ok {
			return false, fail("tree.reclaim", errs.Corrupt, "queue key %q", k)
		}
		r := &reclaim{unit: &unit{Space: s, tx: tx, st: st}, key: k, id: id, debt: d, budget: budget}
		if _, err := get(tx, s.counterKey(), &r.count); err != nil {
			return false, err
		}
		if err := r.step(kind); err != nil {
			return false, err
		}
		r.commit()
		budget = r.budget - 1
	}
	layer, more, err := Queued(tx, s.Layer)
	return !more || layer != s.Layer, err
}

// reclaim is one step on one debt.
type reclaim struct {
	*unit
	key    []byte
	id     uint64
	debt   debt
	budget int // keys that may still be touched
}

func (r *reclaim) step(kind uint8) error {
	switch kind {
	case debtDrop:
		return r.dropLayer()
	case debtSession:
		return r.unpinSession()
	case debtTrim:
		return r.trim()
	case debtContent:
		lo := key(prefixExtent, uint64(r.Layer), r.id)
		return r.paid(r.wipeExtents(lo, keysEnd(lo)))
	case debtXattrs:
		return r.paid(r.wipe(r.xattrKey(meta.Ino(r.id), "")))
	}
	return fail("tree.reclaim", errs.Corrupt, "debt of kind %d", kind)
}

// paid removes the debt once its work is done.
func (r *reclaim) paid(done bool, err error) error {
	if done && err == nil {
		r.del(r.key)
	}
	return err
}

// wipe deletes keys that begin with prefix, as many as the budget allows.
func (r *reclaim) wipe(prefix []byte) (done bool, err error) {
	done = true
	err = r.tx.Scan(prefix, keysEnd(prefix), func(k, _ []byte) bool {
		if done = r.budget > 0; !done {
			return false
		}
		r.budget--
		r.del(append([]byte(nil), k...))
		return true
	})
	return done, err
}

// wipeExtents deletes extents in a range of keys and lets go of their blocks.
func (r *reclaim) wipeExtents(lo, hi []byte) (done bool, err error) {
	done = true
	var deltas []delta
	var failed error
	err = r.tx.Scan(lo, hi, func(k, val []byte) bool {
		if done = r.budget > 0; !done {
			return false
		}
		var e extent
		if e, failed = decodeExtent(k, val); failed != nil {
			return false
		}
		r.del(append([]byte(nil), k...))
		r.release(&e, &deltas)
		return true
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return false, err
	}
	return done, r.bookBlocks(nil, deltas)
}

// release notes that e goes and pays for the keys that this touches: the
// extent, and its block's record, freed record and repair entries.
func (r *reclaim) release(e *extent, deltas *[]delta) {
	r.budget--
	if e.Kind == meta.ExtentBlock {
		*deltas = append(*deltas, delta{e.Block, -int64(e.Len)})
		r.budget -= 2
	}
}

// unpinSession takes the remaining pins of a session off.
func (r *reclaim) unpinSession() error {
	session := meta.SessionID(r.id)
	inos, more, err := r.pinned(r.tx, session, max(1, r.budget/4))
	if err != nil {
		return err
	}
	if !more {
		r.tx.Delete(r.key)
	}
	for _, ino := range inos {
		r.budget -= 4
		if err := r.unpin(r.tx, r.st, session, ino); err != nil {
			return err
		}
	}
	return nil
}

// trim deletes dead extents of a living file.
func (r *reclaim) trim() error {
	n, err := r.load(meta.Ino(r.id))
	if errs.Is(err, errs.Stale) || (err == nil && n.Trim.To == 0) {
		return r.paid(true, nil) // the file died or was emptied meanwhile
	}
	if err != nil {
		return err
	}
	next, over := r.debt.Next, false
	found, more, err := r.collect(r.tx, &n.inode, next, max(1, r.budget/3), func(e *extent) bool {
		over = !n.Trim.covers(e) && e.Off >= n.Trim.To
		return !over
	})
	if err != nil {
		return err
	}
	var ch change
	for i := range found {
		next = found[i].end()
		r.budget -= 3
		if n.Trim.covers(&found[i]) {
			ch.drop = append(ch.drop, found[i])
		}
	}
	if err := r.execute(n, ch, nil); err != nil {
		return err
	}
	n.dirty = true
	if more {
		r.set(r.key, encode(&debt{Next: next}))
		return nil
	}
	n.Trim = trim{}
	return r.paid(true, nil)
}

// dropLayer deletes everything of a layer: content first, so that blocks are
// freed, the counters last.
func (r *reclaim) dropLayer() error {
	lo := key(prefixExtent, uint64(r.Layer))
	if done, err := r.wipeExtents(lo, keysEnd(lo)); err != nil || !done {
		return err
	}
	if done, err := r.dropOrphans(); err != nil || !done {
		return err
	}
	for _, prefix := range [...]byte{prefixEntry, prefixXattr, prefixParent, prefixInode} {
		if done, err := r.wipe(key(prefix, uint64(r.Layer))); err != nil || !done {
			return err
		}
	}
	// The debt for the layer itself is the first in its queue: the others are
	// part of what was just deleted.
	done, err := r.wipe(key(prefixQueue, uint64(r.Layer)))
	if err != nil {
		return err
	}
	if !done {
		r.set(r.key, encode(&r.debt))
		return nil
	}
	r.del(r.counterKey())
	return nil
}

// dropOrphans deletes orphan records with their pins.
func (r *reclaim) dropOrphans() (bool, error) {
	limit := max(1, r.budget/2)
	list, err := r.Orphans(r.tx, 0, limit)
	if err != nil {
		return false, err
	}
	for _, o := range list {
		r.budget -= 1 + len(o.Pins)
		r.del(r.orphanKey(o.Ino))
		r.del(r.unresolvedKey(o.Ino))
		for _, session := range o.Pins {
			r.del(r.pinKey(session, o.Ino))
		}
	}
	return len(list) < limit, nil
}
