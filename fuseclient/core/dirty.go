package core

import "github.com/tidwall/btree"

const (
	// mergeMax bounds the segments that grow by appending small writes: long
	// enough to make per-write overhead small, short enough that copying while
	// growing stays cheap.
	mergeMax = 64 << 10
	// segmentCost is charged for each segment besides its bytes, so that many
	// tiny writes cannot hold much more memory than MaxDirty says.
	segmentCost = 96
)

// segment is a run of bytes written to a file. Its bytes never change in
// place: data may be read by others while the segment grows, is cut or
// replaced. A segment never crosses a chunk boundary (a multiple of the block
// size).
type segment struct {
	off         uint64
	data        []byte
	first, last uint64 // numbers of the oldest and newest write in it
	backing     int    // bytes of memory that data keeps alive
}

func (s *segment) end() uint64 { return s.off + uint64(len(s.data)) }

// dirtySet is an ordered set of disjoint segments in which the newest write
// wins. Adding costs O(log n), plus O(1) amortised for each segment that the
// write covers; bytes are not copied, except small sequential writes, which
// are gathered, and remnants that would keep four times their size alive.
type dirtySet struct {
	chunk uint64 // bytes; segments end at its multiples
	segs  btree.Map[uint64, *segment]
	bytes int
	fill  map[uint64]int // bytes present of each chunk; look-up only
	last  uint64         // number of the newest write put
	view  bool           // holds slices of others: nothing is gathered or copied
}

func newDirtySet(chunk uint64) dirtySet {
	return dirtySet{chunk: chunk, fill: make(map[uint64]int)}
}

// cost is the memory that the set accounts for.
func (d *dirtySet) cost() int { return d.bytes + segmentCost*d.segs.Len() }

// put adds a write that lies within one chunk. Numbers of writes grow. The set
// owns data from now on.
func (d *dirtySet) put(off uint64, data []byte, seq uint64) {
	data = data[:len(data):len(data)]
	before := d.last
	d.last = seq
	d.cut(off, off+uint64(len(data)))
	if !d.view && len(data) < mergeMax && off%d.chunk != 0 {
		// Only with the write before it: segments then hold disjoint periods
		// of time, and publishing the older ones publishes a prefix.
		if p := d.before(off); p != nil && p.end() == off && p.last == before && len(p.data)+len(data) <= mergeMax {
			p.data = append(p.data, data...)
			p.backing = cap(p.data)
			p.last = seq
			d.count(off, len(data))
			return
		}
	}
	d.insert(&segment{off: off, data: data, first: seq, last: seq, backing: len(data)})
}

func (d *dirtySet) count(off uint64, n int) {
	d.bytes += n
	k := off / d.chunk
	if d.fill[k] += n; d.fill[k] == 0 {
		delete(d.fill, k)
	}
}

func (d *dirtySet) insert(s *segment) {
	d.segs.Set(s.off, s)
	d.count(s.off, len(s.data))
}

func (d *dirtySet) remove(s *segment) {
	d.segs.Delete(s.off)
	d.count(s.off, -len(s.data))
}

// before returns the last segment that starts before off, or nil.
func (d *dirtySet) before(off uint64) (p *segment) {
	if off == 0 {
		return nil
	}
	d.segs.Descend(off-1, func(_ uint64, s *segment) bool { p = s; return false })
	return p
}

// from returns the first segment that starts at off or later, or nil.
func (d *dirtySet) from(off uint64) (p *segment) {
	d.segs.Ascend(off, func(_ uint64, s *segment) bool { p = s; return false })
	return p
}

// cut removes [lo, hi).
func (d *dirtySet) cut(lo, hi uint64) {
	if p := d.before(lo); p != nil && p.end() > lo {
		whole := p.data
		d.count(p.off, int(lo)-int(p.end()))
		n := lo - p.off
		p.data = whole[:n:n]
		if tail := hi - p.off; tail < uint64(len(whole)) {
			d.insert(d.trim(&segment{off: hi, data: whole[tail:], first: p.first, last: p.last, backing: p.backing}))
		}
		d.trim(p)
	}
	for s := d.from(lo); s != nil && s.off < hi; s = d.from(lo) {
		d.remove(s)
		if s.end() > hi {
			n := hi - s.off
			d.insert(d.trim(&segment{off: hi, data: s.data[n:], first: s.first, last: s.last, backing: s.backing}))
		}
	}
}

// trim copies a remnant that keeps much more memory alive than it uses.
func (d *dirtySet) trim(s *segment) *segment {
	if !d.view && len(s.data)*4 < s.backing {
		s.data = append(make([]byte, 0, len(s.data)), s.data...)
		s.backing = len(s.data)
	}
	return s
}

// end returns the end of the last segment, or 0.
func (d *dirtySet) end() uint64 {
	if _, s, ok := d.segs.Max(); ok {
		return s.end()
	}
	return 0
}

// scan calls fn for the parts of segments in [lo, hi), ascending.
func (d *dirtySet) scan(lo, hi uint64, fn func(off uint64, data []byte)) {
	if p := d.before(lo); p != nil && p.end() > lo {
		fn(lo, p.data[lo-p.off:min(hi, p.end())-p.off])
	}
	d.segs.Ascend(lo, func(off uint64, s *segment) bool {
		if off >= hi {
			return false
		}
		fn(off, s.data[:min(hi, s.end())-off])
		return true
	})
}

// full reports whether the chunk at off is present whole.
func (d *dirtySet) full(off uint64) bool { return d.fill[off/d.chunk] == int(d.chunk) }

// takeAll empties the set and returns its segments, ascending.
func (d *dirtySet) takeAll() []*segment {
	out := d.segs.Values()
	d.segs.Clear()
	clear(d.fill)
	d.bytes = 0
	return out
}

// takeChunk removes the chunk at off and everything written before the newest
// write in it, so that what is published of a file is a prefix of its writes.
func (d *dirtySet) takeChunk(off uint64) []*segment {
	lo := off - off%d.chunk
	var newest uint64
	d.segs.Ascend(lo, func(o uint64, s *segment) bool {
		if o >= lo+d.chunk {
			return false
		}
		newest = max(newest, s.last)
		return true
	})
	var out []*segment
	d.segs.Scan(func(_ uint64, s *segment) bool {
		if s.first <= newest {
			out = append(out, s)
		}
		return true
	})
	if len(out) == d.segs.Len() {
		return d.takeAll()
	}
	for _, s := range out {
		d.remove(s)
	}
	return out
}
