package disk

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"agentdrive/internal/errs"
)

// Op names an operation for Mem's hook.
type Op uint8

// The operations.
const (
	OpOpen Op = iota + 1 // OpenFile of a file that exists
	OpCreate
	OpRead
	OpWrite
	OpTruncate
	OpSize
	OpSync
	OpClose
	OpRemove
	OpRename
	OpMkdir
	OpReadDir
	OpStat
	OpSyncDir
	OpLock
	OpUsage
)

var opNames = [...]string{OpOpen: "open", OpCreate: "create", OpRead: "read",
	OpWrite: "write", OpTruncate: "truncate", OpSize: "size", OpSync: "sync",
	OpClose: "close", OpRemove: "remove", OpRename: "rename", OpMkdir: "mkdir",
	OpReadDir: "readdir", OpStat: "stat", OpSyncDir: "syncdir", OpLock: "lock",
	OpUsage: "usage"}

// String is the name used in errors: "disk.<name>".
func (o Op) String() string {
	if int(o) < len(opNames) && opNames[o] != "" {
		return opNames[o]
	}
	return fmt.Sprintf("op%d", uint8(o))
}

// Changes reports whether the operation can change what survives a crash.
func (o Op) Changes() bool {
	switch o {
	case OpCreate, OpWrite, OpTruncate, OpSync, OpRemove, OpRename, OpMkdir, OpSyncDir:
		return true
	}
	return false
}

// Mem is a filesystem in memory that keeps written and durable state apart
// (see CrashClone) and can be told to fail. Space is counted by file size.
// Safe for concurrent use.
type Mem struct {
	mu       sync.Mutex // guards everything below and all nodes; a leaf: the hook runs outside it
	root     *node
	pending  []*dirOp // directory changes not yet durable, oldest first
	locks    map[string]bool
	capacity int64 // bytes, 0 = unlimited
	used     int64 // bytes of files that are linked or open
	hook     func(op Op, name string) error
}

var _ FS = (*Mem)(nil)

// node is a file or a directory.
type node struct {
	// directory
	live    map[string]*node // nil: a file
	durable map[string]*node

	// file
	data    []byte      // as written
	stable  []byte      // as of the last Sync
	writes  []fileWrite // since then, oldest first
	links   int
	handles int
}

// fileWrite is a write (data) or, with data nil, a truncation to off.
type fileWrite struct {
	off  int64
	data []byte
}

// dirOp is one namespace change. Edits of one directory are atomic together:
// rename inside a directory survives whole or not at all.
type dirOp struct{ edits []dirEdit }

type dirEdit struct {
	dir    *node
	name   string
	target *node // nil: the name goes away
}

func newDir() *node { return &node{live: map[string]*node{}, durable: map[string]*node{}} }

// NewMem returns an empty filesystem whose root directory is "/".
func NewMem() *Mem { return &Mem{root: newDir(), locks: map[string]bool{}} }

// SetHook installs a function called before every operation, outside all
// locks; its error is returned instead of doing the operation. An error
// without a kind gets errs.IO. nil removes it.
func (m *Mem) SetHook(hook func(op Op, name string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hook = hook
}

// SetCapacity limits the space to that many bytes; 0 lifts the limit.
func (m *Mem) SetCapacity(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = bytes
}

func (m *Mem) before(op Op, name string) error {
	m.mu.Lock()
	hook := m.hook
	m.mu.Unlock()
	if hook == nil {
		return nil
	}
	return wrap(op.String(), name, hook(op, name))
}

func split(name string) (dir, base string) {
	return path.Split(path.Clean("/" + name))
}

// walk finds the node of a path. Caller holds mu.
func (m *Mem) walk(op Op, name string) (*node, error) {
	n := m.root
	for rest := path.Clean("/" + name)[1:]; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		if n.live == nil {
			return nil, wrap(op.String(), name, errs.E("", errs.NotDir, "", nil))
		}
		next := n.live[part]
		if next == nil {
			return nil, wrap(op.String(), name, fs.ErrNotExist)
		}
		n = next
	}
	return n, nil
}

// parent finds the directory that holds name. Caller holds mu.
func (m *Mem) parent(op Op, name string) (*node, string, error) {
	dir, base := split(name)
	if base == "" {
		return nil, "", wrap(op.String(), name, errs.E("", errs.Invalid, "the root", nil))
	}
	d, err := m.walk(op, dir)
	if err != nil {
		return nil, "", err
	}
	if d.live == nil {
		return nil, "", wrap(op.String(), name, errs.E("", errs.NotDir, "", nil))
	}
	return d, base, nil
}

// edit performs and records one namespace change. Caller holds mu.
func (m *Mem) edit(edits ...dirEdit) {
	for _, e := range edits {
		if old := e.dir.live[e.name]; old != nil {
			old.links--
			m.release(old)
		}
		if e.target == nil {
			delete(e.dir.live, e.name)
			continue
		}
		e.dir.live[e.name] = e.target
		e.target.links++
	}
	m.pending = append(m.pending, &dirOp{edits: edits})
}

