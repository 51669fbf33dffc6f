package disk

import (
	"math/rand/v2"

	"agentdrive/internal/errs"
)

// Sector is the unit that a power cut leaves whole, old or new.
const Sector = 512

// CrashClone returns the filesystem as a machine finds it after a power cut at
// this moment; m itself goes on unchanged. What was synced is there. Of the
// rest rng decides: each unsynced directory change survives or not, each
// sector of each unsynced write survives or not, independently (so writes are
// lost, torn and reordered), and a size may survive without its data. Locks,
// handles, the hook and the capacity are gone. The same rng state and the
// same history give the same result.
func (m *Mem) CrashClone(rng *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	// One bias per crash: cuts at which nearly everything or nearly nothing
	// survived find other mistakes than fair coins do.
	keep := [...]float64{0, 0.1, 0.5, 0.9, 1}[rng.IntN(5)]
	c := &crash{rng: rng, keep: keep, copies: map[*node]*node{}}
	out := NewMem()
	out.root = c.dir(m.root)
	for _, op := range m.pending {
		c.replay(op)
	}
	out.settle(out.root, map[*node]bool{})
	return out
}

type crash struct {
	rng    *rand.Rand
	keep   float64
	copies map[*node]*node // old node -> its state after the crash
}

func (c *crash) survives() bool { return c.rng.Float64() < c.keep }

// replay applies a pending change, or loses it. The halves of a rename
// between directories are lost one by one.
func (c *crash) replay(op *dirOp) {
	fate := map[*node]bool{}
	for _, e := range op.edits {
		keep, known := fate[e.dir]
		if !known {
			keep = c.survives()
			fate[e.dir] = keep
		}
		if !keep {
			continue
		}
		dir := c.dir(e.dir)
		if e.target == nil {
			delete(dir.live, e.name)
		} else {
			dir.live[e.name] = c.node(e.target)
		}
	}
}

func (c *crash) node(n *node) *node {
	if n.live != nil {
		return c.dir(n)
	}
	if got := c.copies[n]; got != nil {
		return got
	}
	data := append([]byte(nil), n.stable...)
	for _, w := range n.writes {
		data = c.tear(data, w)
	}
	if len(data) < len(n.data) && len(n.writes) > 0 && c.survives() {
		data = resize(data, int64(len(n.data)))
	}
	got := &node{data: data}
	c.copies[n] = got
	return got
}

func (c *crash) tear(b []byte, w fileWrite) []byte {
	if w.data == nil {
		if c.survives() {
			b = resize(b, w.off)
		}
		return b
	}
	for i := 0; i < len(w.data); {
		off := w.off + int64(i)
		n := min(len(w.data)-i, int(Sector-off%Sector))
		if c.survives() {
			b = fileWrite{off, w.data[i : i+n]}.apply(b)
		}
		i += n
	}
	return b
}

func (c *crash) dir(n *node) *node {
	if got := c.copies[n]; got != nil {
		return got
	}
	got := newDir()
	c.copies[n] = got
	for _, name := range sortedKeys(n.durable) {
		got.live[name] = c.node(n.durable[name])
	}
	return got
}

// settle makes the surviving state the durable one and counts links and
// space.
func (m *Mem) settle(n *node, seen map[*node]bool) {
	n.links++
	if seen[n] {
		return
	}
	seen[n] = true
	if n.live == nil {
		n.stable = append([]byte(nil), n.data...)
		m.used += int64(len(n.data))
		return
	}
	for name, child := range n.live {
		n.durable[name] = child
		m.settle(child, seen)
	}
}

// Corrupt flips one bit in each of n bytes of a file from off on, in the
// written and in the durable state alike: bit rot.
func (m *Mem) Corrupt(name string, off int64, n int, rng *rand.Rand) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.walk(OpWrite, name)
	if err != nil {
		return err
	}
	if off < 0 || off+int64(n) > int64(len(f.data)) {
		return errs.E("disk.corrupt", errs.Range, name, nil)
	}
	for i := off; i < off+int64(n); i++ {
		bit := byte(1) << rng.IntN(8)
		f.data[i] ^= bit
		if i < int64(len(f.stable)) {
			f.stable[i] ^= bit
		}
	}
	return nil
}
