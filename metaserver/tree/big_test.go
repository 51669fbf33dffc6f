package tree

import (
	"fmt"
	"os"
	"testing"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
)

// bigVar runs the tests of this file with a million entries and extents.
const bigVar = "TREE_BIG"

func bigN() int {
	if os.Getenv(bigVar) != "" {
		return 1_000_000
	}
	return 20_000
}

// counting counts the keys that a View or Tx gives out and takes.
type counting struct {
	kv.Tx
	keys int
}

func (c *counting) Get(k []byte) ([]byte, bool, error) {
	c.keys++
	return c.Tx.Get(k)
}

func (c *counting) Scan(lo, hi []byte, fn func(k, val []byte) bool) error {
	return c.Tx.Scan(lo, hi, func(k, val []byte) bool {
		c.keys++
		return fn(k, val)
	})
}

func (c *counting) Set(k, val []byte) {
	c.keys++
	c.Tx.Set(k, val)
}

func (c *counting) Delete(k []byte) {
	c.keys++
	c.Tx.Delete(k)
}

// world is a tree in one transaction that goes on for ever: quick to fill.
type world struct {
	t     testing.TB
	space Space
	tx    *counting
	st    Stamp
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, space: Space{Drive: 1, Layer: 2}, tx: &counting{Tx: kv.NewMem().Begin()}, st: Stamp{1, birth}}
	if err := w.space.Init(w.tx, w.st, 0o755, 0, 0); err != nil {
		t.Fatal(err)
	}
	return w
}

// try applies a mutation or read as one entry.
func (w *world) try(op meta.Op) (meta.Result, error) {
	w.st.Index++
	w.st.Now += 1000
	w.tx.keys = 0
	if op.Kind().IsRead() {
		return w.space.Read(w.tx, op)
	}
	return w.space.Apply(w.tx, w.st, op)
}

func (w *world) do(op meta.Op) meta.Result {
	w.t.Helper()
	res, err := w.try(op)
	if err != nil {
		w.t.Fatalf("%T %+v: %v", op, op, err)
	}
	return res
}

func (w *world) make(parent meta.Ino, name string, mode uint32) meta.Attr {
	w.t.Helper()
	return w.do(&meta.Make{Parent: parent, Name: name, Mode: mode, Excl: true}).(*meta.EntryResult).Attr
}

func (w *world) attr(ino meta.Ino) meta.Attr {
	w.t.Helper()
	return w.do(&meta.GetAttr{Ino: ino}).(*meta.AttrResult).Attr
}

func (w *world) check() {
	w.t.Helper()
	report := func(p string) { w.t.Helper(); w.t.Error(p) }
	if err := w.space.Check(w.tx, report); err != nil {
		w.t.Error(err)
	}
	if err := CheckBlocks(w.tx, report); err != nil {
		w.t.Error(err)
	}
}

// TestBigDirectory lists a big directory while names come and go: what stays
// is seen exactly once, and no page touches more than its entries.
func TestBigDirectory(t *testing.T) {
	w, n := newWorld(t), bigN()
	dir := w.make(meta.RootIno, "d", meta.ModeDir|0o755).Ino
	for i := range n {
		w.make(dir, fmt.Sprintf("f%d", i), meta.ModeRegular|0o644)
		if w.tx.keys > 12 {
			t.Fatalf("entry %d: a create touched %d keys", i, w.tx.keys)
		}
	}
	const limit = 100
	seen := make(map[string]int, n)
	pages, last := 0, uint64(0)
	for eof := false; !eof; pages++ {
		plus := pages%2 == 0
		page := w.do(&meta.ReadDir{Dir: dir, Cookie: last, Limit: limit, Plus: plus}).(*meta.DirResult)
		if most := limit + 3; w.tx.keys > most && !plus || w.tx.keys > 2*most {
			t.Fatalf("page %d of %d entries touched %d keys", pages, len(page.Entries), w.tx.keys)
		}
		for _, e := range page.Entries {
			if e.Cookie <= last {
				t.Fatalf("cookie %d after %d", e.Cookie, last)
			}
			last = e.Cookie
			seen[e.Name]++
			if plus && e.Attr.Nlink != 1 {
				t.Fatalf("%q without attributes", e.Name)
			}
		}
		eof = page.EOF
		// Every third name goes, others come.
		if i := pages * 3; i < n {
			w.do(&meta.Unlink{Parent: dir, Name: fmt.Sprintf("f%d", i)})
			if w.tx.keys > 14 {
				t.Fatalf("an unlink touched %d keys", w.tx.keys)
			}
			w.make(dir, fmt.Sprintf("new%d", i), meta.ModeRegular|0o644)
		}
	}
	for i := range n {
		got := seen[fmt.Sprintf("f%d", i)]
		stayed := i%3 != 0 || i/3 >= pages
		if stayed && got != 1 || got > 1 {
			t.Fatalf("name f%d was seen %d times", i, got)
		}
	}
	if got := w.attr(dir).Size; got != uint64(n) {
		t.Errorf("size %d, want %d", got, n)
	}
}

