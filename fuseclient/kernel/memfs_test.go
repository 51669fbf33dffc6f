package kernel

import (
	"fmt"
	"hash/fnv"
	"os"
	"slices"
	"sort"
	"sync"
	"time"

	"agentdrive/fuseclient/core"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// memFS is a Backend that keeps a small file system in memory. It counts pins
// and open handles like a real one and can hold requests back.
type memFS struct {
	mu       sync.Mutex // guards everything below
	inodes   map[meta.Ino]*memInode
	next     meta.Ino
	clock    int64
	pins     map[meta.Ino]int64
	opens    map[meta.Ino]int64
	counts   map[string]int    // requests by name of their type
	hanging  func(op any) bool // requests to hold before they are executed
	late     func(op any) bool // answers to hold before they are given
	held     chan any          // each op held back is announced here
	stubborn bool              // held requests take no notice of cancel
	canceled int               // held requests that were cancelled
	release  chan struct{}
	badPins  []string
	notifier Notifier
	lives    core.Cache // given with every answer
	keep     bool       // reads and opens may keep pages
	locks    *memLocks
}

type memInode struct {
	attr     meta.Attr
	data     []byte
	target   string
	xattrs   map[string][]byte
	children map[string]meta.Ino
	order    []dirKey // of a directory, ascending
	parent   meta.Ino
}

type dirKey struct {
	cookie uint64
	name   string
}

func cookieOf(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	return max(h.Sum64()>>1, 3)
}

func newMemFS() *memFS {
	f := &memFS{
		inodes: map[meta.Ino]*memInode{}, next: 1 << meta.SlotBits, clock: time.Now().UnixNano(),
		pins: map[meta.Ino]int64{}, opens: map[meta.Ino]int64{}, counts: map[string]int{},
		held: make(chan any, 4096), release: make(chan struct{}), locks: newMemLocks(),
	}
	f.inodes[meta.RootIno] = f.inode(meta.RootIno, meta.ModeDir|0o755,
		meta.Cred{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())})
	return f
}

func (f *memFS) inode(ino meta.Ino, mode uint32, c meta.Cred) *memInode {
	f.clock++
	n := &memInode{attr: meta.Attr{Ino: ino, Mode: mode, Nlink: 1, UID: c.UID, GID: c.GID,
		Atime: f.clock, Mtime: f.clock, Ctime: f.clock, Btime: f.clock}}
	if n.attr.IsDir() {
		n.children, n.attr.Nlink = map[string]meta.Ino{}, 2
	}
	return n
}

// hang makes requests for which match is true wait until letGo or cancel.
func (f *memFS) hang(match func(op any) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hanging, f.release = match, make(chan struct{})
}

// delay makes answers wait, once decided, until letGo.
func (f *memFS) delay(match func(op any) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.late, f.release = match, make(chan struct{})
}

func (f *memFS) letGo() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hanging != nil || f.late != nil {
		f.hanging, f.late = nil, nil
		close(f.release)
	}
}

func memErr(k errs.Kind) error { return errs.E("memfs", k, "", nil) }

// Do holds a request back before it is executed, so that a reply is late by
// what the Backend waits for; see late for replies that are late after it.
func (f *memFS) Do(call *Call, op any) core.Answer {
	if f.hold(call, op, true) {
		return core.Answer{Err: memErr(errs.Interrupted)}
	}
	if l, ok := op.(*meta.SetLock); ok {
		return f.locks.set(call, l)
	}
	f.mu.Lock()
	r, err := f.exec(op)
	a := core.Answer{Result: r, Err: err}
	if err == nil || errs.Is(err, errs.NotExist) {
		a.Cache = f.lives
	}
	if d, ok := r.(*meta.DirResult); ok && d.Plus {
		a.Lives = slices.Repeat([]core.Cache{f.lives}, len(d.Entries))
	}
	call.Answered(&a, f.keep)
	f.mu.Unlock()
	f.hold(nil, op, false)
	return a
}

// hold keeps a request back, before or after it is executed, if the test wants
// it. It reports whether call was cancelled meanwhile.
func (f *memFS) hold(call *Call, op any, before bool) (canceled bool) {
	f.mu.Lock()
	match := f.late
	if before {
		match = f.hanging
	}
	hold, release := match != nil && match(op), f.release
	f.mu.Unlock()
	if !hold {
		return false
	}
	call.Waits()
	f.held <- op
	cancel := call.Cancel()
	if f.stubborn {
		cancel = nil
	}
	select {
	case <-release:
		return false
	case <-cancel:
		f.mu.Lock()
		f.canceled++
		f.mu.Unlock()
		return true
	}
}

// Attach implements Backend.
func (f *memFS) Attach(n Notifier) { f.notifier = n }

