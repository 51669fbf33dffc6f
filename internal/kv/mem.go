package kv

import (
	"bytes"
	"sync"

	"github.com/tidwall/btree"
)

// Mem is an ordered store in memory. Views are O(1) copies on write. Safe for
// concurrent use, with one open MemTx at a time (Begin waits).
type Mem struct {
	writer sync.Mutex // rank 1: held from Begin to Commit or Discard
	mu     sync.Mutex // rank 2: guards tree, held for O(1) or one commit
	tree   *btree.BTreeG[entry]
}

// NewMem returns an empty store.
func NewMem() *Mem { return &Mem{tree: newTree()} }

// View returns the state of now. Later commits do not change it.
func (m *Mem) View() Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return memView{m.tree.Copy()}
}

// Begin starts the next transaction.
func (m *Mem) Begin() *MemTx {
	m.writer.Lock()
	return &MemTx{Overlay: NewOverlay(m.View()), m: m}
}

// MemTx is a transaction on a Mem. End it with Commit or Discard.
type MemTx struct {
	*Overlay
	m *Mem // nil once ended
}

// Commit makes the writes visible to later views, all at once.
func (t *MemTx) Commit() {
	if t.m == nil {
		panic("kv: Commit of an ended transaction")
	}
	t.m.mu.Lock()
	t.Each(func(key, val []byte, deleted bool) bool {
		if deleted {
			t.m.tree.Delete(entry{key: key})
		} else {
			t.m.tree.Set(entry{key: key, val: val})
		}
		return true
	})
	t.m.mu.Unlock()
	t.Discard()
}

// Discard drops the writes. After Commit or Discard it does nothing.
func (t *MemTx) Discard() {
	if t.m != nil {
		m := t.m
		t.m = nil
		m.writer.Unlock()
	}
}

type memView struct{ tree *btree.BTreeG[entry] }

func (v memView) Get(key []byte) ([]byte, bool, error) {
	e, ok := v.tree.Get(entry{key: key})
	return e.val, ok, nil
}

func (v memView) Scan(lo, hi []byte, fn func(key, val []byte) bool) error {
	v.tree.Ascend(entry{key: lo}, func(e entry) bool {
		if hi != nil && bytes.Compare(e.key, hi) >= 0 {
			return false
		}
		return fn(e.key, e.val)
	})
	return nil
}

func (memView) Release() {}
