package core

import (
	"bytes"
	"testing"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// leasedData is ready for a client that asks for leases.
func leasedData(t *testing.T, change ...func(*Config)) *hand {
	h := ready(t, append([]func(*Config){func(c *Config) { c.NoLeases = false }}, change...)...)
	h.frame(&meta.Credited{FirstGroup: 50, Groups: 100, Unlimited: true})
	h.out = nil
	return h
}

// hold gives the client a lease with these attributes.
func (h *hand) hold(kind meta.LeaseKind, a meta.Attr) {
	h.t.Helper()
	id := h.request(&meta.GetAttr{Ino: a.Ino})
	h.frame(&meta.Reply{ID: h.op().ID, Outcome: done(&meta.AttrResult{Attr: a}), Grants: []meta.Grant{{Ino: a.Ino, Kind: kind}}})
	h.answered(id)
	h.out = nil
}

// records returns the records sent since the last look at frames.
func (h *hand) records() (recs []meta.LogRecord) {
	for _, f := range frames[*meta.Log](h) {
		recs = append(recs, f.Records...)
	}
	return recs
}

func (h *hand) record() meta.LogRecord {
	h.t.Helper()
	return one(h, h.records(), "records")
}

func (h *hand) ackLog() { h.t.Helper(); h.frame(&meta.LogAck{Seq: h.c.log.sent}) }

func (h *hand) attr(ino meta.Ino) meta.Attr { return h.c.nodeOf(ino).attr }

// read reads and expects the answer at once.
func (h *hand) read(ino meta.Ino, off uint64, n uint32) *FilePlan {
	h.t.Helper()
	return h.answered(h.request(ReadFile{Ino: ino, Off: off, Len: n})).(*FilePlan)
}

func (h *hand) wants(p *FilePlan, want []byte, blocks map[chunk.BlockID]fakeBlock) {
	h.t.Helper()
	if got := assemble(p, blocks); !bytes.Equal(got, want) {
		h.t.Fatalf("read %d bytes, want %d, or wrong ones", len(got), len(want))
	}
}

func TestLeasedWriteGoesThroughTheLog(t *testing.T) {
	h := leasedData(t)
	h.hold(meta.LeaseWrite, regular(10, 50, 7))
	a := h.write(10, 50, 20)
	b := h.write(10, 0, 10)
	if a.Size != 70 || b.Size != 70 || b.Mtime <= a.Mtime || b.Ctime != b.Mtime || a.Mtime <= 1000 {
		t.Fatalf("attributes %+v, %+v", a, b)
	}
	h.answered(h.request(Flush{Ino: 10}))
	if recs := h.records(); len(recs) != 0 {
		t.Fatalf("sent %+v before the data's age", recs)
	}
	h.after(5e8)
	h.after(logDelay)
	r := h.record()
	w := r.Op.(*meta.Write)
	if r.Now != b.Mtime || len(w.Extents) != 2 || w.Extents[1].Off != 50 {
		t.Fatalf("record %+v %+v, want time %d", r, w, b.Mtime)
	}
	if got := h.attr(10); got.DataVersion != 8 || got.Mtime != b.Mtime {
		t.Fatalf("attributes %+v", got)
	}
	h.ackLog()
	if s := h.c.Stats(); s.Dirty != 0 || s.Files != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestLeasedFsync(t *testing.T) {
	h := leasedData(t)
	h.hold(meta.LeaseWrite, regular(10, 0, 1))
	h.write(10, 0, 10)
	for _, op := range []any{Fsync{Ino: 10}, SyncAll{}, WriteFile{Ino: 10, Data: []byte("x"), Sync: true}} {
		h.write(10, 0, 10)
		id := h.request(op)
		h.record()
		h.none("not durable")
		h.ackLog()
		h.answered(id)
	}
	h.answered(h.request(Fsync{Ino: 10}))
}

func TestRefusedLeaseMeansSynchronous(t *testing.T) {
	for _, app := range []bool{false, true} {
		h := leasedData(t)
		id := h.request(WriteFile{Ino: 10, Off: 100, Data: []byte("abc"), Append: app})
		o := h.op()
		if a, ok := o.Op.(*meta.Acquire); !ok || len(a.Wants) != 1 || a.Wants[0] != (meta.Grant{Ino: 10, Kind: meta.LeaseWrite}) {
			t.Fatalf("sent %+v", o.Op)
		}
		h.ok(o.ID, &meta.AcquireResult{Attrs: []meta.Attr{regular(10, 0, 1)}})
		o = h.op()
		w := writeOf(h, o)
		if w.Append != app || !app && w.Extents[0].Off != 100 {
			t.Fatalf("sent %+v", w)
		}
		h.none("not executed")
		r := attrOf(10, 103, 2)
		r.Off = 100
		h.ok(o.ID, r)
		if got := h.answered(id).(*meta.AttrResult); got.Off != 100 || got.Attr.Size != 103 {
			t.Fatalf("%+v", got)
		}
		if h.c.KeepPages(10) {
			t.Fatal("the kernel would keep pages that no lease stands for")
		}
	}
}

func TestAcquiredLeaseMeansLocal(t *testing.T) {
	h := leasedData(t)
	id := h.request(WriteFile{Ino: 10, Data: []byte("abc"), Append: true})
	h.frame(&meta.Reply{ID: h.op().ID, Outcome: done(&meta.AcquireResult{Attrs: []meta.Attr{regular(10, 5, 1)}}),
		Grants: []meta.Grant{{Ino: 10, Kind: meta.LeaseWrite}}})
	if got := h.answered(id).(*meta.AttrResult); got.Off != 5 || got.Attr.Size != 8 {
		t.Fatalf("%+v", got)
	}
	if id = h.request(WriteFile{Ino: 10, Off: 77, Data: []byte("d"), Append: true}); h.answered(id).(*meta.AttrResult).Off != 8 {
		t.Fatal("second append")
	}
	h.request(Fsync{Ino: 10})
	if w := h.record().Op.(*meta.Write); w.Append || len(w.Extents) != 1 || w.Extents[0].Off != 5 || string(w.Extents[0].Inline) != "abcd" {
		t.Fatalf("%+v", w)
	}
}

// TestPlacedDataKeepsItsPlace: a rename finds the data before it, and both
// wait for the block.
func TestPlacedDataKeepsItsPlace(t *testing.T) {
	h := leasedData(t)
	h.hold(meta.LeaseWrite, regular(10, 0, 1))
	h.write(10, 0, 5000)
	h.write(10, 100<<10, 10)
	if seq := h.c.placeData(10); seq != 1 {
		t.Fatalf("place %d", seq)
	}
	h.write(10, 200<<10, 10)
	if seq := h.c.placeData(10); seq != 2 {
		t.Fatalf("place %d", seq)
	}
	h.after(logDelay)
	p := h.put()
	if recs := h.records(); len(recs) != 0 {
		t.Fatalf("sent %+v before the block is durable", recs)
	}
	h.stored(p)
	h.after(logDelay)
	recs := h.records()
	if len(recs) != 2 || recs[0].Now >= recs[1].Now {
		t.Fatalf("records %+v", recs)
	}
	w := recs[0].Op.(*meta.Write)
	if len(w.Blocks) != 1 || w.Blocks[0].ID != p.ID || len(w.Extents) != 2 {
		t.Fatalf("%+v", w)
	}
	h.ackLog()
	if h.c.Stats().Dirty != 0 {
		t.Fatal("data stays")
	}
}

func TestBackgroundStoresBlocksFirst(t *testing.T) {
	h := leasedData(t)
	h.hold(meta.LeaseWrite, regular(10, 0, 1))
	h.write(10, 0, testBlock) // a full chunk
	p := h.put()
	h.write(10, testBlock, 10)
	if h.c.log.last != 0 {
		t.Fatal("record before the block is durable")
	}
	h.stored(p)
	h.after(logDelay)
	if r := h.record(); r.Now != int64(h.attr(10).Mtime)-1 && r.Now >= h.attr(10).Mtime {
		t.Fatalf("time %d, newest %d", r.Now, h.attr(10).Mtime)
	}
	h.ackLog()
	h.request(Fsync{Ino: 10})
	if r := h.record(); r.Now != h.attr(10).Mtime {
		t.Fatalf("time %d, want %d", r.Now, h.attr(10).Mtime)
	}
}

func (h *hand) born(name string) meta.Ino {
	h.t.Helper()
	dir := meta.Attr{Ino: 1, Mode: meta.ModeDir | 0o755, Nlink: 2}
	if h.c.nodeOf(1) == nil {
		h.hold(meta.LeaseWrite, dir)
		id := h.request(&meta.ReadDir{Dir: 1, Limit: 10})
		h.frame(&meta.Reply{ID: h.op().ID, Outcome: done(&meta.DirResult{EOF: true}), Grants: []meta.Grant{{Ino: 1, Kind: meta.LeaseWrite}}})
		h.answered(id)
	}
	id := h.request(&meta.Make{Parent: 1, Name: name, Mode: meta.ModeRegular | 0o644, Excl: true})
	return h.answered(id).(*meta.EntryResult).Attr.Ino
}

// TestBornFileNeedsNoServer: nothing is asked about a file that only the log
// knows, and nothing after either.
func TestBornFileNeedsNoServer(t *testing.T) {
	h := leasedData(t)
	ino := h.born("f")
	if p := h.read(ino, 0, 100); len(p.Pieces) != 0 || !p.Keep {
		t.Fatalf("%+v", p)
	}
	want := pattern(0, 9000)
	h.answered(h.request(WriteFile{Ino: ino, Data: bytes.Clone(want)}))
	h.wants(h.read(ino, 0, 10000), want, nil)
	id := h.request(Fsync{Ino: ino})
	p := h.put()
	blocks := map[chunk.BlockID]fakeBlock{p.ID: {data: p.Data}}
	h.wants(h.read(ino, 0, 10000), want, nil)
	h.stored(p)
	recs := h.records()
	if len(recs) != 2 || recs[0].Op.Kind() != meta.KindMake {
		t.Fatalf("records %+v", recs)
	}
	h.wants(h.read(ino, 0, 10000), want, nil)
	h.ackLog()
	h.answered(id)
	if h.c.Stats().Files != 0 {
		t.Fatal("file record stays")
	}
	plan := h.read(ino, 100, 10000)
	h.wants(plan, want[100:], blocks)
	if len(plan.Pieces) != 1 || plan.Pieces[0].Block == nil || plan.Pieces[0].Block.PG != 3 || !plan.Keep {
		t.Fatalf("%+v", plan)
	}
	// Overwritten in the middle.
	h.write(ino, 1000, 10)
	copy(want[1000:], pattern(1000, 10))
	h.request(Fsync{Ino: ino})
	h.ackLog()
	h.out = nil
	h.wants(h.read(ino, 0, 10000), want, blocks)
}

func mapOf(a meta.Attr, data []byte) *meta.MapResult {
	m := &meta.MapResult{Attr: a, Covered: meta.MaxSize}
	if len(data) > 0 {
		m.Extents = []meta.Extent{{Len: uint32(len(data)), Kind: meta.ExtentInline, Inline: data}}
	}
	return m
}

func (h *hand) readVia(ino meta.Ino, m *meta.MapResult, grants ...meta.Grant) *FilePlan {
	h.t.Helper()
	id := h.request(ReadFile{Ino: ino, Len: 10000, Direct: true})
	o := h.op()
	if o.Op.Kind() != meta.KindReadMap {
		h.t.Fatalf("sent %T", o.Op)
	}
	h.frame(&meta.Reply{ID: o.ID, Outcome: done(m), Grants: grants})
	return h.answered(id).(*FilePlan)
}

func TestMapIsKeptUnderALease(t *testing.T) {
	h := leasedData(t)
	data := pattern(0, 100)
	a := regular(10, 100, 3)
	read := meta.Grant{Ino: 10, Kind: meta.LeaseRead}
	if p := h.readVia(10, mapOf(a, data)); p.Keep {
		t.Fatal("kept without a lease")
	}
	if p := h.readVia(10, mapOf(a, data), read); !p.Keep {
		t.Fatal("not kept under a lease")
	}
	p := h.read(10, 50, 100)
	if h.wants(p, data[50:], nil); !p.Keep || p.Attr.Size != 100 {
		t.Fatalf("%+v", p)
	}
	// The adapter found a block gone.
	id := h.request(ReadFile{Ino: 10, Len: 10000, Fresh: true})
	h.frame(&meta.Reply{ID: h.op().ID, Outcome: done(mapOf(a, data)), Grants: []meta.Grant{read}})
	h.answered(id)
	// A recall: until the Ack the map is the truth, after it is gone.
	h.frame(&meta.Recall{ID: 5, Items: []meta.RecallItem{{Ino: 10, Mode: meta.RecallRelease}}})
	for _, v := range take[Invalidate](h) {
		h.step(Invalidated{Token: v.Token})
	}
	one(h, frames[*meta.Ack](h), "acks")
	h.out = nil
	if p := h.readVia(10, mapOf(a, data)); p.Keep {
		t.Fatal("kept after a recall")
	}
	// A file of too many extents is not asked for as a whole again.
	big := &meta.MapResult{Attr: regular(10, 100, 3), Covered: 80}
	big.Extents = []meta.Extent{{Len: 80, Kind: meta.ExtentInline, Inline: data[:80]}}
	id = h.request(ReadFile{Ino: 10, Len: 100})
	o := h.op()
	if o.Op.(*meta.ReadMap).Len != meta.MaxSize {
		t.Fatalf("%+v", o.Op)
	}
	h.frame(&meta.Reply{ID: o.ID, Outcome: done(big), Grants: []meta.Grant{read}})
	o = h.op()
	if m := o.Op.(*meta.ReadMap); m.Off != 80 || m.Len != 20 {
		t.Fatalf("%+v", o.Op)
	}
	rest := &meta.MapResult{Attr: a, Covered: 100, Extents: []meta.Extent{{Off: 80, Len: 20, Kind: meta.ExtentInline, Inline: data[80:]}}}
	h.frame(&meta.Reply{ID: o.ID, Outcome: done(rest), Grants: []meta.Grant{read}})
	h.wants(h.answered(id).(*FilePlan), data, nil)
	h.request(ReadFile{Ino: 10, Off: 0, Len: 10})
	if m := h.op().Op.(*meta.ReadMap); m.Len != 10 {
		t.Fatalf("%+v", m)
	}
}

// TestReadBehindOwnRecords: maps from before own records of the log have them
// laid over, truncations too.
func TestReadBehindOwnRecords(t *testing.T) {
	h := leasedData(t)
	h.hold(meta.LeaseWrite, regular(10, 100, 3))
	old := func() *meta.MapResult { return mapOf(regular(10, 100, 3), pattern(0, 100)) }
	h.write(10, 50, 100)
	id := h.request(&meta.SetAttr{Ino: 10, Set: meta.SetSize, Size: 60})
	h.answered(id)
	h.answered(h.request(WriteFile{Ino: 10, Off: 80, Data: []byte("abc")}))
	if a := h.attr(10); a.Size != 83 || a.DataVersion != 5 {
		t.Fatalf("%+v", a)
	}
	want := append(pattern(0, 60), make([]byte, 20)...)
	want = append(want, "abc"...)
	h.wants(h.readVia(10, old()), want, nil)
	h.wants(h.read(10, 0, 100), want, nil) // kept
	// A map asked for before and answered after all is durable is asked again.
	h.c.dropMap(10)
	id = h.request(ReadFile{Ino: 10, Len: 200})
	o := h.op()
	h.request(Fsync{Ino: 10})
	h.ackLog()
	h.out = nil
	h.ok(o.ID, old())
	o = h.op()
	h.ok(o.ID, &meta.MapResult{Attr: regular(10, 83, 6), Covered: meta.MaxSize, Extents: []meta.Extent{
		{Len: 60, Kind: meta.ExtentInline, Inline: pattern(0, 60)}, {Off: 80, Len: 3, Kind: meta.ExtentInline, Inline: []byte("abc")},
	}})
	h.wants(h.answered(id).(*FilePlan), want, nil)
}

// TestTruncateDropsWhatItCuts: data that a truncation cuts off anyway is not
// brought to the servers.
func TestTruncateDropsWhatItCuts(t *testing.T) {
	h := leasedData(t)
	h.hold(meta.LeaseWrite, regular(10, 0, 1))
	h.write(10, 0, 5000)
	h.c.beforeTruncate(10, 0)
	if h.c.log.last != 0 || h.c.Stats().Dirty != 0 {
		t.Fatal("data of a file cut to nothing is placed")
	}
	h.write(10, 0, 100)
	h.write(10, 8000, 100)
	h.c.beforeTruncate(10, 50)
	h.after(logDelay)
	if w := h.record().Op.(*meta.Write); len(w.Extents) != 1 || w.Extents[0].Len != 50 {
		t.Fatalf("%+v", w)
	}
}

// TestSmallFilesShareABlock: and the records that name it follow one another.
func TestSmallFilesShareABlock(t *testing.T) {
	h := leasedData(t, func(c *Config) { c.BlockSize = 64 << 10 })
	var want [][]byte
	for i := range meta.Ino(5) {
		h.hold(meta.LeaseWrite, regular(10+i, 0, 1))
		data := bytes.Repeat([]byte{byte('a' + i)}, 5000+int(i))
		want = append(want, data)
		h.answered(h.request(WriteFile{Ino: 10 + i, Data: bytes.Clone(data)}))
		h.write(10+i, 100<<10, 10)
		h.after(1e6)
	}
	h.after(5e8)
	p := h.put()
	if len(p.Data) != 5*5000+10 {
		t.Fatalf("block of %d bytes", len(p.Data))
	}
	for i := range meta.Ino(5) {
		h.readVia(10+i, mapOf(regular(10+i, 0, 1), nil))
	}
	// One of them is needed: all take their places.
	h.c.placeData(12)
	if h.c.log.last != 5 || h.c.placeData(12) != 5 || h.c.lastSeq(10) != 5 {
		t.Fatalf("%d records, the file waits for %d", h.c.log.last, h.c.lastSeq(12))
	}
	h.stored(p)
	h.after(logDelay)
	recs := h.records()
	if len(recs) != 5 {
		t.Fatalf("%d records", len(recs))
	}
	blocks := map[chunk.BlockID]fakeBlock{p.ID: {data: p.Data}}
	for i, r := range recs {
		w := r.Op.(*meta.Write)
		if (len(w.Blocks) == 1) != (i == 0) {
			t.Fatalf("record %d brings %d blocks", i, len(w.Blocks))
		}
		e := w.Extents[len(w.Extents)-1]
		if e.Kind != meta.ExtentBlock {
			e = w.Extents[0]
		}
		if got := p.Data[e.BlockOff : e.BlockOff+e.Len]; !bytes.Equal(got, want[w.Ino-10]) {
			t.Fatalf("file %d has wrong bytes", w.Ino)
		}
	}
	h.ackLog()
	for i := range meta.Ino(5) {
		plan := h.read(10+i, 0, 6000)
		plan.Pieces = plan.Pieces[:1]
		h.wants(plan, want[i], blocks)
	}
	if h.c.Stats().Dirty != 0 {
		t.Fatal("data stays")
	}
}

// TestRecallTakesDirtyPages: WRITEs that the kernel makes while it is told to
// forget belong to the flush.
func TestRecallTakesDirtyPages(t *testing.T) {
	h := leasedData(t)
	h.step(OpenFile{Ino: 10})
	h.c.pinned(10, true)
	h.hold(meta.LeaseWrite, regular(10, 0, 1))
	h.write(10, 0, 10)
	h.frame(&meta.Recall{ID: 5, Items: []meta.RecallItem{{Ino: 10, Mode: meta.RecallRelease}}})
	v := one(h, take[Invalidate](h), "invalidations")
	h.answered(h.request(WriteFile{Ino: 10, Off: 4096, Data: pattern(0, 4096), Writeback: true, Append: true}))
	h.step(Invalidated{Token: v.Token})
	recs := h.records()
	if len(recs) != 1 || len(recs[0].Op.(*meta.Write).Extents) != 2 {
		t.Fatalf("records %+v", recs)
	}
	if id := h.request(WriteFile{Ino: 10, Data: []byte("x")}); id != 0 {
		if o := h.op(); o.Op.Kind() != meta.KindAcquire {
			t.Fatalf("sent %T after the flush", o.Op)
		}
	}
}

// TestRecallUnderReadLease: dirty pages of a file that is not held exclusively
// must not wait for what waits for the recall.
func TestRecallUnderReadLease(t *testing.T) {
	h := leasedData(t)
	h.step(OpenFile{Ino: 10})
	h.c.pinned(10, true)
	h.hold(meta.LeaseRead, regular(10, 0, 1))
	h.frame(&meta.Recall{ID: 5, Items: []meta.RecallItem{{Ino: 10, Mode: meta.RecallRelease}}})
	v := one(h, take[Invalidate](h), "invalidations")
	h.answered(h.request(WriteFile{Ino: 10, Data: pattern(0, 100), Writeback: true}))
	for _, v := range take[Invalidate](h) { // of attributes: no page stands in its way
		h.step(Invalidated{Token: v.Token})
	}
	w := writeOf(h, h.op())
	if len(w.Extents) != 1 || w.Append {
		t.Fatalf("%+v", w)
	}
	h.step(Invalidated{Token: v.Token})
	h.bad(h.c.ops.last, errs.NoSpace)
	if len(take[Answer](h)) != 0 {
		t.Fatal("answered twice")
	}
	h.refused(h.request(Fsync{Ino: 10}), errs.NoSpace)
}

// TestLostBlockUnderLease: the log keeps its order and the size its truth when
// a block cannot be stored.
func TestLostBlockUnderLease(t *testing.T) {
	h := leasedData(t)
	h.step(OpenFile{Ino: 10})
	h.hold(meta.LeaseWrite, regular(10, 0, 1))
	h.write(10, 0, 5000)
	id := h.request(Fsync{Ino: 10})
	h.write(10, 6000, 10)
	h.step(BlockFailed{Token: h.put().Token, Err: errs.E("put", errs.NoSpace, "", nil)})
	h.after(logDelay)
	recs := h.records()
	if len(recs) != 3 {
		t.Fatalf("records %+v", recs)
	}
	first, last := recs[0].Op.(*meta.SetAttr), recs[2].Op.(*meta.SetAttr)
	if first.Size != 5000 || last.Size != 6010 || len(recs[1].Op.(*meta.Write).Extents) != 1 || recs[2].Now != h.attr(10).Mtime {
		t.Fatalf("records %+v", recs)
	}
	h.ackLog()
	h.refused(id, errs.NoSpace)
	h.wants(h.readVia(10, &meta.MapResult{Attr: regular(10, 6010, 4), Covered: meta.MaxSize}), make([]byte, 6010), nil)
}

func TestSessionLossUnderLease(t *testing.T) {
	h := leasedData(t)
	ino := h.born("f")
	h.step(OpenFile{Ino: ino})
	h.write(ino, 0, 5000)
	h.c.placeData(ino)
	h.write(ino, 0, 10)
	h.evict()
	h.refused(h.request(WriteFile{Ino: ino, Data: []byte("x")}), errs.IO)
	h.refused(h.request(Flush{Ino: ino}), errs.IO)
	h.step(CloseFile{Ino: ino})
	if s := h.c.Stats(); s.Dirty != 0 || s.Files != 0 {
		t.Fatalf("%+v", s)
	}
	if h.c.mapOf(ino) != nil {
		t.Fatal("the map of a file that never was stays")
	}
}

// TestStalledDataStopsWrites: what a crash takes is bounded in time.
func TestStalledDataStopsWrites(t *testing.T) {
	h := leasedData(t)
	h.hold(meta.LeaseWrite, regular(10, 0, 1))
	h.hold(meta.LeaseWrite, regular(11, 0, 1))
	h.write(10, 0, 5000)
	h.after(5e8)
	p := h.put()
	h.write(11, 0, 10)
	h.after(stallAge + 1)
	id := h.request(WriteFile{Ino: 11, Off: 10, Data: []byte("x")})
	h.none("the oldest data is on its way for too long")
	h.stored(p)
	h.after(logDelay)
	h.ackLog()
	h.answered(id)
}

// TestUnlinkedFileIsForgotten: data of a file that nobody can reach any more
// is not published.
func TestUnlinkedFileIsForgotten(t *testing.T) {
	h := leasedData(t)
	ino := h.born("f")
	h.write(ino, 0, 5000)
	h.answered(h.request(&meta.Unlink{Parent: 1, Name: "f"}))
	h.after(6e8)
	h.after(logDelay)
	if n := len(take[PutBlock](h)); n != 0 {
		t.Fatal("published")
	}
	h.wants(h.read(ino, 0, 10), pattern(0, 10), nil)
	h.step(Forget{Ino: ino, N: 1})
	if h.c.Stats().Dirty != 0 {
		t.Fatal("data stays")
	}
}

// TestLateCopyOfARecord: a copy that becomes durable while the record that
// names the block is on its way changes nothing in the record, and is told
// behind it.
func TestLateCopyOfARecord(t *testing.T) {
	h := leasedData(t)
	h.hold(meta.LeaseWrite, regular(10, 0, 1))
	h.write(10, 0, testBlock)
	id := h.request(Fsync{Ino: 10})
	p := h.put()
	h.stored(p, 3)
	b := &h.record().Op.(*meta.Write).Blocks[0]
	h.step(BlockLate{Token: p.Token, Server: 3})
	if len(b.Missing) != 1 || b.Missing[0] != 3 || len(b.Acked) != 2 {
		t.Fatalf("the record that was sent changed: %+v", b)
	}
	h.after(lateDelay)
	h.none("nothing is published yet")
	h.ackLog()
	h.answered(id)
	h.after(lateDelay)
	l, ok := h.op().Op.(*meta.LateAck)
	if !ok || len(l.Copies) != 1 || l.Copies[0] != (meta.BlockCopy{ID: p.ID, Server: 3}) {
		t.Fatalf("sent %+v", l)
	}
}
