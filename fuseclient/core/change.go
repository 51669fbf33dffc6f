package core

import (
	"slices"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/rules"
)

// touched is what a synchronous change changes: what is known of it is given
// up before it leaves and learned again from its answer.
type touched struct {
	names []nameKey
	inos  []meta.Ino
}

// touchedBy lists what an operation names. Inodes that it changes by name are
// found in the table, if anything is known of them there.
func (c *Client) touchedBy(body meta.Op, inos []meta.Ino) (t touched) {
	t.inos = append(t.inos, inos...)
	name := func(dir meta.Ino, name string) {
		t.names = append(t.names, nameKey{dir, name})
		t.inos = append(t.inos, dir)
		// A hole keeps an older inode; what the kernel was told since, by a
		// lookup without a grant of the directory, is in names only.
		a, b := c.named(nameKey{dir, name}), c.names.byName[nameKey{dir, name}]
		if a != 0 {
			t.inos = append(t.inos, a)
		}
		if b != 0 && b != a {
			t.inos = append(t.inos, b)
		}
	}
	switch o := body.(type) {
	case *meta.Make:
		name(o.Parent, o.Name)
	case *meta.Link:
		name(o.Parent, o.Name)
		t.inos = append(t.inos, o.Ino)
	case *meta.Unlink:
		name(o.Parent, o.Name)
	case *meta.Rmdir:
		name(o.Parent, o.Name)
	case *meta.Rename:
		name(o.OldParent, o.OldName)
		name(o.NewParent, o.NewName)
	case *meta.SetAttr:
		t.inos = append(t.inos, o.Ino)
	case *meta.SetXattr:
		t.inos = append(t.inos, o.Ino)
	case *meta.RemoveXattr:
		t.inos = append(t.inos, o.Ino)
	case *meta.Write:
		t.inos = append(t.inos, o.Ino)
	}
	return t
}

// syncChange sends a change to the servers, after the log so far. Before it
// leaves, the client gives up what it and the kernel know of everything that
// changes: otherwise another process of this mount could see the old state
// after another mount saw the new one. inos are inodes that the operation
// changes besides those it names.
func (c *Client) syncChange(o *op, inos ...meta.Ino) {
	if c.cfg.NoLeases {
		c.submit(o)
		return
	}
	t := c.touchedBy(o.body, inos)
	o.touched = &t
	done := o.done
	o.done = func(res meta.Result, err error) {
		c.changeDone(o, res, err)
		done(res, err)
	}
	for _, ino := range t.inos {
		if n := c.nodeOf(ino); n != nil && n.lease == meta.LeaseWrite {
			c.placeData(ino)
		}
	}
	items := c.selfRecall(o, &t)
	o.after = c.log.last
	c.log.want = max(c.log.want, o.after)
	if len(items) == 0 {
		c.submit(o)
		return
	}
	c.ops.telling++
	c.invalidate(items, func() {
		c.ops.telling--
		if !o.dropped {
			o.after = min(o.after, c.log.last) // the session may be another one by now
			c.submit(o)
		}
	})
}

// selfRecall gives up what is known of what an operation changes, and returns
// what the kernel must forget (D4).
func (c *Client) selfRecall(o *op, t *touched) (items []Inval) {
	broken := c.broken("D4-no-self-recall")
	for _, k := range t.names {
		n := c.node(k.parent)
		if !broken && c.cfg.IncEpoch {
			items = c.invalNames(items, n, []string{k.name})
		}
		e := c.dirOf(n).at(k.name)
		e.mutating++
		if !broken {
			e.known = false
		}
	}
	content := changesContent(o.body)
	for _, ino := range t.inos {
		n := c.node(ino)
		if n.lease == meta.LeaseWrite {
			c.placeData(ino) // the answer's attributes shall include it
		}
		n.mutating++
		if !broken {
			items = c.invalAttr(items, n)
			n.attrOK = false
		}
		if content {
			c.dropMap(ino)
		}
	}
	return items
}

func changesContent(body meta.Op) bool {
	switch o := body.(type) {
	case *meta.Write:
		return true
	case *meta.SetAttr:
		return o.Set&meta.SetSize != 0
	}
	return false
}

