package core

import (
	"bytes"
	"testing"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

func TestReadPlan(t *testing.T) {
	h := ready(t)
	id := h.request(ReadFile{Ino: 10, Off: 100, Len: 1000})
	o := h.op()
	if m := o.Op.(*meta.ReadMap); m.Ino != 10 || m.Off != 100 || m.Len != 1000 {
		t.Fatalf("%+v", m)
	}
	block := chunk.BlockID{1}
	h.write(10, 250, 100) // after the ReadMap left: counts all the same
	h.ok(o.ID, &meta.MapResult{
		Attr: regular(10, 500, 4), Covered: 1100,
		Extents: []meta.Extent{
			{Off: 0, Len: 150, Kind: meta.ExtentInline, Inline: pattern(0, 150)},
			{Off: 200, Len: 200, Kind: meta.ExtentBlock, Block: block, BlockOff: 1000},
		},
		Blocks: []meta.BlockRef{{ID: block, PG: 3, Len: 1200}},
	})
	p := h.answered(id).(*FilePlan)
	if p.Attr.Size != 500 {
		t.Fatalf("size %d", p.Attr.Size)
	}
	want := []Piece{
		{Len: 50, Data: pattern(100, 50)},
		{Len: 50}, // hole
		{Len: 50, Block: p.Pieces[2].Block, BlockOff: 1000},
		{Len: 100, Data: pattern(250, 100)},
		{Len: 50, Block: p.Pieces[2].Block, BlockOff: 1150},
		{Len: 100}, // to the end of file
	}
	if len(p.Pieces) != len(want) || p.Pieces[2].Block.ID != block {
		t.Fatalf("pieces %+v", p.Pieces)
	}
	for i, w := range want {
		g := p.Pieces[i]
		if g.Len != w.Len || g.BlockOff != w.BlockOff || !bytes.Equal(g.Data, w.Data) || (g.Block == nil) != (w.Block == nil) {
			t.Errorf("piece %d: %+v, want %+v", i, g, w)
		}
	}
}

func TestReadEnds(t *testing.T) {
	h := ready(t)
	read := func(off uint64, n uint32, r *meta.MapResult) int {
		t.Helper()
		id := h.request(ReadFile{Ino: 10, Off: off, Len: n})
		h.ok(h.op().ID, r)
		total := 0
		for _, p := range h.answered(id).(*FilePlan).Pieces {
			total += int(p.Len)
		}
		return total
	}
	empty := func(size, covered uint64) *meta.MapResult {
		return &meta.MapResult{Attr: regular(10, size, 1), Covered: covered}
	}
	for _, c := range []struct {
		off  uint64
		n    uint32
		size uint64
		want int
	}{{0, 10, 5, 5}, {5, 10, 5, 0}, {9, 10, 5, 0}, {0, 0, 5, 0}, {0, 10, 0, 0}, {1 << 63, 10, 5, 0}, {2, 2, 5, 2}} {
		if got := read(c.off, c.n, empty(c.size, meta.MaxSize)); got != c.want {
			t.Errorf("read %d+%d of %d bytes: %d, want %d", c.off, c.n, c.size, got, c.want)
		}
	}
	h.write(10, 20, 5) // own data beyond the server's end
	if got := read(0, 100, empty(5, 100)); got != 25 {
		t.Errorf("%d bytes, want 25", got)
	}
}

func TestReadInPieces(t *testing.T) {
	h := ready(t)
	id := h.request(ReadFile{Ino: 10, Len: 300})
	part := func(off, n, covered uint64) *meta.MapResult {
		return &meta.MapResult{Attr: regular(10, 300, 1), Covered: covered, Extents: []meta.Extent{
			{Off: off, Len: uint32(n), Kind: meta.ExtentInline, Inline: pattern(off, int(n))}}}
	}
	h.ok(h.op().ID, part(0, 100, 100))
	o := h.op() // half a map is no answer
	if m := o.Op.(*meta.ReadMap); m.Off != 100 || m.Len != 200 {
		t.Fatalf("%+v", m)
	}
	h.ok(o.ID, part(100, 200, 300))
	if got := assemble(h.answered(id).(*FilePlan), nil); !bytes.Equal(got, pattern(0, 300)) {
		t.Fatal("wrong bytes")
	}
	id = h.request(ReadFile{Ino: 10, Len: 300})
	h.ok(h.op().ID, part(0, 100, 0))
	h.refused(id, errs.Corrupt)
}

func TestCorruptMaps(t *testing.T) {
	inline := func(off uint64, n int) meta.Extent {
		return meta.Extent{Off: off, Len: 100, Kind: meta.ExtentInline, Inline: make([]byte, n)}
	}
	block := meta.Extent{Len: 100, Kind: meta.ExtentBlock, Block: chunk.BlockID{1}, BlockOff: 10}
	for name, m := range map[string]*meta.MapResult{
		"overlap":         {Extents: []meta.Extent{inline(0, 100), inline(50, 100)}},
		"order":           {Extents: []meta.Extent{inline(100, 100), inline(0, 100)}},
		"length":          {Extents: []meta.Extent{inline(0, 99)}},
		"block missing":   {Extents: []meta.Extent{block}},
		"block too short": {Extents: []meta.Extent{block}, Blocks: []meta.BlockRef{{ID: chunk.BlockID{1}, Len: 109}}},
	} {
		t.Run(name, func(t *testing.T) {
			h := ready(t)
			id := h.request(ReadFile{Ino: 10, Len: 300})
			m.Attr, m.Covered = regular(10, 300, 1), 300
			h.ok(h.op().ID, m)
			h.refused(id, errs.Corrupt)
			if s := h.c.Stats(); s.Files != 0 {
				t.Fatal("record stays")
			}
		})
	}
}

// TestMapOlderThanPublication: the ReadMap is executed before the Write and
// its reply arrives after the Write's. The published data must not vanish.
func TestMapOlderThanPublication(t *testing.T) {
	h := ready(t)
	h.write(10, 0, 100)
	sync := h.request(Fsync{Ino: 10})
	w := h.op()
	read := h.request(ReadFile{Ino: 10, Len: 500})
	m := h.op()
	h.ok(w.ID, attrOf(10, 100, 2))
	h.answered(sync)
	h.ok(m.ID, &meta.MapResult{Attr: regular(10, 0, 1), Covered: 500})
	if got := assemble(h.answered(read).(*FilePlan), nil); !bytes.Equal(got, pattern(0, 100)) {
		t.Fatalf("read %d bytes", len(got))
	}
	if s := h.c.Stats(); s.Dirty+s.Files != 0 {
		t.Fatalf("%+v", s)
	}
}

// TestLateAttributes: attributes from before a publication must not take back
// a size that was seen.
func TestLateAttributes(t *testing.T) {
	h := ready(t)
	if a := h.write(10, 0, 100); a.Size != 100 {
		t.Fatalf("size %d", a.Size)
	}
	stat := h.request(&meta.GetAttr{Ino: 10})
	o := h.op()
	sync := h.request(Flush{Ino: 10})
	w := h.op()
	h.ok(w.ID, attrOf(10, 100, 2))
	h.answered(sync)
	h.ok(o.ID, attrOf(10, 0, 1))
	if a := h.answered(stat).(*meta.AttrResult).Attr; a.Size != 100 {
		t.Fatalf("size went back to %d", a.Size)
	}
	if s := h.c.Stats(); s.Files != 0 {
		t.Fatal("record stays")
	}
}

// TestMapOlderThanTruncate: the read is asked again rather than mixed.
func TestMapOlderThanTruncate(t *testing.T) {
	h := ready(t)
	read := h.request(ReadFile{Ino: 10, Len: 500})
	m := h.op()
	cut := h.request(&meta.SetAttr{Ino: 10, Set: meta.SetSize})
	h.ok(h.op().ID, attrOf(10, 0, 5))
	h.answered(cut)
	h.ok(m.ID, &meta.MapResult{Attr: regular(10, 4, 4), Covered: 500,
		Extents: []meta.Extent{{Len: 4, Kind: meta.ExtentInline, Inline: []byte("AAAA")}}})
	h.ok(h.op().ID, &meta.MapResult{Attr: regular(10, 0, 5), Covered: 500})
	if got := h.answered(read).(*FilePlan); len(got.Pieces) != 0 {
		t.Fatalf("read %+v", got.Pieces)
	}
}

func TestAttributesAreMerged(t *testing.T) {
	h := ready(t)
	id := h.request(WriteFile{Ino: 10, Off: 50, Data: make([]byte, 50), KillPriv: true})
	h.answered(id)
	server := regular(10, 10, 1)
	server.Mode |= meta.ModeSetuid | meta.ModeSetgid | 0o010
	for _, c := range []struct {
		op  meta.Op
		res meta.Result
	}{
		{&meta.GetAttr{Ino: 10}, &meta.AttrResult{Attr: server}},
		{&meta.Lookup{Parent: 1, Name: "a"}, &meta.EntryResult{Attr: server}},
		{&meta.ReadDir{Dir: 1, Plus: true}, &meta.DirResult{Plus: true, Entries: []meta.DirEntry{{Attr: server}}}},
	} {
		id := h.request(c.op)
		h.ok(h.op().ID, c.res)
		var a meta.Attr
		switch r := h.answered(id).(type) {
		case *meta.AttrResult:
			a = r.Attr
		case *meta.EntryResult:
			a = r.Attr
		case *meta.DirResult:
			a = r.Entries[0].Attr
		}
		if a.Size != 100 || a.Mtime != 1001 || a.Mode&(meta.ModeSetuid|meta.ModeSetgid) != 0 {
			t.Errorf("%T: %+v", c.op, a)
		}
	}
	if server.Size != 10 {
		t.Error("the server's result was changed in place")
	}
}
