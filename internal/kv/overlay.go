package kv

import (
	"bytes"

	"github.com/tidwall/btree"
)

// entry is one pair of a sorted map; deleted marks a tombstone (Overlay only).
type entry struct {
	key, val []byte
	deleted  bool
}

func newTree() *btree.BTreeG[entry] {
	return btree.NewBTreeGOptions(
		func(a, b entry) bool { return bytes.Compare(a.key, b.key) < 0 },
		btree.Options{NoLocks: true})
}

// Overlay is a Tx over a View: writes stay in a sorted map in memory, reads
// see them merged over the view, and the owner takes them out with Each. A
// scan costs O(log n) to position and O(1) a pair, whatever is buffered. Not
// safe for concurrent use.
type Overlay struct {
	base  View
	tree  *btree.BTreeG[entry]
	bytes int
	err   error // first failure of base; later reads fail with it
}

var _ Tx = (*Overlay)(nil)

// NewOverlay starts with no writes over base, which must stay readable and
// unchanged while the overlay is used.
func NewOverlay(base View) *Overlay { return &Overlay{base: base, tree: newTree()} }

// Len is the number of buffered writes; writes to the same key count once.
func (o *Overlay) Len() int { return o.tree.Len() }

// Bytes is the sum of the lengths of buffered keys and values.
func (o *Overlay) Bytes() int { return o.bytes }

// Err is the first read error of the base view. A caller that decides from
// reads, but has no way to return their errors, is caught by asking here
// before the commit.
func (o *Overlay) Err() error { return o.err }

// Get implements View.
func (o *Overlay) Get(key []byte) ([]byte, bool, error) {
	if e, ok := o.tree.Get(entry{key: key}); ok {
		return e.val, !e.deleted, nil
	}
	if o.err != nil {
		return nil, false, o.err
	}
	val, ok, err := o.base.Get(key)
	o.err = err
	return val, ok, err
}

// Set implements Tx.
func (o *Overlay) Set(key, val []byte) {
	buf := make([]byte, len(key)+len(val))
	n := copy(buf, key)
	copy(buf[n:], val)
	o.put(entry{key: buf[:n:n], val: buf[n:]})
}

// Delete implements Tx. The tombstone stays even if base lacks the key: to
// find out would cost a read.
func (o *Overlay) Delete(key []byte) {
	o.put(entry{key: bytes.Clone(key), deleted: true})
}

func (o *Overlay) put(e entry) {
	old, replaced := o.tree.Set(e)
	if replaced {
		o.bytes -= len(old.key) + len(old.val)
	}
	o.bytes += len(e.key) + len(e.val)
}

// Each calls fn for every buffered write in ascending order of keys until fn
// returns false. The slices stay valid as long as the overlay.
func (o *Overlay) Each(fn func(key, val []byte, deleted bool) bool) {
	o.tree.Scan(func(e entry) bool { return fn(e.key, e.val, e.deleted) })
}

// Scan implements View.
func (o *Overlay) Scan(lo, hi []byte, fn func(key, val []byte) bool) error {
	if o.err != nil {
		return o.err
	}
	m := merge{it: o.tree.Iter(), hi: hi, fn: fn}
	defer m.it.Release()
	m.valid = m.it.Seek(entry{key: lo})
	if err := o.base.Scan(lo, hi, m.base); err != nil {
		o.err = err
		return err
	}
	if !m.stopped {
		m.upTo(hi)
	}
	return nil
}

// merge walks the buffered writes beside a scan of the base.
type merge struct {
	it      btree.IterG[entry]
	valid   bool // it stands on an entry
	hi      []byte
	fn      func(key, val []byte) bool
	stopped bool // fn returned false
}

// upTo emits buffered pairs below limit (nil: all) and reports whether to go
// on.
func (m *merge) upTo(limit []byte) bool {
	for m.valid {
		e := m.it.Item()
		if limit != nil && bytes.Compare(e.key, limit) >= 0 {
			return true
		}
		m.valid = m.it.Next()
		if !e.deleted && !m.fn(e.key, e.val) {
			m.stopped = true
			return false
		}
	}
	return true
}

// base receives one pair of the base scan.
func (m *merge) base(key, val []byte) bool {
	if !m.upTo(key) {
		return false
	}
	if m.valid && bytes.Equal(m.it.Item().key, key) {
		return true // the buffered write decides; the next upTo emits it
	}
	if !m.fn(key, val) {
		m.stopped = true
		return false
	}
	return true
}
