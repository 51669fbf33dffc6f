package tree

import (
	"testing"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

func blockExtent(id chunk.BlockID, off uint64, blockOff, length uint32) meta.Extent {
	return meta.Extent{Off: off, Len: length, Kind: meta.ExtentBlock, Block: id, BlockOff: blockOff}
}

func TestWriteRefused(t *testing.T) {
	w := newWorld(t)
	f := w.make(meta.RootIno, "f", file).Ino
	d := w.make(meta.RootIno, "d", dir).Ino
	fifo := w.make(meta.RootIno, "p", meta.ModeFIFO).Ino
	id, other := chunk.BlockID{1}, chunk.BlockID{2}
	w.writeBlock(f, id, 0)
	known := meta.NewBlock{ID: id, PG: 4, Epoch: 2, Len: 100, Acked: []chunk.ServerID{1}}
	fresh := meta.NewBlock{ID: other, Len: 10, Acked: []chunk.ServerID{1}}
	inline := meta.Extent{Len: 1, Kind: meta.ExtentInline, Inline: []byte("x")}
	far := inline
	far.Off = meta.MaxSize
	many := make([]meta.Extent, meta.MaxExtents+1)
	for i := range many {
		many[i] = inline
		many[i].Off = uint64(2 * i)
	}
	changed := known
	changed.Epoch++
	for name, c := range map[string]struct {
		kind   errs.Kind
		ino    meta.Ino
		exts   []meta.Extent
		blocks []meta.NewBlock
	}{
		"directory":        {errs.IsDir, d, []meta.Extent{inline}, nil},
		"fifo":             {errs.Invalid, fifo, []meta.Extent{inline}, nil},
		"gone":             {errs.Stale, 99, []meta.Extent{inline}, nil},
		"nothing":          {errs.Invalid, f, nil, nil},
		"too many":         {errs.Invalid, f, many, nil},
		"too far":          {errs.FileTooLarge, f, []meta.Extent{far}, nil},
		"overlap":          {errs.Invalid, f, []meta.Extent{inline, inline}, nil},
		"empty":            {errs.Invalid, f, []meta.Extent{{Kind: meta.ExtentInline}}, nil},
		"wrong length":     {errs.Invalid, f, []meta.Extent{{Len: 2, Kind: meta.ExtentInline, Inline: []byte("x")}}, nil},
		"kind":             {errs.Invalid, f, []meta.Extent{{Len: 2, Kind: 7}}, nil},
		"unknown block":    {errs.Invalid, f, []meta.Extent{blockExtent(other, 0, 0, 5)}, nil},
		"beyond the block": {errs.Invalid, f, []meta.Extent{blockExtent(id, 0, 50, 51)}, nil},
		"beyond new block": {errs.Invalid, f, []meta.Extent{blockExtent(other, 0, 5, 6)}, []meta.NewBlock{fresh}},
		"unused block":     {errs.Invalid, f, []meta.Extent{inline}, []meta.NewBlock{fresh}},
		"twice":            {errs.Invalid, f, []meta.Extent{blockExtent(other, 0, 0, 5)}, []meta.NewBlock{fresh, fresh}},
		"no copies":        {errs.Invalid, f, []meta.Extent{blockExtent(other, 0, 0, 5)}, []meta.NewBlock{{ID: other, Len: 10}}},
		"other facts":      {errs.Exist, f, []meta.Extent{blockExtent(id, 0, 0, 5)}, []meta.NewBlock{changed}},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.refuse(c.kind, &meta.Write{Ino: c.ino, Extents: c.exts, Blocks: c.blocks})
		})
	}
	w.t = t
	// The same facts again are no error; another layer's block is.
	w.do(&meta.Write{Ino: f, Extents: []meta.Extent{blockExtent(id, 500, 0, 100)}, Blocks: []meta.NewBlock{known}})
	alien := *w
	alien.space.Layer = 9
	if err := alien.space.Init(w.tx, w.st, 0o755, 0, 0); err != nil {
		t.Fatal(err)
	}
	g := alien.make(meta.RootIno, "g", file).Ino
	alien.refuse(errs.Invalid, &meta.Write{Ino: g, Extents: []meta.Extent{blockExtent(id, 0, 0, 5)}})
	alien.refuse(errs.Exist, &meta.Write{Ino: g, Extents: []meta.Extent{blockExtent(id, 0, 0, 5)}, Blocks: []meta.NewBlock{known}})
	w.check()
}