// release gives back the space of a file that nobody can reach any more.
func (m *Mem) release(n *node) {
	if n.live == nil && n.links == 0 && n.handles == 0 {
		m.used -= int64(len(n.data))
	}
}

// OpenFile implements FS.
func (m *Mem) OpenFile(name string, flag int, _ fs.FileMode) (File, error) {
	op := OpOpen
	if flag&os.O_CREATE != 0 {
		if _, err := m.peek(name); errs.Is(err, errs.NotExist) {
			op = OpCreate
		}
	}
	if err := m.before(op, name); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.parent(op, name)
	if err != nil {
		return nil, err
	}
	n := dir.live[base]
	switch {
	case n == nil && flag&os.O_CREATE == 0:
		return nil, wrap(op.String(), name, fs.ErrNotExist)
	case n == nil:
		n = &node{}
		m.edit(dirEdit{dir, base, n})
	case flag&(os.O_CREATE|os.O_EXCL) == os.O_CREATE|os.O_EXCL:
		return nil, wrap(op.String(), name, fs.ErrExist)
	case n.live != nil:
		return nil, wrap(op.String(), name, errs.E("", errs.IsDir, "", nil))
	case flag&os.O_TRUNC != 0:
		m.truncate(n, 0)
	}
	n.handles++
	return &memFile{m: m, n: n, name: name, writable: flag&(os.O_RDWR|os.O_WRONLY) != 0}, nil
}

