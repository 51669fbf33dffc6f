package store

import (
	"bytes"
	"errors"
	"fmt"

	badger "github.com/dgraph-io/badger/v4"

	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
)

// View is the state after one commit, unaffected by later ones and by
// Restore. Safe for concurrent use. Release it soon: it keeps old versions of
// keys, and Close waits for it.
type View struct {
	s   *Store
	g   *generation
	txn *badger.Txn
	at  Applied
}

var _ kv.Snapshot = (*View)(nil)

// View opens the state as of the last commit. Kind errs.Unavailable after
// Close.
func (s *Store) View() (*View, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed("store.view")
	}
	return s.viewLocked(), nil
}

func (s *Store) viewLocked() *View {
	s.gen.refs++
	s.views[s.applied.Index]++
	return &View{s: s, g: s.gen, at: s.applied, txn: s.gen.db.NewTransactionAt(s.applied.Index, false)}
}

// Applied is the last commit the view contains.
func (v *View) Applied() Applied { return v.at }

// Release implements kv.Snapshot.
func (v *View) Release() {
	if v.txn == nil {
		panic("store: view released twice")
	}
	v.txn.Discard()
	v.txn = nil
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gen == v.g { // else its counts went with the generation
		if s.views[v.at.Index]--; s.views[v.at.Index] == 0 {
			delete(s.views, v.at.Index)
		}
	}
	s.unrefLocked(v.g)
}

// Get implements kv.View.
func (v *View) Get(key []byte) ([]byte, bool, error) { return v.get(userKey(key)) }

// Meta returns the record of the owner that Tx.SetMeta wrote.
func (v *View) Meta(name string) ([]byte, bool, error) { return v.get(reservedKey("m" + name)) }

func (v *View) get(raw []byte) ([]byte, bool, error) {
	item, err := v.txn.Get(raw)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, badgerError("store.get", v.g.dir, err)
	}
	val, err := item.ValueCopy(nil)
	if err != nil {
		return nil, false, badgerError("store.get", v.g.dir, err)
	}
	return val, true, nil
}

// Scan implements kv.View.
func (v *View) Scan(lo, hi []byte, fn func(key, val []byte) bool) error {
	rawHi := []byte{prefixUser + 1}
	if hi != nil {
		rawHi = userKey(hi)
	}
	return v.scan(userKey(lo), rawHi, func(key, val []byte) bool { return fn(key[1:], val) })
}

func (v *View) scan(lo, hi []byte, fn func(key, val []byte) bool) error {
	o := badger.DefaultIteratorOptions
	o.PrefetchValues = false // values are in the LSM: prefetching is a goroutine per key for nothing
	o.Prefix = commonPrefix(lo, hi)
	it := v.txn.NewIterator(o)
	defer it.Close()
	for it.Seek(lo); it.Valid(); it.Next() {
		item := it.Item()
		key := item.Key()
		if bytes.Compare(key, hi) >= 0 {
			return nil
		}
		more := true
		err := item.Value(func(val []byte) error {
			more = fn(key, val)
			return nil
		})
		if err != nil {
			return badgerError("store.scan", v.g.dir, err)
		}
		if !more {
			return nil
		}
	}
	return nil
}

// commonPrefix lets Badger skip tables outside the range.
func commonPrefix(a, b []byte) []byte {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return a[:n]
}

// Tx is the transaction of the single writer. Reads see the last commit and
// the transaction's own writes. End it with Commit or Discard.
type Tx struct {
	*kv.Overlay
	meta map[string][]byte
	view *View // nil once ended
}

var _ kv.Tx = (*Tx)(nil)

// Begin starts the next transaction and waits for the one before to end.
func (s *Store) Begin() (*Tx, error) {
	s.writer.Lock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.failed != nil {
		s.writer.Unlock()
		if s.closed {
			return nil, errClosed("store.begin")
		}
		return nil, errs.E("store.begin", errs.Other, "an earlier commit failed", s.failed)
	}
	v := s.viewLocked()
	return &Tx{Overlay: kv.NewOverlay(v), view: v}, nil
}

// SetMeta writes a small record outside the users' keys, in the same commit.
func (t *Tx) SetMeta(name string, val []byte) {
	if t.meta == nil {
		t.meta = map[string][]byte{}
	}
	t.meta[name] = bytes.Clone(val)
}

// Discard drops the writes. After Commit or Discard it does nothing.
func (t *Tx) Discard() {
	if t.view == nil {
		return
	}
	s := t.view.s
	t.view.Release()
	t.view = nil
	s.writer.Unlock()
}

// Commit makes the writes visible, all at once, as the effects of the Raft
// entries up to index, whose term is term. It does not wait for the disk; see
// Durable. index must be above the last commit's. When writing fails the
// store refuses further work: what is on disk decides at the next Open.
func (t *Tx) Commit(index, term uint64) error {
	if t.view == nil {
		return errs.E("store.commit", errs.Invalid, "transaction has ended", nil)
	}
	defer t.Discard()
	s, prev := t.view.s, t.view.at.Index
	if err := t.check(index); err != nil {
		return err
	}
	size := t.Bytes()
	for name, val := range t.meta {
		size += len(name) + len(val) + 2
	}
	if !t.view.g.fits(t.Len()+len(t.meta), size) {
		// Known before the first part is written: the part may reach the disk
		// at any time from then on, and Durable must not count it.
		s.mu.Lock()
		s.splits = append(s.splits, split{index: index, prev: prev})
		s.mu.Unlock()
	}
	at := Applied{Index: index, Term: term}
	if err := t.write(at); err != nil {
		err = badgerError("store.commit", t.view.g.dir, err)
		s.mu.Lock()
		s.failed = err
		s.mu.Unlock()
		return err
	}
	s.mu.Lock()
	s.applied = at
	s.mu.Unlock()
	if s.since += int64(size); s.since >= refreshEvery {
		s.since = 0
		if _, err := s.Durable(); err != nil {
			return err
		}
	}
	return nil
}

// check refuses what must not reach Badger.
func (t *Tx) check(index uint64) error {
	if at := t.view.at; index <= at.Index {
		return errs.E("store.commit", errs.Invalid, fmt.Sprintf("index %d is not above the last commit %d", index, at.Index), nil)
	}
	if err := t.Err(); err != nil {
		return errs.E("store.commit", errs.Other, "a read of the transaction failed", err)
	}
	var bad error
	t.Each(func(key, val []byte, _ bool) bool {
		if len(key) > MaxKey || len(val) > MaxValue {
			bad = errs.E("store.commit", errs.Invalid, fmt.Sprintf("key of %d bytes with value of %d bytes", len(key), len(val)), nil)
		}
		return bad == nil
	})
	for name, val := range t.meta {
		if len(name) > 255 || len(val) > MaxValue {
			bad = errs.E("store.commit", errs.Invalid, fmt.Sprintf("record %q of %d bytes", name, len(val)), nil)
		}
	}
	return bad
}

func (t *Tx) write(at Applied) error {
	c := newCommit(t.view.g, at.Index)
	defer func() { c.discard() }()
	var err error
	t.Each(func(key, val []byte, deleted bool) bool {
		err = c.put(userKey(key), val, deleted)
		return err == nil
	})
	if err != nil {
		return err
	}
	for name, val := range t.meta {
		if err := c.put(reservedKey("m"+name), val, false); err != nil {
			return err
		}
	}
	return c.end(at)
}
