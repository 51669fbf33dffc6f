package core

import (
	"slices"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// mapLimit bounds the extents asked for in one ReadMap; the rest is asked for
// again.
const mapLimit = 1024

// wholeFile bounds the size, in full blocks, of files whose whole map is asked
// for, to be kept.
const wholeFile = mapExtents

// reading is a ReadFile under way.
type reading struct {
	req    *request
	file   *file
	pos    uint64 // planned up to here
	end    uint64 // of the request
	pieces []Piece
	ask    ReadFile // as it was asked for

	whole bool   // the map of the whole file was asked for
	held  bool   // a lease was held when it was
	log   uint64 // the last seq of the log then
	drops uint64 // file.drops then
	keep  bool   // all maps so far may be kept
	asked int
}

// maxAsks bounds how often a map that is too old is asked for again.
const maxAsks = 1000

func (c *Client) readFile(r *request, o ReadFile) {
	if o.Off > meta.MaxSize {
		o.Off = meta.MaxSize
	}
	if c.cfg.NoLeases {
		c.readServer(r, o)
		return
	}
	if o.Fresh {
		c.dropMap(o.Ino)
	}
	f, ok := c.files.Get(o.Ino)
	if ok && f.mapped && f.handles > 0 && c.leaseOf(o.Ino) != meta.LeaseWrite && !c.recalled(o.Ino) {
		// Pages read may be dirtied without a word (rule C8).
		c.acquire(r, []meta.Grant{{Ino: o.Ino, Kind: meta.LeaseWrite}}, func(error) { c.readLeased(r, o) })
		return
	}
	c.readLeased(r, o)
}

// recalled reports whether a recall of the inode is being answered: what is
// read meanwhile must not wait for what waits for its answer.
func (c *Client) recalled(ino meta.Ino) bool {
	n := c.nodeOf(ino)
	return n != nil && n.recalls > 0
}

// readLeased reads by the map that is kept, or asks for one. A file that only
// the log knows is no use asking for.
func (c *Client) readLeased(r *request, o ReadFile) {
	if r.done || c.readKept(r, o) {
		return
	}
	if e := c.mapOf(o.Ino); e != nil && e.born > c.logDone() {
		c.afterLog(e.born, r, func(err error) {
			if err != nil {
				c.answer(r, nil, err)
			} else if !r.done {
				c.readServer(r, o)
			}
		})
		return
	}
	c.readServer(r, o)
}

// readKept answers a read without the servers, if a lease and a map are held.
func (c *Client) readKept(r *request, o ReadFile) bool {
	e := c.mapOf(o.Ino)
	n := c.nodeOf(o.Ino)
	if e == nil || e.m == nil || !c.readable(n) || !n.attrOK {
		return false
	}
	c.touchNode(n)
	end := min(o.Off+uint64(o.Len), n.attr.Size)
	pos := min(o.Off, end)
	pieces, err := serverPieces(e.m, pos, end)
	if err == nil {
		if f, ok := c.files.Get(o.Ino); ok {
			pieces = c.overlay(f, e.m.Attr.DataVersion, pieces, pos, end)
		}
	}
	c.answer(r, &FilePlan{Attr: n.attr, Pieces: join(pieces), Keep: c.keeps(n)}, err)
	return true
}

// keeps reports whether the kernel may keep pages of an inode.
func (c *Client) keeps(n *node) bool {
	return n != nil && n.recalls == 0 && c.leaseNow(n) >= meta.LeaseRead || c.broken("keep-after-recall")
}

func (c *Client) readServer(r *request, o ReadFile) {
	f := c.fileOf(o.Ino)
	f.reads++
	rd := &reading{req: r, ask: o, file: f, pos: o.Off, end: o.Off + uint64(o.Len), keep: !c.cfg.NoLeases}
	rd.whole = rd.keep && c.mayKeep(o)
	c.askMap(rd)
}

// mayKeep reports whether the file is likely to have a map worth keeping.
func (c *Client) mayKeep(o ReadFile) bool {
	if e := c.mapOf(o.Ino); e != nil {
		return e.m != nil
	}
	if n := c.nodeOf(o.Ino); n != nil && n.attrOK {
		return n.attr.Size <= wholeFile*uint64(c.cfg.BlockSize)
	}
	return o.Off == 0
}

func (c *Client) askMap(rd *reading) {
	body := &meta.ReadMap{Ino: rd.file.ino, Off: rd.pos, Len: rd.end - rd.pos, Limit: mapLimit}
	if rd.whole {
		body.Off, body.Len, body.Limit = 0, meta.MaxSize, mapExtents
	}
	o := &op{body: body}
	if !c.own(rd.file.ino) {
		// Under a write lease what the servers lack lies over their map.
		o.after = c.said(rd.file.ino)
		c.log.want = max(c.log.want, o.after)
	}
	rd.held, rd.drops, rd.log = c.leaseOf(rd.file.ino) >= meta.LeaseRead, rd.file.drops, c.log.last
	o.done = func(res meta.Result, err error) {
		c.learnRead(o, res, err)
		c.mapped(rd, o, res, err)
	}
	o.withdrawn = func() { c.readEnded(rd, nil, nil) }
	rd.req.op = o
	c.submit(o)
}

// current reports whether what the answer to a read's question says still
// holds, and will until a recall.
func (c *Client) current(rd *reading, o *op) bool {
	if c.cfg.NoLeases || c.leaseOf(rd.file.ino) < meta.LeaseRead {
		return false
	}
	return rd.held && rd.drops == rd.file.drops || c.grantOf(o, rd.file.ino) != nil
}

func (c *Client) mapped(rd *reading, o *op, res meta.Result, err error) {
	m, ok := res.(*meta.MapResult)
	if err == nil && !ok {
		err = errs.E("read", errs.Corrupt, "wrong kind of result", nil)
	}
	if err != nil || rd.req.done {
		c.readEnded(rd, nil, err)
		return
	}
	attr := c.merged(m.Attr)
	if m.Attr.DataVersion < c.fenceOf(rd.file) || rd.log < rd.file.blind {
		// Older than an own change that was answered meanwhile: with own newer
		// data over it, it would show what never was.
		if rd.asked++; rd.asked > maxAsks {
			c.readEnded(rd, nil, errs.E("read", errs.Corrupt, "map of a file stays older than what was written to it", nil))
			return
		}
		c.askMap(rd)
		return
	}
	rd.keep = rd.keep && c.current(rd, o)
	whole := rd.whole
	if rd.whole = false; whole && rd.keep {
		c.keepWhole(rd.file, m)
	}
	end := min(rd.end, max(c.endOver(rd.file, &m.Attr), rd.pos))
	upTo := min(end, m.Covered)
	if rd.end <= rd.pos || end <= m.Covered {
		upTo = end
	} else if upTo <= rd.pos && whole {
		c.askMap(rd) // the beginning of a large file
		return
	} else if upTo <= rd.pos {
		c.readEnded(rd, nil, errs.E("read", errs.Corrupt, "map of a file makes no progress", nil))
		return
	}
	server, err := rd.file.serverPieces(m, rd.pos, upTo)
	if err != nil {
		c.readEnded(rd, nil, err)
		return
	}
	rd.pieces = append(rd.pieces, c.overlay(rd.file, m.Attr.DataVersion, server, rd.pos, upTo)...)
	rd.pos = upTo
	if rd.pos < end {
		c.askMap(rd)
		return
	}
	keep := rd.keep && c.keeps(c.nodeOf(rd.file.ino))
	if !keep && c.readAgain(rd) {
		return
	}
	c.readEnded(rd, &FilePlan{Attr: attr, Pieces: join(rd.pieces), Keep: keep}, nil)
}

// leaseTries bounds how often a read that fills pages tries to get a lease.
const leaseTries = 3

// readAgain puts a read off whose pages nothing would cover. Until the kernel is
// told to forget them they can be loaded through a mapping, after a write
// elsewhere has returned (C6 comes too late for that): so they are asked for
// together with a lease. Not while a recall is being answered: then nothing
// changes elsewhere before our Ack, which waits for the pages to go.
func (c *Client) readAgain(rd *reading) bool {
	r := rd.req
	if c.cfg.NoLeases || rd.ask.Direct || r.leaseTries >= leaseTries || c.recalled(rd.file.ino) || c.broken("no-lease-for-pages") {
		return false
	}
	r.leaseTries++
	c.readLeft(rd.file)
	c.acquire(r, []meta.Grant{{Ino: rd.ask.Ino, Kind: meta.LeaseRead}}, func(error) { c.readLeased(r, rd.ask) })
	return true
}

// fenceOf is the version of content that a map must have at least. Under a
// write lease that is the last one before what lies over it: all records on
// their way. Otherwise nothing may be missing, for others may have written
// since.
func (c *Client) fenceOf(f *file) uint64 {
	if !c.own(f.ino) {
		return max(f.fence, f.newest)
	}
	at := c.nodeOf(f.ino).attr.DataVersion
	if f.placed > 0 {
		at = min(at, f.parts[0].version-1)
	}
	for _, x := range f.cuts {
		at = min(at, x.version-1)
	}
	return at
}

// own reports whether all that is newer about a file than what the servers say
// is known here.
func (c *Client) own(ino meta.Ino) bool {
	n := c.nodeOf(ino)
	return n != nil && n.lease == meta.LeaseWrite && n.attrOK
}

// keepWhole keeps a map of a whole file, or notes that it is too large.
func (c *Client) keepWhole(f *file, m *meta.MapResult) {
	if m.Covered < m.Attr.Size {
		c.keepMap(f.ino, nil, 0)
		return
	}
	c.keepMap(f.ino, clipped(m, f.cutAt(m.Attr.DataVersion)), 0)
}

// cutAt is where content of a map of that version ends because of truncations
// in the log that it does not know. What came after these lies over it.
func (f *file) cutAt(version uint64) uint64 {
	at := meta.MaxSize
	for _, x := range f.cuts {
		if version < x.version {
			at = min(at, x.size)
		}
	}
	return at
}

// serverPieces is serverPieces for a map that may be older than truncations
// in the log.
func (f *file) serverPieces(m *meta.MapResult, lo, hi uint64) ([]Piece, error) {
	to := max(min(hi, f.cutAt(m.Attr.DataVersion)), lo)
	out, err := serverPieces(m, lo, to)
	return hole(out, hi-to), err
}

// endOver returns the end of file as a map with the server's attributes a and
// own data over it has it. Newer attributes do not count, unless all that is
// newer is own: the map must agree.
func (c *Client) endOver(f *file, a *meta.Attr) uint64 {
	if c.own(f.ino) {
		return c.nodeOf(f.ino).attr.Size
	}
	if !c.cfg.NoLeases {
		return max(a.Size, f.dirty.end())
	}
	end := max(a.Size, f.partsEnd, f.dirty.end())
	for _, p := range f.shadows {
		if p.version > a.DataVersion {
			end = max(end, p.end())
		}
	}
	return end
}

func (c *Client) readEnded(rd *reading, plan *FilePlan, err error) {
	f := rd.file
	if err != nil {
		c.answer(rd.req, nil, err)
	} else if !rd.req.done {
		c.answer(rd.req, plan, nil)
	}
	c.readLeft(f)
}

// readLeft ends the part of a read that others have to know of.
func (c *Client) readLeft(f *file) {
	if f.reads--; f.reads == 0 {
		for _, p := range f.shadows {
			c.buf.held -= p.cost
		}
		f.shadows = nil
	}
	c.reap(f)
}

// serverPieces turns the map of [lo, hi) into pieces without gaps.
func serverPieces(m *meta.MapResult, lo, hi uint64) ([]Piece, error) {
	block := refs(m.Blocks)
	var out []Piece
	pos := lo
	for i := range m.Extents {
		e := &m.Extents[i]
		a, b := max(e.Off, lo), min(e.Off+uint64(e.Len), hi)
		if a >= b {
			continue
		}
		if a < pos {
			return nil, errs.E("read", errs.Corrupt, "extents overlap or are out of order", nil)
		}
		out = hole(out, a-pos)
		skip := uint32(a - e.Off)
		p := Piece{Len: uint32(b - a)}
		if e.Kind == meta.ExtentInline {
			if len(e.Inline) != int(e.Len) {
				return nil, errs.E("read", errs.Corrupt, "inline extent of wrong length", nil)
			}
			p.Data = e.Inline[skip : skip+p.Len : skip+p.Len]
		} else {
			p.Block, p.BlockOff = block(e.Block), e.BlockOff+skip
			if p.Block == nil || uint64(p.BlockOff)+uint64(p.Len) > uint64(p.Block.Len) {
				return nil, errs.E("read", errs.Corrupt, "extent names block "+e.Block.String()+" that the map lacks or that is shorter", nil)
			}
		}
		out = append(out, p)
		pos = b
	}
	return hole(out, hi-pos), nil
}

// refs makes a look-up of blocks by id, without an index if they are few.
func refs(list []meta.BlockRef) func(chunk.BlockID) *meta.BlockRef {
	if len(list) <= 16 {
		return func(id chunk.BlockID) *meta.BlockRef {
			for i := range list {
				if list[i].ID == id {
					return &list[i]
				}
			}
			return nil
		}
	}
	index := make(map[chunk.BlockID]*meta.BlockRef, len(list))
	for i := range list {
		index[list[i].ID] = &list[i]
	}
	return func(id chunk.BlockID) *meta.BlockRef { return index[id] }
}

// hole appends n zero bytes.
func hole(out []Piece, n uint64) []Piece {
	if n == 0 {
		return out
	}
	return append(out, Piece{Len: uint32(n)})
}

// overlay lays the file's own data over what the server said of [lo, hi). A
// part that was published meanwhile counts only if the map is older: else
// the map has it, or what others wrote after it.
func (c *Client) overlay(f *file, version uint64, server []Piece, lo, hi uint64) []Piece {
	if lo >= hi {
		return nil
	}
	if len(f.shadows)+len(f.parts) == 0 && f.dirty.bytes == 0 {
		return server
	}
	own := dirtySet{chunk: ^uint64(0), fill: make(map[uint64]int), view: true}
	paint := func(off uint64, data []byte) {
		a, b := max(off, lo), min(off+uint64(len(data)), hi)
		if a < b {
			own.put(a, data[a-off:b-off], 0)
		}
	}
	for _, p := range slices.Concat(f.shadows, f.parts) {
		if p.version != 0 && version >= p.version {
			continue
		}
		for _, s := range p.view {
			paint(s.off, s.data)
		}
	}
	f.dirty.scan(lo, hi, paint)

	var out []Piece
	pos := lo
	server = slices.Clone(server)
	own.segs.Scan(func(off uint64, s *segment) bool {
		out = cutPieces(out, &server, uint32(off-pos), true)
		cutPieces(nil, &server, uint32(len(s.data)), false)
		out = append(out, Piece{Len: uint32(len(s.data)), Data: s.data})
		pos = s.end()
		return true
	})
	return cutPieces(out, &server, uint32(hi-pos), true)
}

// cutPieces takes n bytes off the front of src and appends them to out if keep.
func cutPieces(out []Piece, src *[]Piece, n uint32, keep bool) []Piece {
	for n > 0 {
		p := &(*src)[0]
		m := min(n, p.Len)
		if keep {
			q := *p
			q.Len = m
			if q.Data != nil {
				q.Data = q.Data[:m:m]
			}
			out = append(out, q)
		}
		n -= m
		if m == p.Len {
			*src = (*src)[1:]
			continue
		}
		p.Len -= m
		p.BlockOff += m
		if p.Data != nil {
			p.Data = p.Data[m:]
		} else if p.Block == nil {
			p.BlockOff = 0
		}
	}
	return out
}

// join merges neighbouring holes and neighbouring ranges of one block.
func join(in []Piece) []Piece {
	out := in[:0]
	for _, p := range in {
		if n := len(out); n > 0 && p.Data == nil && out[n-1].Data == nil {
			q := &out[n-1]
			sameHole := p.Block == nil && q.Block == nil
			sameBlock := p.Block != nil && q.Block != nil && p.Block.ID == q.Block.ID && q.BlockOff+q.Len == p.BlockOff
			if sameHole || sameBlock {
				q.Len += p.Len
				continue
			}
		}
		out = append(out, p)
	}
	return out
}
