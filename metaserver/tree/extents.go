package tree

import (
	"math"
	"slices"

	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
)

// change is what an operation does to the extents of one file.
type change struct {
	drop []extent // records that go
	put  []extent // records that come, or stay under another form
}

// collect reads extents of n in key order, beginning with the first that ends
// above from, as long as want says true. limit bounds how many it takes; more
// reports that the bound ended it.
func (s Space) collect(v kv.View, n *inode, from uint64, limit int, want func(*extent) bool) (list []extent, more bool, err error) {
	if n.Content == 0 {
		return nil, false, nil
	}
	var failed error
	err = v.Scan(s.extentKey(n.Content, from), key(prefixExtent, uint64(s.Layer), n.Content+1), func(k, val []byte) bool {
		var e extent
		if e, failed = decodeExtent(k, val); failed != nil || !want(&e) {
			return false
		}
		if more = len(list) >= limit; more {
			return false
		}
		list = append(list, e)
		return true
	})
	if err == nil {
		err = failed
	}
	return list, more, err
}

// without gives the parts of e outside [lo, hi). Their versions stay.
func (e *extent) without(lo, hi uint64) []extent {
	var parts []extent
	if e.Off < lo {
		parts = append(parts, e.part(e.Off, min(lo, e.end())))
	}
	if e.end() > hi {
		parts = append(parts, e.part(max(hi, e.Off), e.end()))
	}
	return parts
}

// part gives the range [lo, hi) of e as an extent.
func (e *extent) part(lo, hi uint64) extent {
	p := *e
	skip := uint32(lo - e.Off)
	p.Off, p.Len = lo, uint32(hi-lo)
	if e.Kind == meta.ExtentInline {
		p.Inline = e.Inline[skip : skip+p.Len]
	} else {
		p.BlockOff += skip
	}
	return p
}

// execute writes a change of n's extents and books blocks and bytes. Dead
// extents were counted in Bytes while they waited, so every dropped byte is
// subtracted.
func (u *unit) execute(n *node, ch change, fresh []newBlock) error {
	var deltas []delta
	var add, sub uint64
	for i := range ch.put {
		e := &ch.put[i]
		add += uint64(e.Len)
		if e.Kind == meta.ExtentBlock {
			deltas = append(deltas, delta{e.Block, int64(e.Len)})
		}
	}
	for i := range ch.drop {
		e := &ch.drop[i]
		sub += uint64(e.Len)
		if e.Kind == meta.ExtentBlock {
			deltas = append(deltas, delta{e.Block, -int64(e.Len)})
		}
	}
	if err := u.bookBlocks(fresh, deltas); err != nil {
		return err
	}
	for i := range ch.drop {
		u.del(u.extentKey(n.Content, ch.drop[i].end()-1))
	}
	for i := range ch.put {
		u.set(u.extentKey(n.Content, ch.put[i].end()-1), encode(&ch.put[i]))
	}
	n.Extents += uint64(len(ch.put)) - uint64(len(ch.drop))
	u.resize(n, add, sub)
	return nil
}

// dropDirectly is the largest number of extents that an operation which ends a
// whole content removes itself.
const dropDirectly = 16

// dropContent ends the content of n: at once if it is small, else by handing
// it to the queue under its content id.
func (u *unit) dropContent(n *node) error {
	if n.Extents <= dropDirectly {
		all, _, err := u.collect(u.tx, &n.inode, 0, math.MaxInt, func(*extent) bool { return true })
		if err != nil {
			return err
		}
		if err := u.execute(n, change{drop: all}, nil); err != nil {
			return err
		}
	} else {
		u.owe(debtContent, n.Content, debt{})
		u.resize(n, 0, n.Bytes)
		n.Content, n.Extents = 0, 0
	}
	n.Trim = trim{}
	return nil
}

// truncate removes the content of n, a regular file, from size on. The size
// itself is an attribute: rules.SetAttr sets it.
func (u *unit) truncate(n *node, size uint64) error {
	version := n.DataVersion + 1
	switch {
	case size == 0 && n.Extents > 0:
		return u.dropContent(n)
	case size < n.Size && n.Extents > 0:
		return u.cutTail(n, size, version)
	}
	return nil
}

// cutTail removes content from size on, and marks it dead if it is much.
func (u *unit) cutTail(n *node, size, version uint64) error {
	tail, more, err := u.collect(u.tx, &n.inode, size, u.maxCut(), func(*extent) bool { return true })
	if err != nil {
		return err
	}
	var ch change
	if !more {
		for i := range tail {
			ch.drop = append(ch.drop, tail[i])
			if !n.Trim.covers(&tail[i]) {
				ch.put = append(ch.put, tail[i].without(size, meta.MaxSize)...)
			}
		}
		return u.execute(n, ch, nil)
	}
	if tail, err = u.straddler(n, size); err != nil {
		return err
	}
	if err := u.mark(n, trim{From: size, To: meta.MaxSize, Version: version}); err != nil {
		return err
	}
	for i := range tail {
		ch.drop = append(ch.drop, tail[i])
		ch.put = append(ch.put, tail[i].without(size, meta.MaxSize)...)
	}
	return u.execute(n, ch, nil)
}

// mark notes that a range is dead. A range that contains the one marked
// before replaces it.
func (u *unit) mark(n *node, t trim) error {
	if n.Trim.To != 0 && (t.From > n.Trim.From || t.To < n.Trim.To) {
		return fail("tree.trim", errs.Again, "inode %d has a trim pending", n.Ino)
	}
	n.Trim = t
	n.dirty = true
	u.owe(debtTrim, uint64(n.Ino), debt{Next: t.From})
	return nil
}

// straddler gives the living extent that has bytes on both sides of at, if
// there is one. Dead ones in front of it are passed over, at most maxCut. Call
// it before the range behind or around at is marked.
func (u *unit) straddler(n *node, at uint64) ([]extent, error) {
	found, more, err := u.collect(u.tx, &n.inode, at, u.maxCut(), func(e *extent) bool {
		return n.Trim.covers(e) || e.Off < at
	})
	if err != nil {
		return nil, err
	}
	if more {
		return nil, fail("tree.trim", errs.Again, "inode %d has a trim pending", n.Ino)
	}
	return slices.DeleteFunc(found, func(e extent) bool { return n.Trim.covers(&e) }), nil
}
