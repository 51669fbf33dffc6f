package core

import (
	"bytes"
	"testing"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

func writeOf(h *hand, o *meta.OpFrame) *meta.Write {
	h.t.Helper()
	w, ok := o.Op.(*meta.Write)
	if !ok {
		h.t.Fatalf("sent %T, want a Write", o.Op)
	}
	return w
}

func TestWriteIsAnsweredAtOnceAndPublishedByAge(t *testing.T) {
	h := ready(t)
	get := h.request(&meta.GetAttr{Ino: 10})
	h.step(OpenFile{Ino: 10})
	h.ok(h.op().ID, attrOf(10, 50, 1))
	before := h.answered(get).(*meta.AttrResult).Attr
	a := h.write(10, 100, 20)
	if a.Size != 120 || a.Mtime <= before.Mtime || a.Bytes == 0 {
		t.Fatalf("attributes %+v", a)
	}
	if b := h.write(10, 0, 20); b.Size != 120 || b.Mtime <= a.Mtime {
		t.Fatalf("attributes %+v after %+v", b, a)
	}
	tm := take[Timer](h)
	if len(tm) == 0 || tm[len(tm)-1].At != h.now+5e8 {
		t.Fatalf("timers %+v", tm)
	}
	h.none("before its age")
	h.after(1e9)
	o := h.op()
	w := writeOf(h, o)
	if len(w.Extents) != 2 || w.Extents[0].Off != 0 || !bytes.Equal(w.Extents[1].Inline, pattern(100, 20)) {
		t.Fatalf("write %+v", w)
	}
	h.ok(o.ID, attrOf(10, 120, 2))
	if h.c.Stats().Dirty != 0 {
		t.Fatal("data stays")
	}
}

func TestFlushAndFsync(t *testing.T) {
	for _, op := range []any{Flush{Ino: 10}, Fsync{Ino: 10}, SyncAll{}} {
		h := ready(t)
		h.answered(h.request(op)) // nothing to do
		h.write(10, 0, 10)
		id := h.request(op)
		o := h.op()
		h.write(10, 0, 20) // later data is not waited for
		h.none("not durable yet")
		h.ok(o.ID, attrOf(10, 10, 2))
		h.answered(id)
		if h.c.Stats().Dirty == 0 {
			t.Fatal("later data is gone")
		}
	}
}

func TestSyncWrite(t *testing.T) {
	h := ready(t)
	id := h.request(WriteFile{Ino: 10, Off: 5, Data: []byte("abc"), Sync: true, KillPriv: true, Cred: meta.Cred{UID: 7}})
	o := h.op()
	if w := writeOf(h, o); !w.KillPriv || w.Cred.UID != 7 {
		t.Fatalf("%+v", w)
	}
	h.none("not durable yet")
	h.ok(o.ID, attrOf(10, 8, 2))
	if r := h.answered(id).(*meta.AttrResult); r.Off != 5 || r.Attr.Size != 8 {
		t.Fatalf("%+v", r)
	}
}

func TestFullChunkIsUploadedAtOnce(t *testing.T) {
	h := ready(t)
	h.write(10, 0, 1000) // older than the chunk: goes before it or with it
	for off := uint64(testBlock); off < 2*testBlock; off += 4096 {
		h.write(10, off, 4096)
	}
	p := h.put()
	if len(p.Data) != testBlock || !bytes.Equal(p.Data, pattern(testBlock, testBlock)) ||
		p.Owner != (chunk.Owner{Group: 1, Drive: 5, Session: 77, Epoch: 4}) {
		t.Fatalf("put %+v", p.Owner)
	}
	h.none("not durable yet")
	h.stored(p, 3)
	w := writeOf(h, h.op())
	if len(w.Extents) != 2 || len(w.Extents[0].Inline) != 1000 || w.Extents[1].Block != p.ID || w.Extents[1].Len != testBlock {
		t.Fatalf("write %+v", w.Extents)
	}
	b := w.Blocks[0]
	if b.ID != p.ID || b.PG != 3 || b.Epoch != 2 || b.Len != testBlock || len(b.Acked) != 2 || len(b.Missing) != 1 {
		t.Fatalf("facts %+v", b)
	}
}

func TestRangesShareABlock(t *testing.T) {
	h := ready(t)
	h.write(10, 0, 5000)
	h.write(10, 20<<10, 6000)
	h.write(10, 60<<10, 100)
	h.request(Fsync{Ino: 10})
	p := h.put()
	if len(p.Data) != 11000 {
		t.Fatalf("block of %d bytes", len(p.Data))
	}
	h.stored(p)
	w := writeOf(h, h.op())
	if len(w.Extents) != 3 || len(w.Blocks) != 1 {
		t.Fatalf("write %+v", w)
	}
	for _, e := range w.Extents {
		got := e.Inline
		if e.Kind == meta.ExtentBlock {
			got = p.Data[e.BlockOff : e.BlockOff+e.Len]
		}
		if !bytes.Equal(got, pattern(e.Off, int(e.Len))) {
			t.Fatalf("extent %d+%d has wrong bytes", e.Off, e.Len)
		}
	}
}

func TestManyShortRangesGoIntoBlocks(t *testing.T) {
	h := ready(t)
	for i := range uint64(200) {
		h.write(10, i*8192, 1000)
	}
	h.request(Fsync{Ino: 10})
	total := 0
	for _, p := range take[PutBlock](h) {
		total += len(p.Data)
		h.stored(p)
	}
	if total != 200*1000 {
		t.Fatalf("%d bytes in blocks", total)
	}
}

func TestBackPressure(t *testing.T) {
	h := ready(t, func(c *Config) { c.MaxDirty = 10000 })
	h.write(10, 0, 4000)
	h.none("below half")
	a := h.request(WriteFile{Ino: 11, Data: make([]byte, 3000)})
	h.answered(a)
	first := writeOf(h, h.op()) // above half: the oldest goes
	if first.Ino != 10 {
		t.Fatalf("published %d", first.Ino)
	}
	b := h.request(WriteFile{Ino: 12, Data: make([]byte, 3500)})
	c := h.request(WriteFile{Ino: 13, Data: make([]byte, 1)})
	h.none("no room, and none overtakes")
	h.ok(h.c.ops.last, attrOf(10, 4000, 2))
	as := take[Answer](h)
	if len(as) != 2 || as[0].ID != b || as[1].ID != c {
		t.Fatalf("answers %+v", as)
	}
	// A single write larger than the bound gets in when it is alone.
	h = ready(t, func(c *Config) { c.MaxDirty = 1000 })
	h.answered(h.request(WriteFile{Ino: 10, Data: make([]byte, 3000)}))
}

func TestOwnChangesFollowOwnData(t *testing.T) {
	for _, op := range []meta.Op{
		&meta.SetAttr{Ino: 10, Set: meta.SetSize}, &meta.SetAttr{Ino: 10, Set: meta.SetMtime},
		&meta.SetAttr{Ino: 10, Set: meta.SetMode}, &meta.Link{Ino: 10, Parent: 1, Name: "l"},
	} {
		h := ready(t)
		h.write(10, 0, 10)
		h.request(op)
		o := h.op()
		writeOf(h, o)
		h.ok(o.ID, attrOf(10, 10, 2))
		if got := h.op(); got.Op != op {
			t.Fatalf("sent %T", got.Op)
		}
	}
}

func TestRenamePublishesFirst(t *testing.T) {
	h := ready(t)
	id := h.request(&meta.Make{Parent: 1, Name: "tmp", Mode: meta.ModeRegular})
	h.ok(h.op().ID, &meta.EntryResult{Attr: regular(10, 0, 1)})
	h.answered(id)
	h.write(10, 0, 10)
	h.write(11, 0, 10)
	rename := func(from, to string) ReqID {
		return h.request(&meta.Rename{OldParent: 1, OldName: from, NewParent: 1, NewName: to})
	}
	id = rename("tmp", "final")
	o := h.op()
	if w := writeOf(h, o); w.Ino != 10 { // 11 is nobody's business
		t.Fatalf("published %d", w.Ino)
	}
	h.ok(o.ID, attrOf(10, 10, 2))
	o = h.op()
	if o.Op.Kind() != meta.KindRename {
		t.Fatalf("sent %T", o.Op)
	}
	h.ok(o.ID, attrOf(10, 10, 2))
	h.answered(id)
	// The name moved: it is known where it is now.
	h.write(10, 0, 10)
	rename("final", "again")
	if w := writeOf(h, h.op()); w.Ino != 10 {
		t.Fatalf("published %d", w.Ino)
	}
	// An unknown name: everything is published.
	rename("other", "x")
	if w := writeOf(h, h.op()); w.Ino != 11 {
		t.Fatalf("published %d", w.Ino)
	}
}

// TestRenameFailsWithItsData: a name must not appear for content that is lost.
func TestRenameFailsWithItsData(t *testing.T) {
	for _, op := range []meta.Op{
		&meta.Rename{OldParent: 1, OldName: "a", NewParent: 1, NewName: "b"},
		&meta.Link{Ino: 10, Parent: 1, Name: "b"},
	} {
		h := ready(t)
		h.step(OpenFile{Ino: 10})
		h.write(10, 0, 10)
		id := h.request(op)
		h.bad(h.op().ID, errs.Quota)
		h.refused(id, errs.Quota)
		if len(sentOps(h)) != 0 {
			t.Fatalf("%T was sent", op)
		}
	}
}

// TestGroups: a Write holds whole groups where it can, and a group is not
// held up by a block that it lost.
func TestGroups(t *testing.T) {
	parts := func(spec ...string) *file {
		f := &file{}
		off := uint64(0)
		for i, s := range spec {
			p := &part{f: f, no: uint64(i + 1), ready: s[0] == 'r', last: s[1] == '.'}
			for range map[byte]int{'1': 1, 'm': 100, 'M': partExtents}[s[2]] {
				p.spans = append(p.spans, span{off: off, data: []byte{1}})
				off += 2
			}
			p.bytes = len(p.spans)
			f.parts = append(f.parts, p)
		}
		return f
	}
	for _, c := range []struct {
		what string
		f    *file
		want int
	}{
		{"one group", parts("r-1", "r.1"), 2},
		{"two groups", parts("r.1", "r-1", "r.1"), 3},
		{"second not ready", parts("r.1", "r-1", "w.1"), 1},
		{"first not ready", parts("r-1", "w.1", "r.1"), 0},
		{"second does not fit", parts("r.m", "r-m", "r.m"), 1},
		{"too large for one Write", parts("r-M", "r-M", "r.M"), 2},
		{"too large, its end not ready", parts("r-M", "r-M", "w.M"), 2},
	} {
		if got := c.f.writable(); got != c.want {
			t.Errorf("%s: %d parts, want %d", c.what, got, c.want)
		}
	}

	h := ready(t)
	h.step(OpenFile{Ino: 10})
	h.write(10, 0, 100)
	h.write(10, 8192, 5000) // the same group: inline part, block part
	id := h.request(Fsync{Ino: 10})
	p := h.put()
	h.write(10, 40000, 5000)
	h.request(Fsync{Ino: 10}) // the next group has a block of its own
	h.put()
	h.none("the group is not whole")
	h.step(BlockFailed{Token: p.Token, Err: errs.E("put", errs.NoSpace, "", nil)})
	o := h.op()
	if w := writeOf(h, o); len(w.Extents) != 1 || w.Extents[0].Off != 0 {
		t.Fatalf("write %+v", w)
	}
	h.ok(o.ID, attrOf(10, 100, 2))
	h.refused(id, errs.NoSpace)
}

func TestAppend(t *testing.T) {
	h := ready(t)
	h.write(10, 0, 10)
	a := h.request(WriteFile{Ino: 10, Data: []byte("x"), Append: true})
	b := h.request(WriteFile{Ino: 10, Data: pattern(0, 40000), Append: true})
	o := h.op()
	if writeOf(h, o).Append {
		t.Fatal("append before own data")
	}
	h.ok(o.ID, attrOf(10, 10, 2))
	o = h.op()
	if w := writeOf(h, o); !w.Append || string(w.Extents[0].Inline) != "x" {
		t.Fatalf("sent %+v", w)
	}
	r := attrOf(10, 31, 3) // somebody else appended 20 bytes
	r.Off = 30
	h.ok(o.ID, r)
	if got := h.answered(a).(*meta.AttrResult); got.Off != 30 {
		t.Fatalf("%+v", got)
	}
	var data []byte
	for _, p := range take[PutBlock](h) {
		data = append(data, p.Data...)
		h.stored(p)
	}
	o = h.op()
	w := writeOf(h, o)
	if len(w.Blocks) != 3 || w.Extents[2].Off != 32<<10 || !bytes.Equal(data, pattern(0, 40000)) {
		t.Fatalf("sent %+v", w)
	}
	r = attrOf(10, 40031, 4)
	r.Off = 31
	h.ok(o.ID, r)
	if got := h.answered(b).(*meta.AttrResult); got.Off != 31 || got.Attr.Size != 40031 {
		t.Fatalf("%+v", got)
	}
}

// TestAppendStartsOverInTheNextSession: its blocks belonged to the old one.
func TestAppendStartsOverInTheNextSession(t *testing.T) {
	h := ready(t)
	id := h.request(WriteFile{Ino: 10, Data: pattern(0, 8000), Append: true})
	old := h.put()
	h.evict()
	h.up()
	h.welcome(78)
	p := h.put()
	if p.ID == old.ID || p.Owner.Session != 78 {
		t.Fatalf("put %+v", p.Owner)
	}
	h.stored(old)
	h.none("the old block is nobody's")
	h.stored(p)
	h.op()
	h.evict() // now it may have happened
	h.refused(id, errs.IO)
}

func TestDataErrorsAreToldOnce(t *testing.T) {
	h := ready(t)
	h.step(OpenFile{Ino: 10})
	h.write(10, 0, 10)
	h.after(1e9)
	h.bad(h.op().ID, errs.NoSpace)
	one(h, take[Notice](h), "notices")
	h.refused(h.request(Flush{Ino: 10}), errs.NoSpace)
	h.answered(h.request(Fsync{Ino: 10}))
	if h.c.Stats().Dirty != 0 {
		t.Fatal("data stays")
	}
	// A block that cannot be stored.
	h.write(10, 0, 5000)
	id := h.request(Fsync{Ino: 10})
	h.step(BlockFailed{Token: h.put().Token, Err: errs.E("put", errs.NoSpace, "", nil)})
	h.refused(id, errs.NoSpace)
	h.answered(h.request(Fsync{Ino: 10}))
}

func TestGoneFiles(t *testing.T) {
	h := ready(t)
	h.write(10, 0, 10) // no handle
	h.after(1e9)
	h.bad(h.op().ID, errs.Stale)
	if n := take[Notice](h); len(n) != 0 {
		t.Fatalf("notices %+v", n)
	}
	h.step(OpenFile{Ino: 10})
	h.write(10, 0, 10)
	id := h.request(Fsync{Ino: 10})
	h.bad(h.op().ID, errs.Stale)
	h.refused(id, errs.Stale)
}

func TestLateCopies(t *testing.T) {
	h := ready(t)
	publish := func() (PutBlock, *meta.OpFrame) {
		h.write(10, 0, 5000)
		h.request(Fsync{Ino: 10})
		p := h.put()
		h.stored(p, 3)
		return p, h.op()
	}
	lates := func() int {
		h.after(lateDelay)
		n := 0
		for _, o := range sentOps(h) {
			if l, ok := o.Op.(*meta.LateAck); ok {
				n += len(l.Copies)
				h.ok(o.ID, &meta.EmptyResult{})
			}
		}
		return n
	}
	p, o := publish()
	h.step(BlockLate{Token: p.Token, Server: 3})
	if lates() != 0 {
		t.Fatal("told before the block is published")
	}
	h.ok(o.ID, attrOf(10, 5000, 2))
	take[Answer](h)
	if lates() != 1 {
		t.Fatal("not told after the block is published")
	}
	p, o = publish()
	h.ok(o.ID, attrOf(10, 5000, 3))
	take[Answer](h)
	h.step(BlockLate{Token: p.Token, Server: 3})
	h.step(BlockLate{Token: p.Token, Server: 3})
	if lates() != 1 {
		t.Fatal("a copy that came after publication is told once")
	}
	// Before the Write is sent the copy enters it.
	h.down()
	h.write(10, 0, 5000)
	h.request(Fsync{Ino: 10})
	p = h.put()
	h.stored(p, 3)
	h.step(BlockLate{Token: p.Token, Server: 3})
	h.up()
	h.welcome(77)
	o = h.op()
	if b := writeOf(h, o).Blocks[0]; len(b.Acked) != 3 || len(b.Missing) != 0 {
		t.Fatalf("facts %+v", b)
	}
	h.ok(o.ID, attrOf(10, 5000, 4))
	if len(h.c.puts.byToken) != 0 {
		t.Fatal("blocks stay on the books")
	}
}

func TestWriteLimits(t *testing.T) {
	h := ready(t)
	h.refused(h.request(WriteFile{Ino: 10, Off: meta.MaxSize, Data: []byte("x")}), errs.FileTooLarge)
	h.answered(h.request(WriteFile{Ino: 10}))
	h.refused(h.request(&meta.Write{Ino: 10}), errs.Invalid)
	h = ready(t, func(c *Config) { c.Open.Capability.ReadOnly = true })
	h.refused(h.request(WriteFile{Ino: 10, Data: []byte("x")}), errs.ReadOnly)
}