// invalidate changes the file system and tells the kernel, in one step as the
// core does. The channel is closed when the kernel believes nothing of it.
func (f *memFS) invalidate(change func(), items ...core.Inval) <-chan struct{} {
	done := make(chan struct{})
	f.mu.Lock()
	defer f.mu.Unlock()
	if change != nil {
		change()
	}
	f.notifier.Invalidate(items, func() { close(done) })
	return done
}

func (f *memFS) exec(op any) (any, error) {
	switch x := op.(type) {
	case *meta.Lookup:
		f.counts["lookup "+x.Name]++
		d, err := f.dir(x.Parent)
		if err != nil {
			return nil, err
		}
		if len(x.Name) > meta.MaxName {
			return nil, memErr(errs.NameTooLong)
		}
		ino, ok := d.children[x.Name]
		if !ok {
			return nil, memErr(errs.NotExist)
		}
		return f.entry(f.inodes[ino], false), nil
	case *meta.GetAttr:
		f.counts["getattr"]++
		f.counts[fmt.Sprint("getattr ", x.Ino)]++
		return f.attrOf(x.Ino)
	case *meta.GetLock:
		return f.locks.get(x), nil
	case *meta.SetAttr:
		return f.setAttr(x)
	case *meta.Make:
		return f.make(x)
	case *meta.Link:
		return f.link(x)
	case *meta.Unlink:
		return f.remove(x.Parent, x.Name, false)
	case *meta.Rmdir:
		return f.remove(x.Parent, x.Name, true)
	case *meta.Rename:
		return f.rename(x)
	case *meta.ReadDir:
		return f.readDir(x)
	case *meta.StatFS:
		return &meta.StatFSResult{Bytes: 1 << 20, Files: uint64(len(f.inodes)), FreeBytes: 1 << 30}, nil
	case core.Flush:
		f.counts["flush"]++
		return &meta.EmptyResult{}, nil
	case core.Fsync:
		f.counts["fsync"]++
		return &meta.EmptyResult{}, nil
	}
	return f.execFile(op)
}

func (f *memFS) execFile(op any) (any, error) {
	switch x := op.(type) {
	case *meta.Readlink:
		n, err := f.get(x.Ino)
		if err != nil {
			return nil, err
		}
		return &meta.BytesResult{Data: []byte(n.target)}, nil
	case core.ReadFile:
		return f.read(x)
	case core.WriteFile:
		return f.write(x)
	case *meta.GetXattr:
		n, err := f.get(x.Ino)
		if err != nil {
			return nil, err
		}
		v, ok := n.xattrs[x.Name]
		if !ok {
			return nil, memErr(errs.NoAttr)
		}
		return &meta.BytesResult{Data: v}, nil
	case *meta.ListXattr:
		n, err := f.get(x.Ino)
		if err != nil {
			return nil, err
		}
		r := &meta.NamesResult{}
		for k := range n.xattrs {
			r.Names = append(r.Names, k)
		}
		sort.Strings(r.Names)
		return r, nil
	case *meta.SetXattr:
		return f.setXattr(x)
	case *meta.RemoveXattr:
		n, err := f.get(x.Ino)
		if err != nil {
			return nil, err
		}
		if _, ok := n.xattrs[x.Name]; !ok {
			return nil, memErr(errs.NoAttr)
		}
		delete(n.xattrs, x.Name)
		return &meta.EmptyResult{}, nil
	}
	return nil, memErr(errs.Unsupported)
}

func (f *memFS) get(ino meta.Ino) (*memInode, error) {
	if n := f.inodes[ino]; n != nil {
		return n, nil
	}
	return nil, memErr(errs.Stale)
}

func (f *memFS) dir(ino meta.Ino) (*memInode, error) {
	n, err := f.get(ino)
	if err == nil && !n.attr.IsDir() {
		err = memErr(errs.NotDir)
	}
	return n, err
}

func (f *memFS) entry(n *memInode, created bool) *meta.EntryResult {
	f.pins[n.attr.Ino]++
	return &meta.EntryResult{Attr: n.attr, Created: created}
}

func (f *memFS) attrOf(ino meta.Ino) (any, error) {
	n, err := f.get(ino)
	if err != nil {
		return nil, err
	}
	return &meta.AttrResult{Attr: n.attr}, nil
}

func (f *memFS) touch(n *memInode) {
	f.clock = max(f.clock+1, time.Now().UnixNano())
	n.attr.Mtime, n.attr.Ctime = f.clock, f.clock
	n.attr.DataVersion++
	if !n.attr.IsDir() {
		n.attr.Size, n.attr.Bytes = uint64(len(n.data)), uint64(len(n.data))
	}
}

func (f *memFS) killPriv(n *memInode) {
	if n.attr.IsRegular() {
		n.attr.Mode &^= meta.ModeSetuid
		if n.attr.Mode&0o010 != 0 {
			n.attr.Mode &^= meta.ModeSetgid
		}
	}
}

