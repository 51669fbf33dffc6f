package sim

import (
	"fmt"
	"slices"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// fsModel is a filesystem of maps and byte slices: what the operations that
// the simulator uses mean, for a caller who is root. Numbers of inodes come
// from what the server chose; the model checks that they are fresh.
type fsModel struct {
	nodes map[meta.Ino]*fsNode
	used  map[meta.Ino]bool
	block func(e *meta.Extent) []byte

	changes changes // what the last operation changed
}

type fsNode struct {
	attr   meta.Attr
	parent meta.Ino            // of a directory
	names  map[string]meta.Ino // of a directory
	target string
	xattrs map[string]string
	data   []byte
}

func newFSModel(now int64) *fsModel {
	root := &fsNode{names: map[string]meta.Ino{}, parent: meta.RootIno, attr: meta.Attr{
		Ino: meta.RootIno, Mode: meta.ModeDir | 0o755, Nlink: 2, Atime: now, Mtime: now, Ctime: now, Btime: now,
	}}
	return &fsModel{nodes: map[meta.Ino]*fsNode{meta.RootIno: root}, used: map[meta.Ino]bool{meta.RootIno: true}}
}

// fsOp is one operation on its way.
type fsOp struct {
	*fsModel
	now     int64
	touched map[*fsNode]bool
	fresh   meta.Ino // that the server gave to a new inode
}

func (o *fsOp) note(kind byte, ino meta.Ino, name, value string) {
	key := histKey{kind, ino, name}
	for i := range o.changes {
		if o.changes[i].key == key { // nobody sees what is between
			o.changes[i].value = value
			return
		}
	}
	o.changes = append(o.changes, change{key, value})
}

func (o *fsOp) later(old int64) int64 {
	if old < o.now {
		return o.now
	}
	return old + 1
}

func (o *fsOp) touch(n *fsNode) {
	if !o.touched[n] {
		o.touched[n] = true
		n.attr.Ctime = o.later(n.attr.Ctime)
	}
}

func (o *fsOp) modify(n *fsNode) {
	n.attr.Mtime = o.later(n.attr.Mtime)
	n.attr.DataVersion++
	o.touch(n)
}

// check executes op and compares the outcome with what the server gave.
func (m *fsModel) check(op meta.Op, now int64, got meta.Outcome) error {
	o := &fsOp{fsModel: m, now: now, touched: map[*fsNode]bool{}}
	m.changes = nil
	if res, ok := got.Result.(*meta.EntryResult); ok {
		o.fresh = res.Attr.Ino
	}
	want, kind := o.run(op)
	if kind != 0 || got.Err != nil {
		if got.Err == nil || got.Err.Kind != kind {
			return fmt.Errorf("%T %+v: got %s, the model says error %v", op, op, outcomeText(got), kind)
		}
		return nil
	}
	if a, b := plain(want), plain(got.Result); a != b {
		return fmt.Errorf("%T %+v: got %s, the model says %s", op, op, b, a)
	}
	for n := range o.touched { // any order: each is a key of its own
		o.note('a', n.attr.Ino, "", attrText(&n.attr))
	}
	return nil
}

// plain renders a result without what the model does not keep.
func plain(r meta.Result) string {
	switch x := r.(type) {
	case *meta.EntryResult:
		y := *x
		y.Attr.Bytes = 0
		return fmt.Sprintf("%+v", y)
	case *meta.AttrResult:
		y := *x
		y.Attr.Bytes = 0
		return fmt.Sprintf("%+v", y)
	}
	return fmt.Sprintf("%T", r)
}

// execute executes a record of a client's log.
func (m *fsModel) execute(op meta.Op, now int64) (meta.Result, error) {
	o := &fsOp{fsModel: m, now: now, touched: map[*fsNode]bool{}}
	m.changes = nil
	if x, ok := op.(*meta.Make); ok {
		o.fresh = x.Ino
	}
	res, kind := o.run(op)
	if kind != 0 {
		return nil, errs.E("model", kind, "", nil)
	}
	if e, ok := res.(*meta.EntryResult); ok && e.Created && e.Attr.Ino == 0 {
		return nil, errs.E("model", errs.Exist, "the number of the new inode was used before", nil)
	}
	for n := range o.touched { // any order: each is a key of its own
		o.note('a', n.attr.Ino, "", attrText(&n.attr))
	}
	return res, nil
}

func (o *fsOp) run(op meta.Op) (meta.Result, errs.Kind) {
	switch x := op.(type) {
	case *meta.Make:
		return o.make(x)
	case *meta.Link:
		return o.link(x)
	case *meta.Unlink:
		return o.remove(x.Parent, x.Name, false)
	case *meta.Rmdir:
		return o.remove(x.Parent, x.Name, true)
	case *meta.Rename:
		return o.rename(x)
	case *meta.SetAttr:
		return o.setAttr(x)
	case *meta.SetXattr:
		return o.setXattr(x)
	case *meta.RemoveXattr:
		n := o.nodes[x.Ino]
		if n == nil {
			return nil, errs.Stale
		}
		if _, ok := n.xattrs[x.Name]; !ok {
			if !n.attr.IsRegular() && !n.attr.IsDir() {
				return nil, errs.Permission
			}
			return nil, errs.NoAttr
		}
		delete(n.xattrs, x.Name)
		n.attr.Xattrs = len(n.xattrs) > 0
		o.note('x', x.Ino, x.Name, absent)
		o.touch(n)
		return &meta.EmptyResult{}, 0
	case *meta.Write:
		return o.write(x)
	case *meta.LateAck:
		return &meta.EmptyResult{}, 0
	}
	return nil, errs.Invalid
}

func (o *fsOp) dir(ino meta.Ino) (*fsNode, errs.Kind) {
	n := o.nodes[ino]
	switch {
	case n == nil:
		return nil, errs.Stale
	case !n.attr.IsDir():
		return nil, errs.NotDir
	}
	return n, 0
}

func (o *fsOp) make(x *meta.Make) (meta.Result, errs.Kind) {
	dir, kind := o.dir(x.Parent)
	if kind != 0 {
		return nil, kind
	}
	if ino, ok := dir.names[x.Name]; ok {
		n := o.nodes[ino]
		if !x.Excl && x.Mode&meta.ModeType == meta.ModeRegular {
			if n.attr.IsRegular() {
				return &meta.EntryResult{Attr: n.attr}, 0
			}
			if n.attr.IsDir() {
				return nil, errs.IsDir
			}
		}
		return nil, errs.Exist
	}
	if dir.attr.Nlink == 0 {
		return nil, errs.NotExist
	}
	n := &fsNode{target: x.Target, parent: x.Parent, xattrs: map[string]string{}, attr: meta.Attr{
		Ino: o.fresh, Mode: x.Mode, Nlink: 1, Size: uint64(len(x.Target)),
		Atime: o.now, Mtime: o.now, Ctime: o.now, Btime: o.now,
	}}
	switch x.Mode & meta.ModeType {
	case meta.ModeDir:
		n.attr.Nlink, n.names = 2, map[string]meta.Ino{}
		dir.attr.Nlink++
	case meta.ModeSymlink:
		n.attr.Mode = meta.ModeSymlink | 0o777
	}
	if o.fresh == 0 || o.used[o.fresh] {
		n.attr.Ino = 0 // whatever the server said is wrong
		return &meta.EntryResult{Attr: n.attr, Created: true}, 0
	}
	o.used[o.fresh], o.nodes[o.fresh] = true, n
	o.touched[n] = true
	o.enter(dir, x.Name, o.fresh)
	o.modify(dir)
	return &meta.EntryResult{Attr: n.attr, Created: true}, 0
}

func (o *fsOp) enter(dir *fsNode, name string, ino meta.Ino) {
	dir.names[name] = ino
	o.note('n', dir.attr.Ino, name, inoText(ino))
	dir.attr.Size = uint64(len(dir.names))
}

func (o *fsOp) leave(dir *fsNode, name string) {
	delete(dir.names, name)
	o.note('n', dir.attr.Ino, name, absent)
	dir.attr.Size = uint64(len(dir.names))
}

func (o *fsOp) link(x *meta.Link) (meta.Result, errs.Kind) {
	n := o.nodes[x.Ino]
	if n == nil {
		return nil, errs.Stale
	}
	dir, kind := o.dir(x.Parent)
	if kind != 0 {
		return nil, kind
	}
	_, exists := dir.names[x.Name]
	switch {
	case exists:
		return nil, errs.Exist
	case n.attr.IsDir():
		return nil, errs.Permission
	case n.attr.Nlink == 0, dir.attr.Nlink == 0:
		return nil, errs.NotExist
	}
	n.attr.Nlink++
	o.enter(dir, x.Name, x.Ino)
	o.touch(n)
	o.modify(dir)
	return &meta.EntryResult{Attr: n.attr}, 0
}

func (o *fsOp) remove(parent meta.Ino, name string, rmdir bool) (meta.Result, errs.Kind) {
	dir, kind := o.dir(parent)
	if kind != 0 {
		return nil, kind
	}
	ino, ok := dir.names[name]
	if !ok {
		return nil, errs.NotExist
	}
	n := o.nodes[ino]
	switch {
	case !rmdir && n.attr.IsDir():
		return nil, errs.IsDir
	case rmdir && !n.attr.IsDir():
		return nil, errs.NotDir
	case rmdir && len(n.names) > 0:
		return nil, errs.NotEmpty
	}
	o.unlinked(n, dir)
	o.leave(dir, name)
	o.modify(dir)
	return &meta.AttrResult{Attr: n.attr}, 0
}

// unlinked takes one name from n.
func (o *fsOp) unlinked(n, dir *fsNode) {
	o.touch(n)
	if n.attr.IsDir() {
		dir.attr.Nlink--
		n.attr.Nlink = 0
		return
	}
	n.attr.Nlink--
}

// below reports whether dir is root or lies under it.
func (o *fsOp) below(root, dir meta.Ino) bool {
	for dir != root {
		n := o.nodes[dir]
		if dir == meta.RootIno || n == nil || n.attr.Nlink == 0 {
			return false
		}
		dir = n.parent
	}
	return true
}

func (o *fsOp) rename(x *meta.Rename) (meta.Result, errs.Kind) {
	from, kind := o.dir(x.OldParent)
	if kind != 0 {
		return nil, kind
	}
	ino, ok := from.names[x.OldName]
	if !ok {
		return nil, errs.NotExist
	}
	n := o.nodes[ino]
	to, kind := o.dir(x.NewParent)
	if kind != 0 {
		return nil, kind
	}
	swap := x.Flags&meta.RenameExchange != 0
	overIno, exists := to.names[x.NewName]
	over := o.nodes[overIno]
	switch {
	case exists && x.Flags&meta.RenameNoReplace != 0:
		return nil, errs.Exist
	case !exists && (swap || to.attr.Nlink == 0):
		return nil, errs.NotExist
	}
	if from != to {
		if n.attr.IsDir() && o.below(ino, x.NewParent) {
			return nil, errs.Invalid
		}
		if exists && over.attr.IsDir() && o.below(overIno, x.OldParent) {
			if swap {
				return nil, errs.Invalid
			}
			return nil, errs.NotEmpty
		}
	}
	if over == n {
		return &meta.AttrResult{Attr: n.attr}, 0
	}
	if exists && !swap {
		switch {
		case n.attr.IsDir() && !over.attr.IsDir():
			return nil, errs.NotDir
		case !n.attr.IsDir() && over.attr.IsDir():
			return nil, errs.IsDir
		case len(over.names) > 0:
			return nil, errs.NotEmpty
		}
		o.unlinked(over, to)
		o.leave(to, x.NewName)
	}
	if swap {
		o.enter(from, x.OldName, overIno)
		o.moved(over, to, from)
	} else {
		o.leave(from, x.OldName)
	}
	o.enter(to, x.NewName, ino)
	o.moved(n, from, to)
	o.modify(from)
	if to != from {
		o.modify(to)
	}
	return &meta.AttrResult{Attr: n.attr}, 0
}

func (o *fsOp) moved(n, from, to *fsNode) {
	o.touch(n)
	if from != to && n.attr.IsDir() {
		from.attr.Nlink--
		to.attr.Nlink++
		n.parent = to.attr.Ino
	}
}

func (o *fsOp) setAttr(x *meta.SetAttr) (meta.Result, errs.Kind) {
	n := o.nodes[x.Ino]
	if n == nil {
		return nil, errs.Stale
	}
	if x.Set&meta.SetSize != 0 {
		switch {
		case n.attr.IsDir():
			return nil, errs.IsDir
		case !n.attr.IsRegular():
			return nil, errs.Invalid
		}
		n.resize(x.Size)
		o.modify(n)
	}
	if x.Set&meta.SetMode != 0 {
		n.attr.Mode = n.attr.Mode&meta.ModeType | x.Mode&meta.ModePerm
	}
	o.touch(n)
	return &meta.AttrResult{Attr: n.attr}, 0
}

func (n *fsNode) resize(size uint64) {
	if uint64(len(n.data)) > size {
		n.data = n.data[:size:size]
	}
	n.data = append(n.data, make([]byte, size-uint64(len(n.data)))...)
	n.attr.Size = size
}

func (o *fsOp) setXattr(x *meta.SetXattr) (meta.Result, errs.Kind) {
	n := o.nodes[x.Ino]
	if n == nil {
		return nil, errs.Stale
	}
	if !n.attr.IsRegular() && !n.attr.IsDir() {
		return nil, errs.Permission
	}
	_, exists := n.xattrs[x.Name]
	switch {
	case exists && x.Flags&meta.XattrCreate != 0:
		return nil, errs.Exist
	case !exists && x.Flags&meta.XattrReplace != 0:
		return nil, errs.NoAttr
	}
	if n.xattrs == nil {
		n.xattrs = map[string]string{}
	}
	n.xattrs[x.Name] = string(x.Value)
	n.attr.Xattrs = true
	o.note('x', x.Ino, x.Name, fmt.Sprintf("%x", x.Value))
	o.touch(n)
	return &meta.EmptyResult{}, 0
}

func (o *fsOp) write(x *meta.Write) (meta.Result, errs.Kind) {
	n := o.nodes[x.Ino]
	switch {
	case n == nil:
		return nil, errs.Stale
	case n.attr.IsDir():
		return nil, errs.IsDir
	case !n.attr.IsRegular():
		return nil, errs.Invalid
	}
	var base uint64
	if x.Append {
		base = n.attr.Size
	}
	first := uint64(0)
	for i := range x.Extents {
		e := &x.Extents[i]
		off := base + e.Off
		if i == 0 || off < first {
			first = off
		}
		if end := off + uint64(e.Len); end > n.attr.Size {
			n.resize(end)
		}
		data := e.Inline
		if e.Kind == meta.ExtentBlock {
			data = o.block(e)
		}
		n.data = slices.Clone(n.data)
		copy(n.data[off:], data)
	}
	o.modify(n)
	return &meta.AttrResult{Attr: n.attr, Off: first}, 0
}