// unblock ends the blocks of a change that is over or was never sent.
func (c *Client) unblock(o *op) {
	t := o.touched
	if t == nil {
		return
	}
	o.touched = nil
	for _, k := range t.names {
		if n := c.nodeOf(k.parent); n != nil && n.dir != nil {
			if e := n.dir.get(k.name); e != nil {
				e.mutating = max(e.mutating-1, 0)
				n.dir.settle(e)
			}
		}
	}
	for _, ino := range t.inos {
		if n := c.nodeOf(ino); n != nil {
			n.mutating = max(n.mutating-1, 0)
			c.tidy(n)
			c.settlePin(ino) // the kernel may have forgotten it meanwhile
		}
	}
}

// changeDone learns from the answer to an own change.
func (c *Client) changeDone(o *op, res meta.Result, err error) {
	if o.touched == nil {
		return
	}
	for _, k := range o.touched.names {
		if n := c.nodeOf(k.parent); n != nil {
			c.touchNode(n)
			n.renamed = c.ops.last
		}
	}
	for _, ino := range o.touched.inos {
		if n := c.nodeOf(ino); n != nil {
			n.changed = c.ops.last
		}
	}
	t := o.touched
	c.unblock(o)
	if err != nil {
		return
	}
	c.surprised(t, res)
	switch b := o.body.(type) {
	case *meta.Make:
		c.learnEntry(o, b.Parent, b.Name, res)
	case *meta.Link:
		c.learnEntry(o, b.Parent, b.Name, res)
	case *meta.Unlink:
		c.learnName(o, b.Parent, b.Name, 0, 0)
		c.learnAttr(o, res)
		c.learnGone(res)
	case *meta.Rmdir:
		c.learnName(o, b.Parent, b.Name, 0, 0)
		c.learnGone(res)
	case *meta.Rename:
		a, ok := res.(*meta.AttrResult)
		if !ok {
			return
		}
		// Of two names of one inode both stay: with several links the old name
		// may be there still.
		moved := b.OldParent != b.NewParent || b.OldName != b.NewName
		if b.Flags&meta.RenameExchange == 0 && moved && (a.Attr.Nlink == 1 || a.Attr.IsDir()) {
			c.learnName(o, b.OldParent, b.OldName, 0, 0)
		}
		c.learnName(o, b.NewParent, b.NewName, a.Attr.Ino, a.Attr.Mode)
		c.learnAttr(o, res)
	default:
		c.learnAttr(o, res)
	}
}

// surprised handles the inode that a name really stood for: if it is not the
// one that was expected, what is known of it was not given up before.
func (c *Client) surprised(t *touched, res meta.Result) {
	a, ok := res.(*meta.AttrResult)
	if ok && !slices.Contains(t.inos, a.Attr.Ino) {
		c.outdated(a.Attr.Ino)
	}
}

// outdated drops attributes that turn out to be old.
func (c *Client) outdated(ino meta.Ino) {
	n := c.nodeOf(ino)
	if n == nil {
		return
	}
	if n.lease == meta.LeaseWrite {
		c.placeData(ino) // what only this client knows is in the log then, and comes back with the answer behind it
	}
	n.attrOK = false
	n.changed = c.ops.last
	if items := c.invalAttr(nil, n); len(items) > 0 {
		c.invalidate(items, nil)
	}
}

// learnName takes what the answer to an own change says of a name.
func (c *Client) learnName(o *op, dir meta.Ino, name string, ino meta.Ino, typ uint32) {
	n := c.grantOf(o, dir)
	if n == nil || n.dir == nil && ino == 0 {
		return
	}
	e := c.dirOf(n).at(name)
	if e.mutating > 0 || e.blocked > 0 {
		n.dir.settle(e)
		return
	}
	n.dir.set(name, ino, typ)
}