// TestBigFile builds a file of many extents, cuts it, overwrites it and
// deletes it, and counts what each step touches.
func TestBigFile(t *testing.T) {
	w, n := newWorld(t), bigN()
	ino := w.make(meta.RootIno, "f", meta.ModeRegular|0o644).Ino
	id := chunk.BlockID{1}
	w.do(&meta.Write{Ino: ino,
		Extents: []meta.Extent{{Off: 0, Len: 1, Kind: meta.ExtentBlock, Block: id}},
		Blocks:  []meta.NewBlock{{ID: id, Len: chunk.MaxBlock, Acked: []chunk.ServerID{1, 2}, Missing: []chunk.ServerID{3}}}})
	for i := 0; i < n; i += meta.MaxExtents {
		op := &meta.Write{Ino: ino}
		for j := range meta.MaxExtents {
			at := uint64(i + j)
			op.Extents = append(op.Extents, meta.Extent{Off: at * 8, Len: 4, Kind: meta.ExtentBlock, Block: id, BlockOff: uint32(at % (1 << 20))})
		}
		w.do(op)
	}
	size := w.attr(ino).Size
	steps := func(what string, budget int) {
		for done := false; !done; {
			w.st.Index++
			w.tx.keys = 0
			var err error
			if done, err = w.space.ReclaimStep(w.tx, w.st, budget); err != nil {
				t.Fatal(what, err)
			}
			if w.tx.keys > 2*budget+20 {
				t.Fatalf("%s: a step of %d touched %d keys", what, budget, w.tx.keys)
			}
		}
		w.check()
	}
	// Truncate to the middle: bounded, and holes read at once.
	w.do(&meta.SetAttr{Ino: ino, Set: meta.SetSize, Size: size/2 + 2})
	if w.tx.keys > maxCut+20 {
		t.Fatalf("a truncation touched %d keys", w.tx.keys)
	}
	if m := w.do(&meta.ReadMap{Ino: ino, Off: 0, Len: 1 << 40, Limit: 1}).(*meta.MapResult); m.Attr.Size != size/2+2 || len(m.Extents) != 1 {
		t.Fatalf("map %+v", m)
	}
	steps("trim", 300)
	if got, want := w.attr(ino).Bytes, (size/2+2)/8*4+2; got < want-4 || got > want+4 {
		t.Errorf("%d bytes allocated, want about %d", got, want)
	}
	// One big write over thousands of small extents.
	big := chunk.BlockID{2}
	w.do(&meta.Write{Ino: ino, Extents: []meta.Extent{{Off: 2, Len: uint32(min(size/4, chunk.MaxBlock)), Kind: meta.ExtentBlock, Block: big}},
		Blocks: []meta.NewBlock{{ID: big, Len: chunk.MaxBlock, Acked: []chunk.ServerID{1, 2}}}})
	if w.tx.keys > 3*maxCut {
		t.Fatalf("an overwrite touched %d keys", w.tx.keys)
	}
	steps("punch", 300)
	// Truncate to nothing, write again, delete.
	w.do(&meta.SetAttr{Ino: ino, Set: meta.SetSize, Size: 0})
	if a := w.attr(ino); a.Bytes != 0 || a.Size != 0 {
		t.Errorf("after truncation %+v", a)
	}
	w.do(&meta.Write{Ino: ino, Extents: []meta.Extent{{Off: 5, Len: 2, Kind: meta.ExtentInline, Inline: []byte("hi")}}})
	w.do(&meta.Unlink{Parent: meta.RootIno, Name: "f"})
	if err := w.space.ResolveOrphan(w.tx, w.st, ino, nil); err != nil {
		t.Fatal(err)
	}
	steps("delete", 300)
	if bytes, files, err := w.space.Stats(w.tx); bytes != 0 || files != 1 || err != nil {
		t.Errorf("%d bytes, %d files, %v", bytes, files, err)
	}
	freed, err := FreedBlocks(w.tx, FreedKey{}, w.st.Now+1, 10)
	if err != nil || len(freed) != 2 {
		t.Errorf("freed %v, %v", freed, err)
	}
	if copies, bytes, err := RepairTotals(w.tx); copies != 0 || bytes != 0 || err != nil {
		t.Errorf("repair totals %d, %d, %v", copies, bytes, err)
	}
}
