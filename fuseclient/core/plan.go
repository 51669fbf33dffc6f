package core

import (
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/rules"
)

// maxPrefetch bounds the leases on siblings that are asked for on the way.
const maxPrefetch = meta.MaxWants - 4

// plan says how a change can be made locally: what is missing, or what to do.
type plan struct {
	body   meta.Op
	sync   bool         // the servers must do it
	wants  []meta.Grant // leases to ask for first
	extra  []meta.Grant // leases worth asking for on the way
	lookup *meta.Lookup // a name to resolve first
	err    error        // the answer, by the rules
	run    func(r *request)
}

// need adds a write lease to what is missing, unless it is there.
func (p *plan) need(c *Client, ino meta.Ino) *node {
	n := c.nodeOf(ino)
	if !c.owned(n) {
		p.wants = append(p.wants, meta.Grant{Ino: ino, Kind: meta.LeaseWrite})
		return nil
	}
	return n
}

// name finds what a name in an owned directory stands for; ok: it is known.
func (p *plan) name(c *Client, dir *node, name string) (ino meta.Ino, ok bool) {
	ino, _, known := dir.dir.find(name)
	if !known || c.nameChanging(dir, name) {
		if e := dir.dir.get(name); e != nil && (e.mutating > 0 || e.blocked > 0) {
			p.sync = true
		}
		p.lookup = &meta.Lookup{Parent: dir.ino, Name: name}
		return 0, false
	}
	return ino, true
}

// planLocal looks at what a change needs.
func (c *Client) planLocal(body meta.Op) *plan {
	p := &plan{body: body}
	switch o := body.(type) {
	case *meta.Make:
		c.planMake(p, o)
	case *meta.Link:
		c.planLink(p, o)
	case *meta.Unlink:
		c.planRemove(p, o.Parent, o.Name)
	case *meta.Rmdir:
		c.planRemove(p, o.Parent, o.Name)
	case *meta.Rename:
		c.planRename(p, o)
	case *meta.SetAttr:
		if n := p.need(c, o.Ino); n != nil {
			p.err = rules.CheckSetAttr(&n.attr, o)
			p.run = func(r *request) { c.setAttrLocal(r, o, n) }
		}
	default:
		p.sync = true
	}
	return p
}

func (c *Client) planMake(p *plan, o *meta.Make) {
	mode, err := rules.CheckMake(o)
	if p.err = err; err != nil {
		return
	}
	dir := p.need(c, o.Parent)
	if dir == nil {
		return
	}
	if p.err = rules.CheckDir(&dir.attr); p.err != nil {
		return
	}
	ino, ok := p.name(c, dir, o.Name)
	switch {
	case !ok:
	case ino != 0:
		p.sync = true // it exists: the servers say with what
	default:
		if p.err = rules.CheckLive(&dir.attr); p.err == nil {
			p.run = func(r *request) { c.makeLocal(r, o, dir, mode) }
		}
	}
}

func (c *Client) planLink(p *plan, o *meta.Link) {
	if p.err = rules.CheckName(o.Name); p.err != nil {
		return
	}
	dir, n := p.need(c, o.Parent), p.need(c, o.Ino)
	if dir == nil || n == nil {
		return
	}
	if p.err = rules.CheckDir(&dir.attr); p.err != nil {
		return
	}
	ino, ok := p.name(c, dir, o.Name)
	if !ok {
		return
	}
	if pn, _ := c.pins.table.Get(o.Ino); pn.replies == 0 {
		p.sync = true // the answer gives a reference that the servers do not know of
		return
	}
	p.err = rules.CheckLink(o, &dir.attr, &n.attr, ino != 0)
	p.run = func(r *request) { c.linkLocal(r, o, dir, n) }
}

