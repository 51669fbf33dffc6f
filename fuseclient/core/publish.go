package core

import (
	"container/list"
	"slices"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// Bounds of one publication. A Write with its data stays well below half a
// Raft entry.
const (
	partExtents = 128       // ranges in one part
	partInline  = 96 << 10  // inline bytes in one part; more go into blocks
	writeInline = 192 << 10 // inline bytes in one Write
	partCost    = 256
)

// span is one range of a file inside a part.
type span struct {
	off  uint64
	data []byte
	at   uint32 // in the part's block
}

func (s span) end() uint64 { return s.off + uint64(len(s.data)) }

// part is data taken for publication: one block, or some inline ranges. Parts
// of a file are published in order; parts taken together are published in one
// Write if it holds them, so that what others see is a prefix of the writes.
type part struct {
	f      *file
	no     uint64
	spans  []span
	view   []span // what reads see: spans, less what was truncated since
	bytes  int
	cost   int
	writes int // for mtime
	cred   meta.Cred
	kill   bool
	last   bool // of those taken together
	put    *put // its block, nil if inline
	ready  bool // may be written: inline, or the block is durable
	// version of the file's content after publication, for shadows.
	version uint64

	newest uint64  // number of the newest write taken with it: under a lease its stamp
	rec    *record // its place in the log, once it has one
	size   uint64  // of the file, when it got that
	taken  Time
	elem   *list.Element // in buffers.queue
}

func (p *part) end() (e uint64) {
	for _, s := range p.spans {
		e = max(e, s.end())
	}
	return e
}

// takeAll starts the publication of everything buffered for the file.
func (c *Client) takeAll(f *file) {
	if f.dirty.bytes == 0 {
		return
	}
	before := f.dirty.cost()
	c.take(f, f.dirty.takeAll(), before)
}

// takeChunk starts the publication of a chunk that is complete.
func (c *Client) takeChunk(f *file, off uint64) {
	before := f.dirty.cost()
	c.take(f, f.dirty.takeChunk(off), before)
}

func (c *Client) take(f *file, segs []*segment, before int) {
	for _, p := range c.detach(f, segs, before) {
		if p.put != nil {
			c.putParts(p.put)
		}
	}
	c.advance(f)
}

// detach makes parts of segments that left the buffer.
func (c *Client) detach(f *file, segs []*segment, before int) []*part {
	c.buf.untaken -= before - f.dirty.cost()
	c.buf.held -= before - f.dirty.cost()
	newest := uint64(0)
	for _, s := range segs {
		newest = max(newest, s.last)
	}
	parts := pack(segs, c.cfg.BlockSize)
	for i, p := range parts {
		f.taken++
		p.f, p.no, p.cred, p.kill = f, f.taken, f.cred, f.kill
		p.newest, p.taken = newest, c.now
		p.last = i == len(parts)-1
		p.cost = p.bytes + partCost + segmentCost*len(p.spans)
		f.partsEnd = max(f.partsEnd, p.end())
		c.buf.held += p.cost
		c.buf.parts++
		p.elem = c.buf.queue.PushBack(p)
	}
	parts[0].writes = f.writes
	f.pending += f.writes
	f.parts = append(f.parts, parts...)
	f.writes = 0
	if f.dirty.bytes == 0 {
		f.kill = false
		c.buf.aged.Remove(f.aged)
		f.aged = nil
	}
	return parts
}

// run is a contiguous range of segments within one chunk.
type run struct {
	segs []*segment
	n    int
}

func runs(segs []*segment, chunk uint64) (out []run) {
	for i, s := range segs {
		if i > 0 && segs[i-1].end() == s.off && s.off%chunk != 0 {
			r := &out[len(out)-1]
			r.segs = append(r.segs, s)
			r.n += len(s.data)
			continue
		}
		out = append(out, run{segs: segs[i : i+1 : i+1], n: len(s.data)})
	}
	return out
}

// pack distributes segments (ascending) over parts. Short ranges travel
// inline unless they are too many; the others share blocks.
func pack(segs []*segment, blockSize int) (parts []*part) {
	all := runs(segs, uint64(blockSize))
	short := 0
	for _, r := range all {
		if r.n <= meta.MaxInline {
			short += r.n
		}
	}
	var inline, block *part
	for _, r := range all {
		p := &block
		if r.n <= meta.MaxInline && short <= partInline {
			p = &inline
		}
		if *p == nil || len((*p).spans) == partExtents || p == &block && (*p).bytes+r.n > blockSize {
			*p = &part{ready: p == &inline}
			if p == &block {
				(*p).put = &put{parts: []*part{*p}}
			}
			parts = append(parts, *p)
		}
		(*p).spans = append((*p).spans, span{off: r.segs[0].off, data: r.join(), at: uint32((*p).bytes)})
		(*p).bytes += r.n
	}
	for _, p := range parts {
		if p.put != nil {
			p.build()
		}
		p.view = p.spans
	}
	return parts
}

// join returns the bytes of a run, copied only if they are in pieces.
func (r run) join() []byte {
	if len(r.segs) == 1 {
		return r.segs[0].data
	}
	out := make([]byte, 0, r.n)
	for _, s := range r.segs {
		out = append(out, s.data...)
	}
	return out
}

// build makes the content of a part's block.
func (p *part) build() {
	if len(p.spans) == 1 {
		p.put.data = p.spans[0].data
		return
	}
	buf := make([]byte, 0, p.bytes)
	for i := range p.spans {
		s := &p.spans[i]
		buf = append(buf, s.data...)
		s.data = buf[s.at : int(s.at)+len(s.data) : int(s.at)+len(s.data)]
	}
	p.put.data = buf
}

// putParts stores a block; the parts in it are ready when it is durable.
func (c *Client) putParts(b *put) {
	b.done = func(err error) {
		parts := slices.Clone(b.parts)
		for _, p := range parts {
			if p.ready = err == nil; !p.ready {
				c.lose(p.f, slices.Index(p.f.parts, p), 1, err)
			}
		}
		for _, p := range parts {
			c.advance(p.f)
			c.reap(p.f)
		}
	}
	c.enqueuePut(b)
}

// advance publishes what of a file is ready, and answers who waited.
func (c *Client) advance(f *file) {
	if c.cfg.NoLeases {
		if f.write == nil {
			if n := f.writable(); n > 0 {
				c.publish(f, n)
			}
		}
	} else {
		c.complete(f)
		c.placeReady(f)
	}
	c.fire(f)
}

// writable returns how many parts, from the first that has no place in the
// log, the next Write can publish.
func (f *file) writable() int { return f.fit(true) }

// fit returns how many parts the next Write holds: as many whole groups as fit
// (and, if so wanted, are ready); a group that fits no Write goes in pieces.
func (f *file) fit(ready bool) int {
	n, whole, extents, inline := 0, 0, 0, 0
	for _, p := range f.parts[f.placed:] {
		extents += len(p.spans)
		if p.put == nil {
			inline += p.bytes
		}
		if extents > meta.MaxExtents || inline > writeInline || f.overlaps(n, p) {
			break
		}
		if ready && !p.ready {
			return whole
		}
		n++
		if p.last {
			whole = n
		}
	}
	if whole > 0 {
		return whole
	}
	return n
}

// overlaps reports whether p covers bytes of one of the n parts before it: one
// Write must not name a byte twice. Parts taken together never do.
func (f *file) overlaps(n int, p *part) bool {
	for _, q := range f.parts[f.placed : f.placed+n] {
		for _, a := range q.spans {
			for _, b := range p.spans {
				if a.off < b.end() && b.off < a.end() {
					return true
				}
			}
		}
	}
	return false
}

// publish sends the Write of the first n parts.
func (c *Client) publish(f *file, n int) {
	w := &meta.Write{Ino: f.ino}
	o := &op{body: w}
	for _, p := range f.parts[:n] {
		f.joinWriter(&w.Cred, &w.KillPriv, p.cred, p.kill)
		w.Extents = p.extents(w.Extents)
		if p.put != nil {
			p.put.name(o, w)
		}
	}
	f.write, f.writing = o, n
	o.done = func(res meta.Result, err error) { c.published(f, o, res, err) }
	c.submit(o)
}

// extents appends what the part brings to a Write.
func (p *part) extents(list []meta.Extent) []meta.Extent {
	for _, s := range p.spans {
		e := meta.Extent{Off: s.off, Len: uint32(len(s.data))}
		if p.put == nil {
			e.Kind, e.Inline = meta.ExtentInline, s.data
		} else {
			e.Kind, e.Block, e.BlockOff = meta.ExtentBlock, p.put.fact.ID, s.at
		}
		list = append(list, e)
	}
	return list
}

func (c *Client) published(f *file, o *op, res meta.Result, err error) {
	if f.write != o {
		return // the session and the data were lost; see dropData
	}
	n := f.writing
	f.write, f.writing = nil, 0
	a, ok := res.(*meta.AttrResult)
	switch {
	case err != nil:
		c.lose(f, 0, n, err)
	case !ok:
		c.lose(f, 0, n, errs.E("write", errs.Corrupt, "wrong kind of result", nil))
	default:
		f.observe(a.Attr)
		for _, p := range f.parts[:n] {
			p.version = a.Attr.DataVersion
			if p.put != nil {
				c.latePublished(p.put)
			}
		}
		c.leave(f, n)
	}
	c.advance(f)
	c.reap(f)
}

// lose drops n parts of a file from the given one on and remembers why.
func (c *Client) lose(f *file, from, n int, err error) {
	if e := c.blame(f, err); e != nil {
		for _, w := range f.waiters {
			if w.no >= f.parts[from].no && w.err == nil {
				w.err = e
			}
		}
	}
	lost := slices.Clone(f.parts[from : from+n])
	c.removeParts(f, from, n)
	for _, p := range lost {
		c.leavePut(p)
	}
	if !c.cfg.NoLeases {
		c.patch(f, lost)
	}
}

// blame remembers why data of a file was lost. Without handles, data of a file
// that is gone has nobody to miss it.
func (c *Client) blame(f *file, err error) *errs.Error {
	k := errs.KindOf(err)
	if f.handles == 0 && (k == errs.Stale || k == errs.NotExist) {
		return nil
	}
	e := errs.E("publish", k, "buffered data could not be written", err)
	f.failed = e
	if c.shutdown != nil && c.stopErr == nil {
		c.stopErr = e
	}
	c.say(c.ses.state(), e, "buffered data could not be written")
	return e
}

// leavePut takes a part that is given up out of its block, and gives the
// block up if nothing else is in it.
func (c *Client) leavePut(p *part) {
	if b := p.put; b != nil {
		if b.parts = slices.DeleteFunc(b.parts, func(q *part) bool { return q == p }); len(b.parts) == 0 {
			c.forgetPut(b)
		}
	}
}

// leave ends the life of the first n parts, published. While reads are under
// way whose maps may be older, they stay visible as shadows; under leases such
// maps are asked for again.
func (c *Client) leave(f *file, n int) {
	published := f.parts[:n:n]
	c.removeParts(f, 0, n)
	if !c.cfg.NoLeases {
		f.fence = max(f.fence, published[n-1].version)
		return
	}
	f.keep = c.ops.last
	if f.reads == 0 {
		return
	}
	for _, p := range published {
		p.put = nil
		f.shadows = append(f.shadows, p)
		c.buf.held += p.cost
	}
}

// removeParts takes n parts off the list and their cost off the account.
func (c *Client) removeParts(f *file, from, n int) {
	for _, p := range f.parts[from : from+n] {
		c.buf.held -= p.cost
		c.buf.parts--
		c.buf.queue.Remove(p.elem)
		f.pending -= p.writes
	}
	f.placed -= max(0, min(f.placed, from+n)-from)
	if from > 0 && f.parts[from+n-1].last {
		f.parts[from-1].last = true // its group ends here now, if it did not before
	}
	f.parts = slices.Concat(f.parts[:from], f.parts[from+n:])
	f.partsEnd = 0
	for _, p := range f.parts {
		f.partsEnd = max(f.partsEnd, p.end())
	}
}

// gone returns the number up to which all parts are published or lost.
func (f *file) gone() uint64 {
	if len(f.parts) > 0 {
		return f.parts[0].no - 1
	}
	return f.taken
}

// fire answers those who waited for parts that are done.
func (c *Client) fire(f *file) {
	for len(f.waiters) > 0 && f.waiters[0].no <= f.gone() {
		w := shift(&f.waiters)
		w.fn(w.err)
	}
}

// dropData forgets all unpublished data of a file because its session ended,
// and reports whether there was any.
func (c *Client) dropData(f *file, err *errs.Error) bool {
	c.takeAllSilently(f)
	f.newest, f.blind, f.recorded = 0, 0, 0
	if f.write != nil {
		if f.write.id == 0 {
			c.drop(f.write)
		}
		f.write, f.writing = nil, 0
	}
	f.newest = 0 // the servers will not have it
	n := len(f.parts)
	if n > 0 {
		for _, w := range f.waiters {
			w.err = err
		}
		c.removeParts(f, 0, n)
		if f.handles > 0 {
			f.lost = err
		}
	}
	c.fire(f)
	return n > 0
}

// takeAllSilently turns buffered data into one part that is never published,
// so that it is dropped like the others.
func (c *Client) takeAllSilently(f *file) {
	if f.dirty.bytes == 0 {
		return
	}
	c.emptied(f, f.dirty.cost(), func() { f.dirty.takeAll() })
	f.taken++
	c.buf.parts++
	p := &part{f: f, no: f.taken, writes: f.writes}
	p.elem = c.buf.queue.PushBack(p)
	f.parts = append(f.parts, p)
	f.pending += f.writes
	f.writes, f.kill = 0, false
}

// emptied books what remove takes out of the buffer of a file, of which cost
// was there before.
func (c *Client) emptied(f *file, cost int, remove func()) {
	remove()
	c.buf.held -= cost - f.dirty.cost()
	c.buf.untaken -= cost - f.dirty.cost()
	if f.dirty.bytes == 0 && f.aged != nil {
		c.buf.aged.Remove(f.aged)
		f.aged = nil
	}
}