func (f *memFS) setAttr(x *meta.SetAttr) (any, error) {
	n, err := f.get(x.Ino)
	if err != nil {
		return nil, err
	}
	if x.Set&meta.KillPriv != 0 {
		f.killPriv(n)
	}
	if x.Set&meta.SetMode != 0 {
		n.attr.Mode = n.attr.Mode&meta.ModeType | x.Mode
	}
	if x.Set&meta.SetUID != 0 {
		n.attr.UID = x.UID
	}
	if x.Set&meta.SetGID != 0 {
		n.attr.GID = x.GID
	}
	f.clock++
	n.attr.Ctime = f.clock
	if x.Set&meta.SetSize != 0 {
		if x.Size > 1<<30 {
			return nil, memErr(errs.FileTooLarge)
		}
		n.data = append(n.data[:min(len(n.data), int(x.Size))], make([]byte, max(0, int(x.Size)-len(n.data)))...)
		f.touch(n)
	}
	if x.Set&meta.SetAtime != 0 {
		n.attr.Atime = x.Atime
	}
	if x.Set&meta.SetMtime != 0 {
		n.attr.Mtime = x.Mtime
	}
	if x.Set&meta.SetAtimeNow != 0 {
		n.attr.Atime = f.clock
	}
	if x.Set&meta.SetMtimeNow != 0 {
		n.attr.Mtime = f.clock
	}
	return &meta.AttrResult{Attr: n.attr}, nil
}

func (f *memFS) read(x core.ReadFile) (any, error) {
	n, err := f.get(x.Ino)
	if err != nil {
		return nil, err
	}
	f.counts["read"]++
	p := &core.FilePlan{Attr: n.attr, Keep: f.keep}
	if x.Off < uint64(len(n.data)) {
		b := n.data[x.Off:min(uint64(len(n.data)), x.Off+uint64(x.Len))]
		p.Pieces = []core.Piece{{Len: uint32(len(b)), Data: slices.Clone(b)}}
	}
	return p, nil
}

func (f *memFS) write(x core.WriteFile) (any, error) {
	n, err := f.get(x.Ino)
	if err != nil {
		return nil, err
	}
	f.counts["write"]++
	if x.Writeback {
		f.counts["writeback"]++
	}
	if x.Sync {
		f.counts["sync write"]++
	}
	if x.KillPriv {
		f.killPriv(n)
	}
	off := x.Off
	if x.Append {
		off = uint64(len(n.data))
	}
	if end := off + uint64(len(x.Data)); end > uint64(len(n.data)) {
		n.data = append(n.data, make([]byte, end-uint64(len(n.data)))...)
	}
	copy(n.data[off:], x.Data)
	f.touch(n)
	return &meta.AttrResult{Attr: n.attr, Off: off}, nil
}

func (f *memFS) setXattr(x *meta.SetXattr) (any, error) {
	n, err := f.get(x.Ino)
	if err != nil {
		return nil, err
	}
	_, ok := n.xattrs[x.Name]
	switch {
	case x.Flags&meta.XattrCreate != 0 && ok:
		return nil, memErr(errs.Exist)
	case x.Flags&meta.XattrReplace != 0 && !ok:
		return nil, memErr(errs.NoAttr)
	}
	if n.xattrs == nil {
		n.xattrs = map[string][]byte{}
	}
	n.xattrs[x.Name] = x.Value
	return &meta.EmptyResult{}, nil
}

func (f *memFS) ReadData(_ *Call, plan *core.FilePlan, dst []byte) (int, error) {
	n := 0
	for _, p := range plan.Pieces {
		n += copy(dst[n:], p.Data)
	}
	return n, nil
}

func (f *memFS) Forget(ino meta.Ino, n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pins[ino] -= int64(n); f.pins[ino] < 0 {
		f.badPins = append(f.badPins, "forgot more than was given")
	}
	if f.pins[ino] == 0 {
		delete(f.pins, ino)
		f.reap(ino)
	}
}

func (f *memFS) OpenFile(ino meta.Ino) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opens[ino]++
	return f.keep
}

func (f *memFS) CloseFile(ino meta.Ino) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.opens[ino]--; f.opens[ino] < 0 {
		f.badPins = append(f.badPins, "closed more than was opened")
	}
	if f.opens[ino] == 0 {
		delete(f.opens, ino)
	}
}

// direct runs an operation as another mount would: its pin is returned.
func (f *memFS) direct(op any) (any, error) {
	f.mu.Lock()
	r, err := f.exec(op)
	f.mu.Unlock()
	if e, ok := r.(*meta.EntryResult); ok && err == nil {
		f.Forget(e.Attr.Ino, 1)
	}
	return r, err
}
