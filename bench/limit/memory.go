// Package limit is a filesystem that keeps everything in memory and answers at
// once, behind the FUSE transport of this project: what a mount could reach if
// the filesystem itself cost nothing. Figures are measured beside it in the same
// run, so that they are fractions of what FUSE allows on the machine.
//
// It keeps the kernel's caches for an hour and knows one mount only. It is no
// example of how to do anything else.
package limit

import (
	"slices"
	"sync"
	"time"

	"agentdrive/fuseclient/core"
	"agentdrive/fuseclient/kernel"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// cached is the lifetime of everything.
var cached = core.Cache{Entry: core.Time(time.Hour), Attr: core.Time(time.Hour)}

// inode is a file or directory.
type inode struct {
	attr   meta.Attr
	data   []byte
	target []byte
	names  map[string]*inode
	sorted []meta.DirEntry // of a directory that was listed and not changed since
	xattrs map[string][]byte
}

// Memory is the filesystem. Safe for concurrent use.
type Memory struct {
	mu     sync.RWMutex // guards everything below
	inodes map[meta.Ino]*inode
	last   meta.Ino
	clock  int64
}

var _ kernel.Backend = (*Memory)(nil)

// NewMemory makes an empty filesystem that belongs to the caller's user.
func NewMemory(uid, gid uint32) *Memory {
	m := &Memory{inodes: map[meta.Ino]*inode{}, last: meta.RootIno}
	m.inodes[meta.RootIno] = m.born(meta.RootIno, meta.ModeDir|0o755, meta.Cred{UID: uid, GID: gid})
	return m
}

func (m *Memory) born(ino meta.Ino, mode uint32, c meta.Cred) *inode {
	now := m.now()
	n := &inode{attr: meta.Attr{Ino: ino, Mode: mode, Nlink: 1, UID: c.UID, GID: c.GID, Atime: now, Mtime: now, Ctime: now, Btime: now}}
	if n.attr.IsDir() {
		n.attr.Nlink, n.names = 2, map[string]*inode{}
	}
	return n
}

func (m *Memory) now() int64 {
	m.clock = max(m.clock+1, time.Now().UnixNano())
	return m.clock
}

// Attach implements kernel.Backend: nothing is ever taken back.
func (*Memory) Attach(kernel.Notifier) {}

// OpenFile implements kernel.Backend.
func (*Memory) OpenFile(meta.Ino) bool { return true }

// CloseFile implements kernel.Backend.
func (*Memory) CloseFile(meta.Ino) {}

// Forget implements kernel.Backend: what was removed is gone already, and what
// is open while it is removed stays reachable through its answerer.
func (m *Memory) Forget(ino meta.Ino, _ uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.inodes[ino]; n != nil && n.attr.Nlink == 0 {
		delete(m.inodes, ino)
	}
}

// ReadData implements kernel.Backend.
func (*Memory) ReadData(_ *kernel.Call, plan *core.FilePlan, dst []byte) (int, error) {
	n := 0
	for _, p := range plan.Pieces {
		n += copy(dst[n:], p.Data)
	}
	return n, nil
}

// Do implements kernel.Backend.
func (m *Memory) Do(call *kernel.Call, op any) core.Answer {
	a := core.Answer{Cache: cached}
	switch op.(type) {
	case *meta.Lookup, *meta.GetAttr, *meta.ReadDir, *meta.Readlink, *meta.GetXattr, *meta.ListXattr, *meta.StatFS, core.ReadFile:
		if dir, ok := op.(*meta.ReadDir); ok {
			m.sort(dir.Dir)
		}
		m.mu.RLock()
		defer m.mu.RUnlock()
		a.Result, a.Err = m.look(op)
		if d, ok := a.Result.(*meta.DirResult); ok && d.Plus {
			a.Lives = slices.Repeat([]core.Cache{cached}, len(d.Entries))
		}
	default:
		m.mu.Lock()
		defer m.mu.Unlock()
		a.Result, a.Err = m.change(op)
	}
	call.Answered(&a, true)
	return a
}

func fail(k errs.Kind) error { return errs.E("limit", k, "", nil) }

func (m *Memory) look(op any) (any, error) {
	switch x := op.(type) {
	case *meta.Lookup:
		d := m.inodes[x.Parent]
		if d == nil {
			return nil, fail(errs.Stale)
		}
		if n := d.names[x.Name]; n != nil {
			return &meta.EntryResult{Attr: n.attr}, nil
		}
		return nil, fail(errs.NotExist)
	case *meta.GetAttr:
		if n := m.inodes[x.Ino]; n != nil {
			return &meta.AttrResult{Attr: n.attr}, nil
		}
	case *meta.ReadDir:
		if d := m.inodes[x.Dir]; d != nil {
			return page(d.sorted, x), nil
		}
	case *meta.Readlink:
		if n := m.inodes[x.Ino]; n != nil {
			return &meta.BytesResult{Data: n.target}, nil
		}
	case *meta.GetXattr:
		if n := m.inodes[x.Ino]; n != nil {
			if v, ok := n.xattrs[x.Name]; ok {
				return &meta.BytesResult{Data: v}, nil
			}
			return nil, fail(errs.NoAttr)
		}
	case *meta.ListXattr:
		if n := m.inodes[x.Ino]; n != nil {
			r := &meta.NamesResult{}
			for k := range n.xattrs {
				r.Names = append(r.Names, k)
			}
			slices.Sort(r.Names)
			return r, nil
		}
	case *meta.StatFS:
		return &meta.StatFSResult{Files: uint64(len(m.inodes)), FreeBytes: 1 << 40}, nil
	case core.ReadFile:
		if n := m.inodes[x.Ino]; n != nil {
			lo := min(x.Off, uint64(len(n.data)))
			hi := min(x.Off+uint64(x.Len), uint64(len(n.data)))
			plan := &core.FilePlan{Attr: n.attr, Keep: true}
			if lo < hi {
				plan.Pieces = []core.Piece{{Len: uint32(hi - lo), Data: slices.Clone(n.data[lo:hi])}}
			}
			return plan, nil
		}
	}
	return nil, fail(errs.Stale)
}

// sort makes the listing of a directory that changed.
func (m *Memory) sort(dir meta.Ino) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.inodes[dir]
	if d == nil || d.sorted != nil {
		return
	}
	d.sorted = make([]meta.DirEntry, 0, len(d.names))
	for name, n := range d.names {
		d.sorted = append(d.sorted, meta.DirEntry{Name: name, Cookie: meta.NameCookie(name), Attr: n.attr})
	}
	slices.SortFunc(d.sorted, func(a, b meta.DirEntry) int {
		if a.Cookie < b.Cookie {
			return -1
		}
		return 1
	})
}

func page(all []meta.DirEntry, x *meta.ReadDir) *meta.DirResult {
	i, _ := slices.BinarySearchFunc(all, x.Cookie+1, func(e meta.DirEntry, c uint64) int {
		if e.Cookie < c {
			return -1
		}
		return 1
	})
	if x.Cookie == 0 {
		i = 0
	}
	end := min(len(all), i+int(max(x.Limit, 1)))
	return &meta.DirResult{Entries: slices.Clone(all[i:end]), EOF: end == len(all), Plus: x.Plus}
}
