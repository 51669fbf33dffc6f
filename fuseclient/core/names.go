package core

import (
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// maxNames bounds the memory of recent names.
const maxNames = 1024

// names remembers which inode a recently resolved name stood for, so that a
// rename can publish its file's data first. The kernel resolves both names
// right before it renames, so what matters is nearly always here; where it is
// not, rename publishes everything. Another mount may make an entry here
// wrong, but then the file renamed is not one whose writer expects an order.
type names struct {
	byName map[nameKey]meta.Ino
	ring   []nameKey // slots are reused in turn
	next   int
}

type nameKey struct {
	parent meta.Ino
	name   string
}

func (n *names) init() { n.byName = make(map[nameKey]meta.Ino, maxNames) }

func (n *names) set(parent meta.Ino, name string, ino meta.Ino) {
	k := nameKey{parent, name}
	if _, known := n.byName[k]; !known {
		if len(n.ring) < maxNames {
			n.ring = append(n.ring, k)
		} else {
			delete(n.byName, n.ring[n.next])
			n.ring[n.next] = k
			n.next = (n.next + 1) % maxNames
		}
	}
	n.byName[k] = ino
}

// none notes that a name stands for nothing; the entry stays, as knowledge.
func (n *names) none(parent meta.Ino, name string) { n.set(parent, name, 0) }

// learn takes what the outcome of an operation says about names.
func (n *names) learn(body meta.Op, res meta.Result, err error) {
	switch o := body.(type) {
	case *meta.Lookup:
		if errs.Is(err, errs.NotExist) {
			n.none(o.Parent, o.Name)
		}
		n.entry(o.Parent, o.Name, res)
	case *meta.Make:
		n.entry(o.Parent, o.Name, res)
	case *meta.Link:
		n.entry(o.Parent, o.Name, res)
	case *meta.Unlink:
		if err == nil {
			n.none(o.Parent, o.Name)
		}
	case *meta.Rmdir:
		if err == nil {
			n.none(o.Parent, o.Name)
		}
	case *meta.Rename:
		n.renamed(o, res, err)
	}
}

func (n *names) entry(parent meta.Ino, name string, res meta.Result) {
	if e, ok := res.(*meta.EntryResult); ok {
		n.set(parent, name, e.Attr.Ino)
	}
}

func (n *names) renamed(o *meta.Rename, res meta.Result, err error) {
	a, ok := res.(*meta.AttrResult)
	if err != nil || !ok {
		return
	}
	was, known := n.byName[nameKey{o.NewParent, o.NewName}]
	if o.Flags&meta.RenameExchange == 0 {
		was, known = 0, true
	}
	if known {
		n.set(o.OldParent, o.OldName, was)
	} else {
		delete(n.byName, nameKey{o.OldParent, o.OldName})
	}
	n.set(o.NewParent, o.NewName, a.Attr.Ino)
}

// rename publishes the moved file's data before it sends the rename: who finds
// the file under its new name finds its content.
func (c *Client) rename(r *request, o *meta.Rename) {
	moved := []nameKey{{o.OldParent, o.OldName}}
	if o.Flags&meta.RenameExchange != 0 {
		moved = append(moved, nameKey{o.NewParent, o.NewName})
	}
	var inos []meta.Ino
	for _, k := range moved {
		ino, known := c.names.byName[k]
		if !known {
			inos = c.dirtyInos()
			break
		}
		if ino != 0 {
			inos = append(inos, ino)
		}
	}
	c.afterPublishAll(inos, r, func(err error) { c.callUnless(err, r, o) })
}
