package kernel

import (
	"slices"
	"sort"
	"strconv"
	"strings"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// The part of memFS that changes and lists directories.

func (f *memFS) attach(d *memInode, name string, n *memInode) {
	d.children[name] = n.attr.Ino
	k := dirKey{cookieOf(name), name}
	i, _ := slices.BinarySearchFunc(d.order, k, compareKeys)
	d.order = slices.Insert(d.order, i, k)
	if n.attr.IsDir() {
		d.attr.Nlink++
		n.parent = d.attr.Ino
	}
	f.touch(d)
}

func compareKeys(a, b dirKey) int {
	switch {
	case a.cookie < b.cookie:
		return -1
	case a.cookie > b.cookie:
		return 1
	}
	return strings.Compare(a.name, b.name)
}

func (f *memFS) detach(d *memInode, name string) {
	n := f.inodes[d.children[name]]
	delete(d.children, name)
	i, ok := slices.BinarySearchFunc(d.order, dirKey{cookieOf(name), name}, compareKeys)
	if ok {
		d.order = slices.Delete(d.order, i, i+1)
	}
	if n.attr.IsDir() {
		d.attr.Nlink--
	}
	f.touch(d)
}

func (f *memFS) make(x *meta.Make) (any, error) {
	d, err := f.dir(x.Parent)
	if err != nil {
		return nil, err
	}
	if len(x.Name) > meta.MaxName {
		return nil, memErr(errs.NameTooLong)
	}
	if ino, ok := d.children[x.Name]; ok {
		n := f.inodes[ino]
		if x.Excl || !n.attr.IsRegular() {
			return nil, memErr(errs.Exist)
		}
		return f.entry(n, false), nil
	}
	f.next++
	n := f.inode(f.next, x.Mode, x.Cred)
	if d.attr.Mode&meta.ModeSetgid != 0 {
		n.attr.GID = d.attr.GID
		if n.attr.IsDir() {
			n.attr.Mode |= meta.ModeSetgid
		}
	}
	n.attr.Rdev, n.target = x.Rdev, x.Target
	if x.Target != "" {
		n.attr.Size = uint64(len(x.Target))
	}
	f.inodes[f.next] = n
	f.attach(d, x.Name, n)
	return f.entry(n, true), nil
}

func (f *memFS) link(x *meta.Link) (any, error) {
	d, err := f.dir(x.Parent)
	if err != nil {
		return nil, err
	}
	n, err := f.get(x.Ino)
	if err != nil {
		return nil, err
	}
	if _, ok := d.children[x.Name]; ok {
		return nil, memErr(errs.Exist)
	}
	n.attr.Nlink++
	f.attach(d, x.Name, n)
	return f.entry(n, false), nil
}

// drop takes a link away from n; the inode stays while it is pinned.
func (f *memFS) drop(n *memInode) {
	f.clock++
	n.attr.Ctime = f.clock
	if n.attr.IsDir() {
		n.attr.Nlink = 0
	} else {
		n.attr.Nlink--
	}
	f.reap(n.attr.Ino)
}

func (f *memFS) reap(ino meta.Ino) {
	if n := f.inodes[ino]; n != nil && n.attr.Nlink == 0 && f.pins[ino] == 0 {
		delete(f.inodes, ino)
	}
}

func (f *memFS) remove(parent meta.Ino, name string, dir bool) (any, error) {
	d, err := f.dir(parent)
	if err != nil {
		return nil, err
	}
	ino, ok := d.children[name]
	if !ok {
		return nil, memErr(errs.NotExist)
	}
	n := f.inodes[ino]
	switch {
	case dir && !n.attr.IsDir():
		return nil, memErr(errs.NotDir)
	case !dir && n.attr.IsDir():
		return nil, memErr(errs.IsDir)
	case dir && len(n.children) > 0:
		return nil, memErr(errs.NotEmpty)
	}
	f.detach(d, name)
	f.drop(n)
	return &meta.AttrResult{Attr: n.attr}, nil
}

func (f *memFS) rename(x *meta.Rename) (any, error) {
	from, err := f.dir(x.OldParent)
	if err != nil {
		return nil, err
	}
	to, err := f.dir(x.NewParent)
	if err != nil {
		return nil, err
	}
	ino, ok := from.children[x.OldName]
	if !ok {
		return nil, memErr(errs.NotExist)
	}
	n := f.inodes[ino]
	old, exists := to.children[x.NewName]
	switch {
	case x.Flags&meta.RenameExchange != 0 && !exists:
		return nil, memErr(errs.NotExist)
	case x.Flags&meta.RenameNoReplace != 0 && exists:
		return nil, memErr(errs.Exist)
	case exists && old == ino:
		return &meta.AttrResult{Attr: n.attr}, nil
	}
	if exists {
		o := f.inodes[old]
		if o.attr.IsDir() && len(o.children) > 0 && x.Flags&meta.RenameExchange == 0 {
			return nil, memErr(errs.NotEmpty)
		}
		f.detach(to, x.NewName)
		if x.Flags&meta.RenameExchange == 0 {
			f.drop(o)
		} else {
			defer f.attach(from, x.OldName, o)
		}
	}
	f.detach(from, x.OldName)
	f.attach(to, x.NewName, n)
	return &meta.AttrResult{Attr: n.attr}, nil
}

func (f *memFS) readDir(x *meta.ReadDir) (any, error) {
	d, err := f.dir(x.Dir)
	if err != nil {
		return nil, err
	}
	r := &meta.DirResult{Plus: x.Plus}
	i := sort.Search(len(d.order), func(i int) bool { return d.order[i].cookie > x.Cookie })
	for ; i < len(d.order); i++ {
		k := d.order[i]
		if len(r.Entries) >= int(x.Limit) && r.Entries[len(r.Entries)-1].Cookie != k.cookie {
			return r, nil
		}
		n := f.inodes[d.children[k.name]]
		e := meta.DirEntry{Name: k.name, Cookie: k.cookie}
		if x.Plus {
			e.Attr = n.attr
			f.pins[n.attr.Ino]++
		} else {
			e.Attr = meta.Attr{Ino: n.attr.Ino, Mode: n.attr.Mode & meta.ModeType}
		}
		r.Entries = append(r.Entries, e)
	}
	r.EOF = true
	return r, nil
}

// fill makes n files in the root at once.
func (f *memFS) fill(prefix string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	root := f.inodes[meta.RootIno]
	for i := range n {
		f.next++
		name := prefix + strconv.Itoa(i)
		f.inodes[f.next] = f.inode(f.next, meta.ModeRegular|0o644, meta.Cred{})
		root.children[name] = f.next
		root.order = append(root.order, dirKey{cookieOf(name), name})
	}
	slices.SortFunc(root.order, compareKeys)
}