func (c *Client) learnEntry(o *op, dir meta.Ino, name string, res meta.Result) {
	if e, ok := res.(*meta.EntryResult); ok {
		c.learnName(o, dir, name, e.Attr.Ino, e.Attr.Mode)
		if n := c.grantOf(o, e.Attr.Ino); n != nil {
			c.fillAttr(o, n, &e.Attr)
			if e.Created && e.Attr.IsDir() && n.dir == nil {
				c.dirOf(n).listed = listedAll // a new directory has no names
			}
		}
	}
}

// learnGone looks whether a removal took the last name.
func (c *Client) learnGone(res meta.Result) {
	if a, ok := res.(*meta.AttrResult); ok && a.Attr.Nlink == 0 {
		if n := c.nodeOf(a.Attr.Ino); n != nil {
			c.lastNameGone(n)
		}
	}
}

func (c *Client) learnAttr(o *op, res meta.Result) {
	if a, ok := res.(*meta.AttrResult); ok {
		if n := c.grantOf(o, a.Attr.Ino); n != nil {
			c.fillAttr(o, n, &a.Attr)
		}
	}
}

// fillAttr takes attributes that an answer granted, unless better ones are
// known.
func (c *Client) fillAttr(o *op, n *node, a *meta.Attr) {
	if n.seq > c.log.acked && o.after < n.seq {
		return // it may lack what was done locally before
	}
	if o.body.Kind().IsRead() && o.id <= n.changed || n.attrOK || n.mutating > 0 || n.recalls > 0 || n.lease == meta.LeaseNone || c.unsaid(n.ino) {
		return
	}
	n.attr, n.attrOK, n.guess = *a, true, false
	c.raiseFence(*a) // maps that are still on their way may be older
	if a.Nlink == 0 {
		c.lastNameGone(n)
	}
}

// learnRead takes the answer to a read into the table.
func (c *Client) learnRead(o *op, res meta.Result, err error) {
	if c.cfg.NoLeases {
		return
	}
	switch b := o.body.(type) {
	case *meta.Lookup:
		n := c.grantOf(o, b.Parent)
		if n != nil && o.id <= n.renamed {
			n = nil
		}
		if errs.Is(err, errs.NotExist) {
			if n != nil && rules.CheckName(b.Name) == nil {
				c.dirOf(n).learn(b.Name, 0, 0)
			}
			return
		}
		e, ok := res.(*meta.EntryResult)
		if !ok {
			return
		}
		if n != nil {
			c.dirOf(n).learn(b.Name, e.Attr.Ino, e.Attr.Mode)
		}
		if m := c.grantOf(o, e.Attr.Ino); m != nil {
			c.fillAttr(o, m, &e.Attr)
		}
	case *meta.GetAttr:
		c.learnAttr(o, res)
	case *meta.ReadDir:
		if d, ok := res.(*meta.DirResult); ok {
			c.learnPage(o, b, d)
		}
	case *meta.Readlink:
		if t, ok := res.(*meta.BytesResult); ok {
			if n := c.grantOf(o, b.Ino); n != nil && n.mutating == 0 {
				n.target = t.Data
			}
		}
	case *meta.ReadMap:
		if m, ok := res.(*meta.MapResult); ok {
			if n := c.grantOf(o, m.Attr.Ino); n != nil {
				c.fillAttr(o, n, &m.Attr)
			}
		}
	}
}

func (c *Client) learnPage(o *op, b *meta.ReadDir, d *meta.DirResult) {
	if n := c.grantOf(o, b.Dir); n != nil && o.id > n.renamed {
		to := uint64(listedAll)
		if !d.EOF {
			to = b.Cookie
			if k := len(d.Entries); k > 0 {
				to = d.Entries[k-1].Cookie
			}
		}
		c.dirOf(n).page(b.Cookie, to, d.Entries)
	}
	if !d.Plus {
		return
	}
	// Grants name many inodes here: one pass over them, not one for each.
	for _, g := range o.grants {
		if n := c.nodeOf(g.Ino); n != nil && o.id > n.ignore && g.Ino != b.Dir {
			n.granted = o.id
		}
	}
	for i := range d.Entries {
		a := &d.Entries[i].Attr
		if n := c.nodeOf(a.Ino); n != nil && n.granted == o.id && n.lease > meta.LeaseNone {
			c.fillAttr(o, n, a)
		}
	}
}
