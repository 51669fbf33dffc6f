package core

import (
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/rules"
)

// delegate appends the record of a local operation that changes these nodes.
func (c *Client) delegate(rec *record, nodes ...*node) {
	for _, n := range nodes {
		if n != nil {
			rec.inos = append(rec.inos, n.ino)
			c.touchNode(n)
		}
	}
	rec.ready = true
	rec.dirs = dirsOf(rec.op)
	c.logAppend(rec)
}

// makeLocal gives birth to an inode under a write lease of its directory. It
// starts with a write lease of its own.
func (c *Client) makeLocal(r *request, o *meta.Make, dir *node, mode uint32) {
	ino := c.newIno(dir)
	if ino == 0 {
		c.changeSync(r, o)
		return
	}
	now := c.stamp(dir)
	n := c.node(ino)
	n.lease = meta.LeaseWrite
	n.attr, n.attrOK = rules.Born(&dir.attr, o, mode, ino, now), true
	switch {
	case n.attr.IsDir():
		c.dirOf(n).listed = listedAll
	case n.attr.Mode&meta.ModeType == meta.ModeSymlink:
		n.target = []byte(o.Target)
	}
	rules.Made(&dir.attr, &n.attr, now)
	dir.dir.set(o.Name, ino, n.attr.Mode)

	op := *o
	op.Ino = ino
	c.pins.table.Set(ino, pin{kernel: 1, replies: 1})
	rec := &record{now: now, op: &op, born: ino}
	c.delegate(rec, dir, n)
	n.born = rec.seq
	if n.attr.IsRegular() {
		c.bornLocal(ino, rec.seq)
	}
	c.names.set(o.Parent, o.Name, ino)
	cache := Cache{Entry: c.giveEntry(dir, o.Name)}
	if c.broken("C2-attr-in-create") {
		cache.Attr = c.giveAttr(n)
	}
	c.answerCached(r, &meta.EntryResult{Attr: n.attr, Created: true}, nil, cache, nil)
}

// linkLocal adds a name to an inode.
func (c *Client) linkLocal(r *request, o *meta.Link, dir, n *node) {
	c.placeData(o.Ino) // who finds the new name finds the content
	now := c.stamp(dir, n)
	rules.Linked(&dir.attr, &n.attr, now)
	dir.dir.set(o.Name, n.ino, n.attr.Mode)
	c.delegate(&record{now: now, op: o}, dir, n)
	c.names.set(o.Parent, o.Name, n.ino)
	c.pinLocal(n.ino)
	c.answerCached(r, &meta.EntryResult{Attr: c.merged(n.attr)}, nil, Cache{Entry: c.giveEntry(dir, o.Name)}, nil)
}

// removeLocal takes a name away: Unlink and Rmdir.
func (c *Client) removeLocal(r *request, body meta.Op, dir, n *node, name string) {
	if n.attr.IsRegular() {
		c.unlinkLocal(n.ino, n.attr.Nlink <= 1)
	}
	now := c.stamp(dir, n)
	rules.Unlinked(&dir.attr, &n.attr, now)
	c.gone(dir, name)
	c.delegate(&record{now: now, op: body}, dir, n)
	c.names.none(dir.ino, name)
	c.answer(r, &meta.AttrResult{Attr: c.merged(n.attr)}, nil)
	n.gone = n.attr.Nlink == 0
}

// gone notes that a name does not exist any more; the kernel drops it itself.
func (c *Client) gone(dir *node, name string) {
	e := dir.dir.at(name)
	e.known, e.ino, e.until = true, 0, 0
	dir.dir.settle(e)
}

// renameLocal moves a name, over what has the new one. nodes: from, to, moved,
// over.
func (c *Client) renameLocal(r *request, m *rules.Move, nodes [4]*node) {
	from, to, moved, over := nodes[0], nodes[1], nodes[2], nodes[3]
	c.placeData(moved.ino) // never seen under its new name without its data
	if over != nil && over.attr.IsRegular() {
		c.unlinkLocal(over.ino, over.attr.Nlink <= 1)
	}
	now := c.stamp(from, to, moved, over)
	m.Apply(now)
	// The kernel's entry moves with its lifetime.
	old := from.dir.at(m.Op.OldName)
	until, gen := old.until, old.gen
	c.gone(from, m.Op.OldName)
	to.dir.set(m.Op.NewName, moved.ino, moved.attr.Mode)
	if e := to.dir.get(m.Op.NewName); e != nil {
		e.until, e.gen = until, gen
		to.dir.until = max(to.dir.until, until)
	}
	if to == from {
		to = nil
	}
	c.delegate(&record{now: now, op: m.Op}, from, to, moved, over)
	if over != nil {
		over.gone = over.attr.Nlink == 0
	}
	res := &meta.AttrResult{Attr: c.merged(moved.attr)}
	c.names.renamed(m.Op, res, nil)
	c.answer(r, res, nil)
}

// setAttrLocal changes attributes. Data written before comes before it in the
// log: published later it would undo times and sizes.
func (c *Client) setAttrLocal(r *request, o *meta.SetAttr, n *node) {
	if o.Set&meta.SetSize != 0 {
		c.beforeTruncate(o.Ino, o.Size)
	} else {
		c.placeData(o.Ino)
	}
	now := c.stamp(n)
	if err := rules.SetAttr(&n.attr, o, now); err != nil {
		c.answer(r, nil, err)
		return
	}
	rec := &record{now: now, op: o}
	if o.Set&meta.SetSize != 0 {
		c.truncateLocal(rec, o.Ino, o.Size)
	}
	c.delegate(rec, n)
	c.answerCached(r, &meta.AttrResult{Attr: c.merged(n.attr)}, nil, Cache{Attr: c.giveAttr(n)}, nil)
}