// TestBlockLife: published with a missing copy, listed, acknowledged late,
// overwritten bit by bit, freed, forgotten.
func TestBlockLife(t *testing.T) {
	w := newWorld(t)
	f := w.make(meta.RootIno, "f", file).Ino
	id := chunk.BlockID{7}
	w.writeBlock(f, id, 0)
	expect := func(copies, bytes uint64, live uint64, state BlockState) {
		t.Helper()
		c, b, err := RepairTotals(w.tx)
		rec, ok, err2 := Block(w.tx, id)
		if c != copies || b != bytes || err != nil || !ok || err2 != nil || rec.Live != live || rec.State != state {
			t.Errorf("totals %d, %d, block %+v, %v, %v", c, b, rec, err, err2)
		}
		w.check()
	}
	expect(1, 100, 100, BlockLive)
	list, err := RepairList(w.tx, 3, chunk.BlockID{}, 5)
	if want := (RepairItem{id, 4, 2, 100}); err != nil || len(list) != 1 || list[0] != want {
		t.Errorf("repair list %+v, %v", list, err)
	}
	if list, err := RepairList(w.tx, 3, id, 5); len(list) != 0 || err != nil {
		t.Errorf("behind the last: %+v, %v", list, err)
	}
	if err := LateAck(w.tx, []meta.BlockCopy{{ID: id, Server: 2}, {ID: chunk.BlockID{9}, Server: 3}, {ID: id, Server: 3}, {ID: id, Server: 3}}); err != nil {
		t.Fatal(err)
	}
	expect(0, 0, 100, BlockLive)
	w.do(&meta.Write{Ino: f, Extents: []meta.Extent{{Off: 10, Len: 20, Kind: meta.ExtentInline, Inline: make([]byte, 20)}}})
	expect(0, 0, 80, BlockLive)
	m := w.do(&meta.ReadMap{Ino: f, Len: 1 << 20}).(*meta.MapResult)
	if len(m.Extents) != 3 || m.Extents[2].BlockOff != 30 || m.Extents[2].Len != 70 || len(m.Blocks) != 1 || m.Attr.Bytes != 100 {
		t.Errorf("map %+v", m)
	}
	w.do(&meta.Write{Ino: f, Extents: []meta.Extent{blockExtent(id, 0, 0, 100)}}) // the block over its own remains
	expect(0, 0, 100, BlockLive)
	w.do(&meta.SetAttr{Ino: f, Set: meta.SetSize, Size: 40})
	expect(0, 0, 40, BlockLive)
	w.do(&meta.SetAttr{Ino: f, Set: meta.SetSize, Size: 0})
	expect(0, 0, 0, BlockFreed)
	w.refuse(errs.Invalid, &meta.Write{Ino: f, Extents: []meta.Extent{blockExtent(id, 0, 0, 5)}})
	w.refuse(errs.Exist, &meta.Write{Ino: f, Extents: []meta.Extent{blockExtent(id, 0, 0, 100)},
		Blocks: []meta.NewBlock{{ID: id, PG: 4, Epoch: 2, Len: 100, Acked: []chunk.ServerID{1}}}})
	if list, err := FreedBlocks(w.tx, FreedKey{}, birth, 5); len(list) != 0 || err != nil {
		t.Errorf("freed before it was written: %+v, %v", list, err)
	}
	freed, err := FreedBlocks(w.tx, FreedKey{}, w.st.Now+1, 5)
	if err != nil || len(freed) != 1 || freed[0].Key.Block != id || freed[0].Len != 100 || freed[0].PG != 4 {
		t.Fatalf("freed %+v, %v", freed, err)
	}
	for range 2 {
		if err := ForgetFreed(w.tx, []FreedKey{freed[0].Key}); err != nil {
			t.Fatal(err)
		}
		if ok, err := BlockExists(w.tx, id); ok || err != nil {
			t.Error("the block still exists", err)
		}
	}
	w.check()
}

// TestInlineMerge: a log written line by line becomes few records.
func TestInlineMerge(t *testing.T) {
	w := newWorld(t)
	f := w.make(meta.RootIno, "f", file).Ino
	for range 300 {
		w.do(&meta.Write{Ino: f, Append: true, Extents: []meta.Extent{{Len: 50, Kind: meta.ExtentInline, Inline: make([]byte, 50)}}})
	}
	n, err := w.space.inode(w.tx, f)
	if err != nil || n.Size != 15000 || n.Bytes != 15000 || n.Extents > 5 {
		t.Errorf("%d extents, %d bytes, %v", n.Extents, n.Bytes, err)
	}
	if r := w.do(&meta.Write{Ino: f, Append: true, Extents: []meta.Extent{{Off: 10, Len: 1, Kind: meta.ExtentInline, Inline: []byte("x")}}}).(*meta.AttrResult); r.Off != 15010 || r.Attr.Size != 15011 {
		t.Errorf("append behind a hole: %+v", r)
	}
	w.check()
}

// TestPunch overwrites more extents than one operation may cut, with records
// that end where old ones end, and works the debt off one byte at a time.
func TestPunch(t *testing.T) {
	w := newWorld(t)
	w.space.cut = 2
	f := w.make(meta.RootIno, "f", file).Ino
	old, fresh := chunk.BlockID{1}, chunk.BlockID{2}
	blocks := func(id chunk.BlockID) []meta.NewBlock {
		return []meta.NewBlock{{ID: id, Len: 4096, Acked: []chunk.ServerID{1}}}
	}
	w.do(&meta.Write{Ino: f, Extents: []meta.Extent{blockExtent(old, 0, 0, 1)}, Blocks: blocks(old)})
	for i := range uint32(40) { // one byte each
		w.do(&meta.Write{Ino: f, Extents: []meta.Extent{blockExtent(old, uint64(i), i, 1)}})
	}
	w.do(&meta.Write{Ino: f, Blocks: blocks(fresh),
		Extents: []meta.Extent{blockExtent(fresh, 5, 100, 10), blockExtent(fresh, 15, 200, 15)}})
	w.check()
	w.refuse(errs.Again, &meta.SetAttr{Ino: f, Set: meta.SetSize, Size: 20 - 14})
	m := w.do(&meta.ReadMap{Ino: f, Off: 5, Len: 25}).(*meta.MapResult)
	if len(m.Extents) != 2 || m.Extents[0].BlockOff != 100 || m.Extents[1].BlockOff != 200 {
		t.Errorf("map %+v", m)
	}
	if steps := w.reclaim(1); steps < 20 {
		t.Errorf("%d steps", steps)
	}
	w.check()
	if a := w.attr(f); a.Bytes != 40 || a.Size != 40 {
		t.Errorf("attributes %+v", a)
	}
	if rec, _, err := Block(w.tx, old); rec.Live != 15 || err != nil {
		t.Errorf("%d live bytes, %v", rec.Live, err)
	}
	w.do(&meta.SetAttr{Ino: f, Set: meta.SetSize, Size: 6})
	w.reclaim(1)
	w.check()
	if a := w.attr(f); a.Bytes != 6 {
		t.Errorf("attributes %+v", a)
	}
}
