package metatest

import (
	"encoding/binary"
	"sort"
	"strings"
	"syscall"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// Backend executes operations of the metadata service.
type Backend interface {
	// Do executes a mutation or read at the server time now.
	Do(op meta.Op, now int64) (meta.Result, error)
	// Forget says that no handle refers to ino any more. Until then an unlinked
	// inode must live.
	Forget(ino meta.Ino)
}

// ContentBackend is a Backend that takes and gives content itself, as a
// client's session does. It is never asked for Write and ReadMap.
type ContentBackend interface {
	Backend
	// WriteFile writes data at off, or with end behind the end of the file.
	WriteFile(cred meta.Cred, ino meta.Ino, off uint64, data []byte, end bool) error
	// ReadFile reads n bytes at off, fewer at the end of the file.
	ReadFile(ino meta.Ino, off, n uint64) ([]byte, error)
}

// Client is a Target over a Backend: what kernel and client would make of the
// operations, without caches. Blocks stay in its memory.
type Client struct {
	b       Backend
	root    meta.Ino
	handles [Handles + 1]meta.Ino
	blocks  map[chunk.BlockID][]byte
	serial  uint64
	salt    uint64
}

// NewClient makes a client of b; salt makes its block ids unlike those of
// other clients of the same servers.
func NewClient(b Backend, root meta.Ino, salt uint64) *Client {
	return &Client{b: b, root: root, blocks: make(map[chunk.BlockID][]byte), salt: salt}
}

// Holds reports whether a handle refers to ino.
func (c *Client) Holds(ino meta.Ino) bool {
	for _, h := range c.handles {
		if h == ino {
			return true
		}
	}
	return false
}

// Do implements Target.
func (c *Client) Do(op Op) Outcome {
	var out Outcome
	out, err := c.do(&op)
	if err != nil {
		return Outcome{Errno: errs.Errno(err)}
	}
	return out
}

func (c *Client) do(op *Op) (Outcome, error) {
	if op.Handle < 0 || op.Handle > Handles {
		return Outcome{Errno: syscall.EBADF}, nil
	}
	switch op.Kind {
	case Close, Write, Read:
		return c.doHandle(op)
	case GetStat, Truncate:
		if op.Handle > 0 {
			return c.doHandle(op)
		}
	case Create, Mkdir, Mknod, Symlink, Unlink, Rmdir, Rename, Link:
		return c.doName(op)
	}
	return c.doInode(op)
}

// split walks to the directory of a path; name is "" for the root itself.
func (c *Client) split(op *Op, path string) (dir meta.Ino, name string, err error) {
	names := strings.Split(path, "/")
	dir = c.root
	for _, n := range names[:len(names)-1] {
		attr, err := c.lookup(op, dir, n)
		if err != nil {
			return 0, "", err
		}
		if dir = attr.Ino; !attr.IsDir() {
			return 0, "", errs.E("walk", errs.NotDir, n, nil)
		}
	}
	return dir, names[len(names)-1], nil
}

func (c *Client) lookup(op *Op, dir meta.Ino, name string) (meta.Attr, error) {
	res, err := c.b.Do(&meta.Lookup{Parent: dir, Name: name}, op.Now)
	if err != nil {
		return meta.Attr{}, err
	}
	return res.(*meta.EntryResult).Attr, nil
}

func (c *Client) resolve(op *Op, path string) (meta.Attr, error) {
	dir, name, err := c.split(op, path)
	if err != nil {
		return meta.Attr{}, err
	}
	if name == "" {
		return c.getAttr(op, dir)
	}
	return c.lookup(op, dir, name)
}

func (c *Client) getAttr(op *Op, ino meta.Ino) (meta.Attr, error) {
	res, err := c.b.Do(&meta.GetAttr{Ino: ino}, op.Now)
	if err != nil {
		return meta.Attr{}, err
	}
	return res.(*meta.AttrResult).Attr, nil
}

// doName executes operations on names. On the root, which has none, they fail
// with EBUSY.
func (c *Client) doName(op *Op) (Outcome, error) {
	if op.Path == "" || (op.Path2 == "" && (op.Kind == Rename || op.Kind == Link)) {
		return Outcome{Errno: syscall.EBUSY}, nil
	}
	cred := meta.Cred{UID: op.UID, GID: op.GID}
	var req meta.Op
	switch op.Kind {
	case Link:
		attr, err := c.resolve(op, op.Path)
		if err != nil {
			return Outcome{}, err
		}
		dir, name, err := c.split(op, op.Path2)
		if err != nil {
			return Outcome{}, err
		}
		req = &meta.Link{Cred: cred, Ino: attr.Ino, Parent: dir, Name: name}
	default:
		dir, name, err := c.split(op, op.Path)
		if err != nil {
			return Outcome{}, err
		}
		switch op.Kind {
		case Unlink:
			req = &meta.Unlink{Cred: cred, Parent: dir, Name: name}
		case Rmdir:
			req = &meta.Rmdir{Cred: cred, Parent: dir, Name: name}
		case Rename:
			dir2, name2, err := c.split(op, op.Path2)
			if err != nil {
				return Outcome{}, err
			}
			req = &meta.Rename{Cred: cred, OldParent: dir, OldName: name, NewParent: dir2, NewName: name2, Flags: op.Flags}
		default:
			req = makeOp(op, cred, dir, name)
		}
	}
	res, err := c.b.Do(req, op.Now)
	if err != nil {
		return Outcome{}, err
	}
	if e, ok := res.(*meta.EntryResult); ok {
		return Outcome{Stat: statOf(&e.Attr)}, nil
	}
	return Outcome{}, nil
}

func makeOp(op *Op, cred meta.Cred, dir meta.Ino, name string) meta.Op {
	m := &meta.Make{Cred: cred, Parent: dir, Name: name, Mode: op.Mode & meta.ModePerm, Excl: op.Excl || op.Kind != Create}
	switch op.Kind {
	case Create:
		m.Mode |= meta.ModeRegular
	case Mkdir:
		m.Mode |= meta.ModeDir
	case Symlink:
		m.Mode, m.Target = meta.ModeSymlink, op.Path2
	case Mknod:
		m.Mode, m.Rdev = op.Mode, op.Rdev
	}
	return m
}

// doInode executes operations on what a path leads to.
func (c *Client) doInode(op *Op) (Outcome, error) {
	attr, err := c.resolve(op, op.Path)
	if err != nil {
		return Outcome{}, err
	}
	cred := meta.Cred{UID: op.UID, GID: op.GID}
	set := &meta.SetAttr{Cred: cred, Ino: attr.Ino}
	switch op.Kind {
	case GetStat:
		return Outcome{Stat: statOf(&attr)}, nil
	case Open:
		if err := regular(&attr); err != nil {
			return Outcome{}, err
		}
		c.close(op.Handle)
		c.handles[op.Handle] = attr.Ino
		return Outcome{}, nil
	case Truncate:
		if err := regular(&attr); err != nil {
			return Outcome{}, err
		}
		set.Set, set.Size = meta.SetSize, op.Size
	case Chmod:
		if attr.Mode&meta.ModeType == meta.ModeSymlink {
			return Outcome{Errno: syscall.EOPNOTSUPP}, nil
		}
		set.Set, set.Mode = meta.SetMode, op.Mode
	case Chown:
		if op.Owner >= 0 {
			set.Set, set.UID = set.Set|meta.SetUID, uint32(op.Owner)
		}
		if op.Group >= 0 {
			set.Set, set.GID = set.Set|meta.SetGID, uint32(op.Group)
		}
	case Utimes:
		set.Set, set.Atime, set.Mtime = meta.SetAtime|meta.SetMtime, op.Atime, op.Mtime
	case Readlink, ReadDir, SetXattr, GetXattr, ListXattr, RemoveXattr:
		return c.doRest(op, attr.Ino, cred)
	default:
		return Outcome{Errno: syscall.ENOSYS}, nil
	}
	res, err := c.b.Do(set, op.Now)
	if err != nil {
		return Outcome{}, err
	}
	return Outcome{Stat: statOf(&res.(*meta.AttrResult).Attr)}, nil
}

// regular applies the harness rule for Open and Truncate.
func regular(attr *meta.Attr) error {
	if attr.IsDir() {
		return errs.E("open", errs.IsDir, "", nil)
	}
	if !attr.IsRegular() {
		return errs.E("open", errs.Invalid, "", nil)
	}
	return nil
}

func (c *Client) doRest(op *Op, ino meta.Ino, cred meta.Cred) (Outcome, error) {
	var req meta.Op
	switch op.Kind {
	case ReadDir:
		return c.list(op, ino)
	case Readlink:
		req = &meta.Readlink{Ino: ino}
	case SetXattr:
		req = &meta.SetXattr{Cred: cred, Ino: ino, Name: op.Name, Value: op.Data(), Flags: op.Flags}
	case GetXattr:
		req = &meta.GetXattr{Ino: ino, Name: op.Name}
	case ListXattr:
		req = &meta.ListXattr{Ino: ino}
	case RemoveXattr:
		req = &meta.RemoveXattr{Cred: cred, Ino: ino, Name: op.Name}
	}
	res, err := c.b.Do(req, op.Now)
	if err != nil {
		return Outcome{}, err
	}
	switch r := res.(type) {
	case *meta.BytesResult:
		return Outcome{Data: r.Data}, nil
	case *meta.NamesResult:
		return Outcome{Names: r.Names}, nil
	}
	return Outcome{}, nil
}

// list reads a directory in small pages, with and without attributes.
func (c *Client) list(op *Op, ino meta.Ino) (Outcome, error) {
	var out Outcome
	for cookie, eof := uint64(0), false; !eof; {
		res, err := c.b.Do(&meta.ReadDir{Dir: ino, Cookie: cookie, Limit: 3 + uint32(op.Seed%5), Plus: op.Now%2 == 0}, op.Now)
		if err != nil {
			return Outcome{}, err
		}
		page := res.(*meta.DirResult)
		for _, e := range page.Entries {
			out.Names = append(out.Names, e.Name)
			cookie = e.Cookie
		}
		eof = page.EOF || len(page.Entries) == 0
	}
	sort.Strings(out.Names)
	return out, nil
}

func (c *Client) close(h int) {
	ino := c.handles[h]
	c.handles[h] = 0
	if ino != 0 && !c.Holds(ino) {
		c.b.Forget(ino)
	}
}

// doHandle executes operations on open files.
func (c *Client) doHandle(op *Op) (Outcome, error) {
	ino := c.handles[op.Handle]
	if op.Handle == 0 || ino == 0 {
		return Outcome{Errno: syscall.EBADF}, nil
	}
	switch op.Kind {
	case Close:
		c.close(op.Handle)
		return Outcome{}, nil
	case GetStat:
		attr, err := c.getAttr(op, ino)
		return Outcome{Stat: statOf(&attr)}, err
	case Read:
		if cb, ok := c.b.(ContentBackend); ok {
			data, err := cb.ReadFile(ino, op.Off, op.Size)
			return Outcome{Data: data}, err
		}
		return c.read(op, ino)
	}
	var req meta.Op
	cred := meta.Cred{UID: op.UID, GID: op.GID}
	if cb, ok := c.b.(ContentBackend); ok && op.Kind == Write {
		if err := cb.WriteFile(cred, ino, op.Off, op.Data(), op.Append); err != nil {
			return Outcome{}, err
		}
		attr, err := c.getAttr(op, ino)
		return Outcome{Stat: statOf(&attr)}, err
	}
	if op.Kind == Truncate {
		req = &meta.SetAttr{Cred: cred, Ino: ino, Set: meta.SetSize, Size: op.Size}
	} else {
		req = c.writeOp(op, ino, cred)
	}
	res, err := c.b.Do(req, op.Now)
	if err != nil {
		return Outcome{}, err
	}
	return Outcome{Stat: statOf(&res.(*meta.AttrResult).Attr)}, nil
}

// writeOp makes extents of various kinds out of one write.
func (c *Client) writeOp(op *Op, ino meta.Ino, cred meta.Cred) meta.Op {
	w := &meta.Write{Cred: cred, Ino: ino, Append: op.Append}
	data := op.Data()
	off := op.Off
	if op.Append {
		off = 0
	}
	for n := 0; len(data) > 0; n++ {
		size := min(len(data), meta.MaxInline)
		e := meta.Extent{Off: off, Kind: meta.ExtentInline}
		if (op.Seed+uint64(n))%3 > 0 {
			size = min(len(data), max(len(data)/50, 1+int(op.Seed%9000)))
			e.Kind, e.Block = meta.ExtentBlock, c.put(w, data[:size], uint32(op.Seed%7))
			e.BlockOff = uint32(op.Seed % 7)
		} else {
			e.Inline = data[:size]
		}
		e.Len = uint32(size)
		w.Extents = append(w.Extents, e)
		data = data[size:]
		off += uint64(size)
	}
	return w
}

// put stores a block whose content begins pad bytes before data.
func (c *Client) put(w *meta.Write, data []byte, pad uint32) (id chunk.BlockID) {
	c.serial++
	binary.BigEndian.PutUint64(id[:], c.salt)
	binary.BigEndian.PutUint64(id[8:], c.serial)
	c.blocks[id] = append(make([]byte, pad), data...)
	b := meta.NewBlock{ID: id, PG: uint32(c.serial % 8), Epoch: 1, Len: uint32(len(data)) + pad, Acked: []chunk.ServerID{1, 2}}
	if c.serial%5 == 0 {
		b.Missing = []chunk.ServerID{3}
	}
	w.Blocks = append(w.Blocks, b)
	return id
}

// read reads through the extent map.
func (c *Client) read(op *Op, ino meta.Ino) (Outcome, error) {
	var buf []byte
	for at, end := op.Off, op.Off+op.Size; at < end; {
		res, err := c.b.Do(&meta.ReadMap{Ino: ino, Off: at, Len: end - at, Limit: 1 + uint32(op.Size%5)}, op.Now)
		if err != nil {
			return Outcome{}, err
		}
		m := res.(*meta.MapResult)
		if end = min(end, m.Attr.Size); at >= end {
			break
		}
		if buf == nil {
			buf = make([]byte, end-op.Off)
		}
		if m.Covered <= at {
			return Outcome{}, errs.E("read", errs.Other, "a map without progress", nil)
		}
		if err := c.fill(buf, op.Off, m); err != nil {
			return Outcome{}, err
		}
		at = m.Covered
	}
	return Outcome{Data: buf}, nil
}

// fill copies the extents of m into buf, which begins at base.
func (c *Client) fill(buf []byte, base uint64, m *meta.MapResult) error {
	named := make(map[chunk.BlockID]bool)
	for _, b := range m.Blocks {
		named[b.ID] = true
	}
	for _, e := range m.Extents {
		src := e.Inline
		if e.Kind == meta.ExtentBlock {
			b, ok := c.blocks[e.Block]
			if !ok || !named[e.Block] || int(e.BlockOff+e.Len) > len(b) {
				return errs.E("read", errs.Corrupt, "extent without its block", nil)
			}
			src = b[e.BlockOff : e.BlockOff+e.Len]
		}
		for i := range src {
			if p := e.Off + uint64(i); p >= base && p-base < uint64(len(buf)) {
				buf[p-base] = src[i]
			}
		}
	}
	return nil
}

func statOf(a *meta.Attr) *Stat {
	return &Stat{
		Mode: a.Mode, Nlink: a.Nlink, UID: a.UID, GID: a.GID, Rdev: a.Rdev, Size: a.Size, Bytes: a.Bytes,
		Atime: a.Atime, Mtime: a.Mtime, Ctime: a.Ctime,
	}
}
