package core

import (
	"container/list"
	"slices"

	"github.com/tidwall/btree"

	"agentdrive/chunkserver/chunk"
	"agentdrive/metaserver/meta"
)

const (
	mapExtents = 64       // extents of a map that is kept
	mapInline  = 64 << 10 // inline bytes of one
	mapsMax    = 32 << 20 // bytes of memory for all maps
	mapCost    = 512
)

// keptMap is the extent map of a whole file as the servers have it, kept while
// a lease on the inode is held. Own data that they do not have yet, or have
// since the map was made, lies over it. m is never changed, plans refer to it.
type keptMap struct {
	ino  meta.Ino
	m    *meta.MapResult // nil: the file has too many extents
	cost int
	born uint64 // seq of the record that makes the file; 0: the servers knew it
	elem *list.Element
}

// maps is the table of kept maps, bounded by mapsMax: the least recently used
// goes first.
type maps struct {
	table btree.Map[meta.Ino, *keptMap]
	lru   *list.List // *keptMap, newest first
	cost  int
}

// mapOf returns the map kept of an inode, or nil. Whether it may be believed
// the lease tells.
func (c *Client) mapOf(ino meta.Ino) *keptMap {
	e, ok := c.maps.table.Get(ino)
	if !ok {
		return nil
	}
	c.maps.lru.MoveToFront(e.elem)
	return e
}

// keepMap keeps a map (nil: notes that it is too large). born as in keptMap.
func (c *Client) keepMap(ino meta.Ino, m *meta.MapResult, born uint64) {
	e := c.mapOf(ino)
	if e == nil {
		e = &keptMap{ino: ino, born: born}
		e.elem = c.maps.lru.PushFront(e)
		c.maps.table.Set(ino, e)
	}
	c.maps.cost -= e.cost
	inline := 0
	e.m, e.cost = m, mapCost
	if m != nil {
		for i := range m.Extents {
			inline += len(m.Extents[i].Inline)
		}
		e.cost += inline + 80*len(m.Extents) + 64*len(m.Blocks)
	}
	c.maps.cost += e.cost
	if m != nil && (len(m.Extents) > mapExtents || inline > mapInline) {
		c.keepMap(ino, nil, 0)
		return
	}
	for b := c.maps.lru.Back(); c.maps.cost > mapsMax && b != nil; b = c.maps.lru.Back() {
		if old := b.Value.(*keptMap); old == e || old.born > c.logDone() {
			return // all others are younger
		}
		c.removeMap(b.Value.(*keptMap))
	}
}

func (c *Client) removeMap(e *keptMap) {
	c.maps.cost -= e.cost
	c.maps.lru.Remove(e.elem)
	c.maps.table.Delete(e.ino)
}

// dropMap forgets what is known of a file's content at the servers: its lease
// falls, or it is about to be changed other than through the log.
func (c *Client) dropMap(ino meta.Ino) {
	if f, ok := c.files.Get(ino); ok {
		f.drops++
	}
	if e, ok := c.maps.table.Get(ino); ok {
		c.removeMap(e)
	}
}

// clipMap cuts a kept map at size.
func (c *Client) clipMap(ino meta.Ino, size uint64) {
	if e := c.mapOf(ino); e != nil && e.m != nil {
		c.keepMap(ino, clipped(e.m, size), e.born)
	} else if e != nil && size == 0 {
		c.removeMap(e) // it has few extents now
	}
}

func clipped(m *meta.MapResult, size uint64) *meta.MapResult {
	if n := len(m.Extents); n == 0 || m.Extents[n-1].Off+uint64(m.Extents[n-1].Len) <= size {
		return m
	}
	x := &meta.MapResult{Attr: m.Attr, Covered: m.Covered}
	for i := range m.Extents {
		x.Extents = without(x.Extents, m.Extents[i], size, meta.MaxSize)
	}
	x.Blocks = named(x.Extents, m.Blocks)
	return x
}

// without appends what of e lies outside [lo, hi).
func without(list []meta.Extent, e meta.Extent, lo, hi uint64) []meta.Extent {
	end := e.Off + uint64(e.Len)
	if lo >= end || hi <= e.Off {
		return append(list, e)
	}
	slice := func(a, b uint64) {
		if a >= b {
			return
		}
		x := e
		x.Off, x.Len = a, uint32(b-a)
		if e.Kind == meta.ExtentInline {
			x.Inline = e.Inline[a-e.Off : b-e.Off : b-e.Off]
		} else {
			x.BlockOff += uint32(a - e.Off)
		}
		list = append(list, x)
	}
	slice(e.Off, lo)
	slice(hi, end)
	return list
}

// named returns those blocks that extents name.
func named(exts []meta.Extent, blocks []meta.BlockRef) []meta.BlockRef {
	uses := func(id chunk.BlockID) bool {
		return slices.ContainsFunc(exts, func(e meta.Extent) bool { return e.Kind == meta.ExtentBlock && e.Block == id })
	}
	var out []meta.BlockRef
	for i := range blocks {
		if uses(blocks[i].ID) {
			out = append(out, blocks[i])
		}
	}
	return out
}

// foldMap enters a part into the map kept of its file: the servers have it.
func (c *Client) foldMap(p *part) {
	e := c.mapOf(p.f.ino)
	if e == nil || e.m == nil {
		return
	}
	if len(p.view) > mapExtents {
		c.keepMap(p.f.ino, nil, 0)
		return
	}
	m := &meta.MapResult{Attr: e.m.Attr, Covered: e.m.Covered, Extents: e.m.Extents}
	m.Attr.DataVersion = max(m.Attr.DataVersion, p.version)
	for _, s := range p.view {
		var list []meta.Extent
		for _, x := range m.Extents {
			list = without(list, x, s.off, s.end())
		}
		x := meta.Extent{Off: s.off, Len: uint32(len(s.data)), Kind: meta.ExtentInline, Inline: s.data}
		if p.put != nil {
			x.Kind, x.Inline, x.Block, x.BlockOff = meta.ExtentBlock, nil, p.put.fact.ID, s.at
		}
		i, _ := slices.BinarySearchFunc(list, x.Off, func(e meta.Extent, off uint64) int {
			if e.Off < off {
				return -1
			}
			return 1
		})
		m.Extents = slices.Insert(list, i, x)
	}
	m.Blocks = slices.Clone(e.m.Blocks)
	if b := p.put; b != nil && !slices.ContainsFunc(m.Blocks, func(r meta.BlockRef) bool { return r.ID == b.fact.ID }) {
		m.Blocks = append(m.Blocks, meta.BlockRef{
			ID: b.fact.ID, PG: b.fact.PG, Epoch: b.fact.Epoch, Len: b.fact.Len, Missing: slices.Clone(b.fact.Missing),
		})
	}
	m.Blocks = named(m.Extents, m.Blocks)
	c.keepMap(p.f.ino, m, e.born)
}
