package tree

import (
	"bytes"
	"cmp"
	"slices"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/rules"
)

// write executes Write.
func (u *unit) write(x *meta.Write) (meta.Result, error) {
	n, err := u.load(x.Ino)
	if err != nil {
		return nil, err
	}
	if err := rules.CheckWrite(&n.Attr); err != nil {
		return nil, err
	}
	fresh, err := u.publish(x.Blocks)
	if err != nil {
		return nil, err
	}
	exts, err := place(x, n.Size, n.DataVersion+1)
	if err != nil {
		return nil, err
	}
	if err := u.checkBlocks(exts, fresh); err != nil {
		return nil, err
	}
	ch, err := u.overwrite(n, exts)
	if err != nil {
		return nil, err
	}
	if n.Content == 0 {
		n.Content = u.count.NextContent
		u.count.NextContent++
		u.dirty = true
	}
	if err := u.execute(n, ch, fresh); err != nil {
		return nil, err
	}
	rules.Wrote(&n.Attr, x.Cred, exts[len(exts)-1].end(), x.KillPriv, u.st.Now)
	changed(n)
	return &meta.AttrResult{Attr: n.Attr, Off: exts[0].Off}, nil
}

// place validates the extents of a Write and gives them in order, with
// absolute offsets.
func place(x *meta.Write, size, version uint64) ([]extent, error) {
	if len(x.Extents) == 0 || len(x.Extents) > meta.MaxExtents {
		return nil, fail("tree.write", errs.Invalid, "%d extents", len(x.Extents))
	}
	var base uint64
	if x.Append {
		base = size
	}
	exts := make([]extent, len(x.Extents))
	for i, e := range x.Extents {
		switch {
		case e.Len == 0,
			e.Kind == meta.ExtentInline && (len(e.Inline) != int(e.Len) || e.Len > meta.MaxInline),
			e.Kind == meta.ExtentBlock && uint64(e.BlockOff)+uint64(e.Len) > chunk.MaxBlock,
			e.Kind != meta.ExtentInline && e.Kind != meta.ExtentBlock:
			return nil, fail("tree.write", errs.Invalid, "extent of kind %d, %d bytes", e.Kind, e.Len)
		case e.Off > meta.MaxSize-base || uint64(e.Len) > meta.MaxSize-base-e.Off:
			return nil, fail("tree.write", errs.FileTooLarge, "range %d+%d", e.Off, e.Len)
		}
		e.Off += base
		exts[i] = extent{Extent: e, Version: version}
	}
	slices.SortFunc(exts, func(a, b extent) int { return cmp.Compare(a.Off, b.Off) })
	for i := 1; i < len(exts); i++ {
		if exts[i].Off < exts[i-1].end() {
			return nil, fail("tree.write", errs.Invalid, "extents overlap at %d", exts[i].Off)
		}
	}
	return exts, nil
}

// checkBlocks refuses extents that name a block this layer does not have, and
// blocks that no extent names.
func (u *unit) checkBlocks(exts []extent, fresh []newBlock) error {
	used := make([]bool, len(fresh))
	for i := range exts {
		e := &exts[i]
		if e.Kind != meta.ExtentBlock {
			continue
		}
		var length uint32
		if j := slices.IndexFunc(fresh, func(b newBlock) bool { return b.id == e.Block }); j >= 0 {
			used[j] = true
			length = fresh[j].rec.Len
		} else {
			rec, ok, err := block(u.tx, e.Block)
			if err != nil {
				return err
			}
			if !ok || rec.Layer != u.Layer || rec.State != BlockLive {
				return fail("tree.write", errs.Invalid, "block %v is not published in this layer", e.Block)
			}
			length = rec.Len
		}
		if uint64(e.BlockOff)+uint64(e.Len) > uint64(length) {
			return fail("tree.write", errs.Invalid, "range %d+%d of block %v of %d bytes", e.BlockOff, e.Len, e.Block, length)
		}
	}
	if i := slices.Index(used, false); i >= 0 {
		return fail("tree.write", errs.Invalid, "block %v comes without an extent", fresh[i].id)
	}
	return nil
}

