package limit

import (
	"agentdrive/fuseclient/core"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

func (m *Memory) change(op any) (any, error) {
	switch x := op.(type) {
	case *meta.Make:
		return m.make(x)
	case *meta.Link:
		return m.link(x)
	case *meta.Unlink:
		return m.remove(x.Parent, x.Name)
	case *meta.Rmdir:
		return m.remove(x.Parent, x.Name)
	case *meta.Rename:
		return m.rename(x)
	case *meta.SetAttr:
		return m.setAttr(x)
	case *meta.SetXattr:
		if n := m.inodes[x.Ino]; n != nil {
			if n.xattrs == nil {
				n.xattrs = map[string][]byte{}
			}
			n.xattrs[x.Name] = x.Value
			return &meta.EmptyResult{}, nil
		}
	case *meta.RemoveXattr:
		if n := m.inodes[x.Ino]; n != nil {
			delete(n.xattrs, x.Name)
			return &meta.EmptyResult{}, nil
		}
	case core.WriteFile:
		return m.write(x)
	case core.Flush, core.Fsync, core.SyncAll, core.Shutdown:
		return &meta.EmptyResult{}, nil
	default:
		return nil, fail(errs.Unsupported)
	}
	return nil, fail(errs.Stale)
}

// touched notes that a directory's names changed.
func (m *Memory) touched(d *inode) int64 {
	now := m.now()
	d.attr.Mtime, d.attr.Ctime, d.attr.Size = now, now, uint64(len(d.names))
	d.sorted = nil
	return now
}

func (m *Memory) make(x *meta.Make) (any, error) {
	d := m.inodes[x.Parent]
	if d == nil {
		return nil, fail(errs.Stale)
	}
	if n := d.names[x.Name]; n != nil {
		if x.Excl || !n.attr.IsRegular() {
			return nil, fail(errs.Exist)
		}
		return &meta.EntryResult{Attr: n.attr}, nil
	}
	mode := x.Mode
	if mode&meta.ModeType == 0 {
		mode |= meta.ModeRegular
	}
	m.last++
	n := m.born(m.last, mode, x.Cred)
	n.attr.Rdev, n.target = x.Rdev, []byte(x.Target)
	if len(n.target) > 0 {
		n.attr.Size = uint64(len(n.target))
	}
	m.inodes[m.last] = n
	d.names[x.Name] = n
	if n.attr.IsDir() {
		d.attr.Nlink++
	}
	m.touched(d)
	return &meta.EntryResult{Attr: n.attr, Created: true}, nil
}

func (m *Memory) link(x *meta.Link) (any, error) {
	d, n := m.inodes[x.Parent], m.inodes[x.Ino]
	if d == nil || n == nil {
		return nil, fail(errs.Stale)
	}
	if d.names[x.Name] != nil {
		return nil, fail(errs.Exist)
	}
	d.names[x.Name] = n
	n.attr.Nlink++
	n.attr.Ctime = m.touched(d)
	return &meta.EntryResult{Attr: n.attr}, nil
}

func (m *Memory) remove(parent meta.Ino, name string) (any, error) {
	d := m.inodes[parent]
	if d == nil {
		return nil, fail(errs.Stale)
	}
	n := d.names[name]
	switch {
	case n == nil:
		return nil, fail(errs.NotExist)
	case n.attr.IsDir() && len(n.names) > 0:
		return nil, fail(errs.NotEmpty)
	}
	delete(d.names, name)
	m.unnamed(d, n)
	return &meta.AttrResult{Attr: n.attr}, nil
}

// unnamed takes one link off n, whose name in d is gone.
func (m *Memory) unnamed(d, n *inode) {
	n.attr.Ctime = m.touched(d)
	if n.attr.IsDir() {
		d.attr.Nlink--
		n.attr.Nlink = 0
		return
	}
	n.attr.Nlink--
}

func (m *Memory) rename(x *meta.Rename) (any, error) {
	from, to := m.inodes[x.OldParent], m.inodes[x.NewParent]
	if from == nil || to == nil {
		return nil, fail(errs.Stale)
	}
	n, old := from.names[x.OldName], to.names[x.NewName]
	switch {
	case n == nil, x.Flags&meta.RenameExchange != 0 && old == nil:
		return nil, fail(errs.NotExist)
	case old != nil && x.Flags&meta.RenameNoReplace != 0:
		return nil, fail(errs.Exist)
	case old == n:
		return &meta.AttrResult{Attr: n.attr}, nil
	case x.Flags&meta.RenameExchange != 0:
		from.names[x.OldName], to.names[x.NewName] = old, n
	default:
		if old != nil {
			if old.attr.IsDir() && len(old.names) > 0 {
				return nil, fail(errs.NotEmpty)
			}
			m.unnamed(to, old)
		}
		delete(from.names, x.OldName)
		to.names[x.NewName] = n
	}
	if n.attr.IsDir() && from != to && x.Flags&meta.RenameExchange == 0 {
		from.attr.Nlink--
		to.attr.Nlink++
	}
	m.touched(from)
	n.attr.Ctime = m.touched(to)
	return &meta.AttrResult{Attr: n.attr}, nil
}

func (m *Memory) setAttr(x *meta.SetAttr) (any, error) {
	n := m.inodes[x.Ino]
	if n == nil {
		return nil, fail(errs.Stale)
	}
	a, now := &n.attr, m.now()
	a.Ctime = now
	set := func(bit uint32, p *int64, v int64) {
		if x.Set&bit != 0 {
			*p = v
		}
	}
	set(meta.SetAtime, &a.Atime, x.Atime)
	set(meta.SetMtime, &a.Mtime, x.Mtime)
	set(meta.SetAtimeNow, &a.Atime, now)
	set(meta.SetMtimeNow, &a.Mtime, now)
	if x.Set&meta.SetMode != 0 {
		a.Mode = a.Mode&meta.ModeType | x.Mode&meta.ModePerm
	}
	if x.Set&meta.SetUID != 0 {
		a.UID = x.UID
	}
	if x.Set&meta.SetGID != 0 {
		a.GID = x.GID
	}
	if x.Set&meta.SetSize != 0 {
		n.resize(x.Size)
		a.Mtime = now
	}
	return &meta.AttrResult{Attr: n.attr}, nil
}

func (n *inode) resize(size uint64) {
	if size <= uint64(len(n.data)) {
		clear(n.data[size:])
		n.data = n.data[:size]
	} else {
		n.data = append(n.data, make([]byte, size-uint64(len(n.data)))...)
	}
	n.attr.Size, n.attr.Bytes = size, size
}

func (m *Memory) write(x core.WriteFile) (any, error) {
	n := m.inodes[x.Ino]
	if n == nil {
		return nil, fail(errs.Stale)
	}
	off := x.Off
	if x.Append {
		off = uint64(len(n.data))
	}
	if end := off + uint64(len(x.Data)); end > uint64(len(n.data)) {
		n.resize(end)
	}
	copy(n.data[off:], x.Data)
	n.attr.Mtime = m.now()
	n.attr.Ctime = n.attr.Mtime
	return &meta.AttrResult{Attr: n.attr, Off: off}, nil
}