func (m *Mem) peek(name string) (*node, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.walk(OpStat, name)
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	if err := m.before(OpRemove, name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.parent(OpRemove, name)
	if err != nil {
		return err
	}
	n := dir.live[base]
	if n == nil {
		return wrap("remove", name, fs.ErrNotExist)
	}
	if len(n.live) > 0 {
		return wrap("remove", name, errs.E("", errs.NotEmpty, "", nil))
	}
	m.edit(dirEdit{dir, base, nil})
	return nil
}

// Rename implements FS.
func (m *Mem) Rename(oldName, newName string) error {
	if err := m.before(OpRename, newName); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	from, oldBase, err := m.parent(OpRename, oldName)
	if err != nil {
		return err
	}
	to, newBase, err := m.parent(OpRename, newName)
	if err != nil {
		return err
	}
	n := from.live[oldBase]
	if n == nil {
		return wrap("rename", oldName, fs.ErrNotExist)
	}
	if old := to.live[newBase]; old == n {
		return nil
	} else if old != nil && len(old.live) > 0 {
		return wrap("rename", newName, errs.E("", errs.NotEmpty, "", nil))
	}
	m.edit(dirEdit{to, newBase, n}, dirEdit{from, oldBase, nil})
	return nil
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(name string, _ fs.FileMode) error {
	if err := m.before(OpMkdir, name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mkdirAll(path.Clean("/" + name))
}

func (m *Mem) mkdirAll(name string) error {
	if n, err := m.walk(OpMkdir, name); err == nil {
		if n.live == nil {
			return wrap("mkdir", name, errs.E("", errs.NotDir, "", nil))
		}
		return nil
	} else if !errs.Is(err, errs.NotExist) {
		return err
	}
	if err := m.mkdirAll(path.Dir(name)); err != nil {
		return err
	}
	dir, base, err := m.parent(OpMkdir, name)
	if err != nil {
		return err
	}
	m.edit(dirEdit{dir, base, newDir()})
	return nil
}

// ReadDir implements FS.
func (m *Mem) ReadDir(name string) ([]string, error) {
	if err := m.before(OpReadDir, name); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.walk(OpReadDir, name)
	if err != nil {
		return nil, err
	}
	if n.live == nil {
		return nil, wrap("readdir", name, errs.E("", errs.NotDir, "", nil))
	}
	return sortedKeys(n.live), nil
}

// Stat implements FS.
func (m *Mem) Stat(name string) (Info, error) {
	if err := m.before(OpStat, name); err != nil {
		return Info{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.walk(OpStat, name)
	if err != nil {
		return Info{}, err
	}
	return Info{Size: int64(len(n.data)), Dir: n.live != nil}, nil
}

// SyncDir implements FS. Of a rename between directories only the half inside
// dir becomes durable.
func (m *Mem) SyncDir(dir string) error {
	if err := m.before(OpSyncDir, dir); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.walk(OpSyncDir, dir)
	if err != nil {
		return err
	}
	if n.live == nil {
		return wrap("syncdir", dir, errs.E("", errs.NotDir, "", nil))
	}
	n.durable = maps.Clone(n.live)
	m.pending = slices.DeleteFunc(m.pending, func(op *dirOp) bool {
		op.edits = slices.DeleteFunc(op.edits, func(e dirEdit) bool { return e.dir == n })
		return len(op.edits) == 0
	})
	return nil
}

// Lock implements FS; the lock is per name.
func (m *Mem) Lock(name string) (File, error) {
	if err := m.before(OpLock, name); err != nil {
		return nil, err
	}
	key := path.Clean("/" + name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locks[key] {
		return nil, locked(name, fmt.Sprint(os.Getpid()))
	}
	dir, base, err := m.parent(OpLock, name)
	if err != nil {
		return nil, err
	}
	n := dir.live[base]
	if n == nil {
		n = &node{}
		m.edit(dirEdit{dir, base, n})
	}
	if err := m.write(n, []byte(fmt.Sprintf("%d\n", os.Getpid())), 0); err != nil {
		return nil, wrap("lock", name, err)
	}
	m.locks[key] = true
	n.handles++
	return &memFile{m: m, n: n, name: name, writable: true, lock: key}, nil
}

// Usage implements FS. Without a capacity it reports 1 PiB.
func (m *Mem) Usage(name string) (Usage, error) {
	if err := m.before(OpUsage, name); err != nil {
		return Usage{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	total := m.capacity
	if total == 0 {
		total = 1 << 50
	}
	return Usage{Total: total, Free: max(0, total-m.used)}, nil
}

// write performs and records a write. Caller holds mu.
func (m *Mem) write(n *node, p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	if grow := off + int64(len(p)) - int64(len(n.data)); grow > 0 {
		if m.capacity > 0 && m.used+grow > m.capacity {
			return errs.E("", errs.NoSpace, "", nil)
		}
		m.used += grow
		n.data = append(n.data, make([]byte, grow)...)
	}
	copy(n.data[off:], p)
	n.writes = append(n.writes, fileWrite{off, slices.Clone(p)})
	return nil
}

func (m *Mem) truncate(n *node, size int64) {
	m.used += size - int64(len(n.data))
	n.data = resize(n.data, size)
	n.writes = append(n.writes, fileWrite{off: size})
}

func resize(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		clear(b[size:]) // a later growth must read zeros
		return b[:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

// memFile is an open file of Mem.
type memFile struct {
	m        *Mem
	n        *node
	name     string
	writable bool
	lock     string // key in m.locks
	closed   bool   // guarded by m.mu
}

// enter runs the hook and then f under the lock.
func (f *memFile) enter(op Op, do func() error) error {
	if err := f.m.before(op, f.name); err != nil {
		return err
	}
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return wrap(op.String(), f.name, fs.ErrClosed)
	}
	return wrap(op.String(), f.name, do())
}

func (f *memFile) ReadAt(p []byte, off int64) (n int, err error) {
	eof := false
	err = f.enter(OpRead, func() error {
		if off < 0 {
			return errs.E("", errs.Invalid, "negative offset", nil)
		}
		if off < int64(len(f.n.data)) {
			n = copy(p, f.n.data[off:])
		}
		eof = n < len(p)
		return nil
	})
	if err == nil && eof {
		err = io.EOF
	}
	return n, err
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	err := f.enter(OpWrite, func() error {
		if off < 0 || !f.writable {
			return errs.E("", errs.Invalid, "negative offset or file not open for writing", nil)
		}
		return f.m.write(f.n, p, off)
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *memFile) Truncate(size int64) error {
	return f.enter(OpTruncate, func() error {
		if size < 0 || !f.writable {
			return errs.E("", errs.Invalid, "negative size or file not open for writing", nil)
		}
		if grow := size - int64(len(f.n.data)); f.m.capacity > 0 && grow > 0 && f.m.used+grow > f.m.capacity {
			return errs.E("", errs.NoSpace, "", nil)
		}
		f.m.truncate(f.n, size)
		return nil
	})
}

func (f *memFile) Size() (size int64, err error) {
	err = f.enter(OpSize, func() error { size = int64(len(f.n.data)); return nil })
	return size, err
}

func (f *memFile) Sync() error {
	return f.enter(OpSync, func() error {
		for _, w := range f.n.writes {
			f.n.stable = w.apply(f.n.stable)
		}
		f.n.writes = nil
		return nil
	})
}

// apply performs the write on b and returns it, grown or cut.
func (w fileWrite) apply(b []byte) []byte {
	if w.data == nil {
		return resize(b, w.off)
	}
	if end := w.off + int64(len(w.data)); end > int64(len(b)) {
		b = resize(b, end)
	}
	copy(b[w.off:], w.data)
	return b
}

func (f *memFile) Name() string { return f.name }

func (f *memFile) Close() error {
	return f.enter(OpClose, func() error {
		f.closed = true
		f.n.handles--
		f.m.release(f.n)
		if f.lock != "" {
			delete(f.m.locks, f.lock)
		}
		return nil
	})
}

func sortedKeys(m map[string]*node) []string { return slices.Sorted(maps.Keys(m)) }