// overwrite plans to put exts over what n has. The old extents of each run of
// adjacent new ones are cut; those of one run that meets too many are marked
// dead instead.
func (u *unit) overwrite(n *node, exts []extent) (change, error) {
	var ch change
	budget := max(u.maxCut(), 4*len(exts))
	old := make([]extent, 0, 8)
	var marked []extent // the run whose old extents are marked
	for rest := exts; len(rest) > 0; {
		run := firstRun(rest)
		rest = rest[len(run):]
		found, more, err := u.around(n, run, budget)
		if err != nil {
			return ch, err
		}
		if !more {
			budget -= len(found)
			old = unite(old, found)
			continue
		}
		if marked != nil {
			return ch, errs.E("tree.write", errs.TooBig, "the ranges hold too many extents", nil).
				WithHint("write fewer ranges at once")
		}
		marked = run
	}
	if marked != nil {
		found, err := u.punch(n, marked)
		if err != nil {
			return ch, err
		}
		old = unite(old, found)
		u.replaced = marked[len(marked)-1].end() - marked[0].Off
	}
	ch.put = merge(n.Trim, old, exts, &ch.drop)
	return ch, nil
}

// unite adds those of more that list lacks.
func unite(list, more []extent) []extent {
	for i := range more {
		if !slices.ContainsFunc(list, func(e extent) bool { return e.end() == more[i].end() }) {
			list = append(list, more[i])
		}
	}
	return list
}

// firstRun gives the extents at the front that follow one another without a
// gap.
func firstRun(exts []extent) []extent {
	i := 1
	for i < len(exts) && exts[i].Off == exts[i-1].end() {
		i++
	}
	return exts[:i]
}

// around reads the old extents that a run overlaps or touches.
func (u *unit) around(n *node, run []extent, budget int) ([]extent, bool, error) {
	lo, hi := run[0].Off, run[len(run)-1].end()
	return u.collect(u.tx, &n.inode, max(lo, 1)-1, budget, func(e *extent) bool {
		return e.Off <= hi || n.Trim.covers(e)
	})
}

// punch marks what lies under a run as dead. It gives the old extents that
// cannot stay until the queue comes: those that reach across the borders of
// the run, and those whose keys the run's own records take.
func (u *unit) punch(n *node, run []extent) ([]extent, error) {
	lo, hi := run[0].Off, run[len(run)-1].end()
	old, err := u.straddler(n, lo)
	if err != nil {
		return nil, err
	}
	right, err := u.straddler(n, hi)
	if err != nil {
		return nil, err
	}
	old = unite(old, right)
	if err := u.mark(n, trim{From: lo, To: hi, Version: run[0].Version}); err != nil {
		return nil, err
	}
	for i := range run {
		k := u.extentKey(n.Content, run[i].end()-1)
		val, ok, err := u.tx.Get(k)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		e, err := decodeExtent(k, val)
		if err != nil {
			return nil, err
		}
		old = unite(old, []extent{e})
	}
	return old, nil
}

// merge lays exts over old, both ascending, and gives what to write; old
// records that change are appended to drop. Small inline neighbours become
// one record, so that a log written line by line does not become a list of
// tiny extents.
func merge(dead trim, old, exts []extent, drop *[]extent) []extent {
	var list []extent
	for i := range old {
		o := &old[i]
		if dead.covers(o) {
			*drop = append(*drop, *o)
			continue
		}
		parts := []extent{*o}
		for j := range exts {
			if last := &parts[len(parts)-1]; exts[j].Off < last.end() && exts[j].end() > last.Off {
				parts = append(parts[:len(parts)-1], last.without(exts[j].Off, exts[j].end())...)
				if len(parts) == 0 {
					break
				}
			}
		}
		if len(parts) == 1 && parts[0].Len == o.Len && !touches(o, exts) {
			continue
		}
		*drop = append(*drop, *o)
		list = append(list, parts...)
	}
	list = append(list, exts...)
	slices.SortFunc(list, func(a, b extent) int { return cmp.Compare(a.Off, b.Off) })
	return join(list)
}

// touches reports whether o may become one record with a new neighbour.
func touches(o *extent, exts []extent) bool {
	return slices.ContainsFunc(exts, func(e extent) bool { return joinable(o, &e) || joinable(&e, o) })
}

// joinable reports whether b can be appended to a.
func joinable(a, b *extent) bool {
	return a.Kind == meta.ExtentInline && b.Kind == meta.ExtentInline && a.end() == b.Off && a.Len+b.Len <= meta.MaxInline
}

// join makes one record of inline neighbours, from left to right. It is as new
// as the newest part: none of them is dead.
func join(list []extent) []extent {
	out := list[:0]
	for _, e := range list {
		if len(out) > 0 {
			if last := &out[len(out)-1]; joinable(last, &e) {
				last.Inline = append(bytes.Clone(last.Inline), e.Inline...)
				last.Len += e.Len
				last.Version = max(last.Version, e.Version)
				continue
			}
		}
		out = append(out, e)
	}
	return out
}