// planRemove plans Unlink and Rmdir.
func (c *Client) planRemove(p *plan, parent meta.Ino, name string) {
	if p.err = rules.CheckName(name); p.err != nil {
		return
	}
	dir := p.need(c, parent)
	if d := c.nodeOf(parent); d != nil && c.readable(d) && d.dir != nil {
		if ino, _, known := d.dir.find(name); known && ino != 0 {
			p.need(c, ino)
			if _, unlink := p.body.(*meta.Unlink); unlink && len(p.wants) > 0 && p.wants[len(p.wants)-1].Ino == ino {
				p.extra = c.siblings(d, name)
			}
		}
	}
	if dir == nil || len(p.wants) > 0 {
		return
	}
	if p.err = rules.CheckDir(&dir.attr); p.err != nil {
		return
	}
	ino, ok := p.name(c, dir, name)
	switch {
	case !ok:
		return
	case ino == 0:
		p.err = errNoEntry
		return
	}
	n := c.nodeOf(ino)
	switch o := p.body.(type) {
	case *meta.Unlink:
		p.err = rules.CheckUnlink(o, &dir.attr, &n.attr)
	case *meta.Rmdir:
		p.err = rules.CheckRmdir(o, &dir.attr, &n.attr)
	}
	p.run = func(r *request) { c.removeLocal(r, p.body, dir, n, name) }
}

// siblings lists known files beside the one that is being removed, from its
// place in the listing on: who removes one of a directory removes more.
func (c *Client) siblings(dir *node, name string) (list []meta.Grant) {
	from := dir.dir.get(name)
	if from == nil || dir.dir.listed != listedAll {
		return nil
	}
	dir.dir.names.Ascend(from, func(e *entry) bool {
		if !e.known || e.ino == 0 || e.typ == meta.ModeDir || e == from {
			return true
		}
		n := c.nodeOf(e.ino)
		if n == nil || !n.attrOK || n.attr.Nlink != 1 || n.lease == meta.LeaseWrite || n.recalls > 0 || n.mutating > 0 || n.refused > c.now {
			return true
		}
		list = append(list, meta.Grant{Ino: e.ino, Kind: meta.LeaseWrite})
		return len(list) < maxPrefetch
	})
	return list
}

// planRename plans a Rename: not an exchange, and of a directory only within
// one.
func (c *Client) planRename(p *plan, o *meta.Rename) {
	if o.Flags&meta.RenameExchange != 0 {
		p.sync = true
		return
	}
	if p.err = rules.CheckRename(o); p.err != nil {
		return
	}
	if p.err = rules.CheckName(o.OldName); p.err != nil {
		return
	}
	from := p.need(c, o.OldParent)
	to := from
	if o.NewParent != o.OldParent {
		to = p.need(c, o.NewParent)
	}
	p.needNamed(c, o.OldParent, o.OldName)
	p.needNamed(c, o.NewParent, o.NewName)
	if len(p.wants) > 0 || from == nil || to == nil {
		return
	}
	if p.err = rules.CheckDir(&from.attr); p.err == nil {
		p.err = rules.CheckDir(&to.attr)
	}
	if p.err != nil {
		return
	}
	old, ok := p.name(c, from, o.OldName)
	if !ok {
		return
	}
	if old == 0 {
		p.err = errNoEntry
		return
	}
	taken, ok := p.name(c, to, o.NewName)
	if !ok {
		return
	}
	c.planMove(p, o, [3]*node{from, to, c.nodeOf(old)}, taken)
}

// needNamed asks for the inode behind a name, if it is known.
func (p *plan) needNamed(c *Client, dir meta.Ino, name string) {
	if d := c.nodeOf(dir); d != nil && c.readable(d) && d.dir != nil {
		if ino, _, known := d.dir.find(name); known && ino != 0 {
			p.need(c, ino)
		}
	}
}

// planMove ends planRename: n are the directories and what moves.
func (c *Client) planMove(p *plan, o *meta.Rename, n [3]*node, taken meta.Ino) {
	from, to, moved := n[0], n[1], n[2]
	if moved.attr.IsDir() && from != to {
		p.sync = true // loops are the servers' to see
		return
	}
	if p.err = rules.CheckNew(o, &to.attr, taken != 0); p.err != nil {
		return
	}
	m := &rules.Move{Op: o, From: &from.attr, To: &to.attr, Moved: &moved.attr}
	var over *node
	if taken != 0 {
		over = c.nodeOf(taken)
		m.Over = &over.attr
		if over.attr.IsDir() && from != to {
			p.sync = true
			return
		}
	}
	if m.Nothing() {
		p.run = func(r *request) { c.answer(r, &meta.AttrResult{Attr: c.merged(moved.attr)}, nil) }
		return
	}
	p.err = m.Check()
	p.run = func(r *request) { c.renameLocal(r, m, [4]*node{from, to, moved, over}) }
}
