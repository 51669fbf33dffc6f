// Package model is a filesystem in memory, as simple as it can be: the oracle
// that the real ones are compared with (package metatest). A file is a byte
// slice, a directory a map; nothing is shared with the namespace code.
package model

import (
	"slices"
	"strings"
	"syscall"

	"agentdrive/metaserver/metatest"
)

// FS is a model filesystem and a metatest.Target. Not safe for concurrent use.
type FS struct {
	root  *file
	open  [metatest.Handles + 1]*file
	files map[*file]bool // with a name or a handle
}

// file is an inode of any type.
type file struct {
	st      metatest.Stat
	data    []byte // regular: content; symbolic link: target
	written []bool // regular: which bytes were ever written
	entries map[string]*file
	parent  *file // directories
	xattrs  map[string][]byte
}

// Limits of the service that is modelled.
const (
	maxName   = 255
	maxSize   = 1 << 60
	maxXattr  = 64 << 10
	maxXattrs = 64 << 10
)

// New makes a filesystem whose root has the given mode and birth time.
func New(mode uint32, now int64) *FS {
	root := &file{entries: map[string]*file{}}
	root.st = metatest.Stat{Mode: syscall.S_IFDIR | mode, Nlink: 2, Atime: now, Mtime: now, Ctime: now}
	root.parent = root
	return &FS{root: root, files: map[*file]bool{root: true}}
}

// Usage counts allocated bytes and files, those included that only a handle
// keeps.
func (fs *FS) Usage() (bytes, files uint64) {
	for f := range fs.files {
		files++
		bytes += f.st.Bytes
	}
	return bytes, files
}

func (f *file) is(typ uint32) bool { return f.st.Mode&syscall.S_IFMT == typ }
func (f *file) isDir() bool        { return f.is(syscall.S_IFDIR) }

// stat is what the outside sees.
func (f *file) stat() metatest.Outcome {
	st := f.st
	switch {
	case f.isDir():
		st.Size = uint64(len(f.entries))
	default:
		st.Size = uint64(len(f.data))
	}
	return metatest.Outcome{Stat: &st}
}

func fail(e syscall.Errno) metatest.Outcome { return metatest.Outcome{Errno: e} }

func bump(t *int64, now int64) {
	if *t++; *t < now {
		*t = now
	}
}

// changed notes a change of attributes; data says that content or entries
// changed too.
func (f *file) changed(now int64, data bool) {
	bump(&f.st.Ctime, now)
	if data {
		bump(&f.st.Mtime, now)
	}
}

// walk finds the directory and last name of a path.
func (fs *FS) walk(path string) (*file, string, syscall.Errno) {
	at := fs.root
	names := strings.Split(path, "/")
	for _, name := range names[:len(names)-1] {
		next, e := at.child(name)
		if e != 0 {
			return nil, "", e
		}
		if !next.isDir() {
			return nil, "", syscall.ENOTDIR
		}
		at = next
	}
	return at, names[len(names)-1], 0
}

func (f *file) child(name string) (*file, syscall.Errno) {
	if len(name) > maxName {
		return nil, syscall.ENAMETOOLONG
	}
	if c := f.entries[name]; c != nil {
		return c, 0
	}
	return nil, syscall.ENOENT
}

func (fs *FS) find(path string) (*file, syscall.Errno) {
	if path == "" {
		return fs.root, 0
	}
	dir, name, e := fs.walk(path)
	if e != 0 {
		return nil, e
	}
	return dir.child(name)
}

// Do implements metatest.Target.
func (fs *FS) Do(op metatest.Op) metatest.Outcome {
	switch op.Kind {
	case metatest.Create, metatest.Mkdir, metatest.Mknod, metatest.Symlink:
		return fs.create(&op)
	case metatest.Link:
		return fs.link(&op)
	case metatest.Unlink, metatest.Rmdir:
		return fs.remove(&op)
	case metatest.Rename:
		return fs.rename(&op)
	}
	if op.Handle > 0 && op.Kind != metatest.Open {
		f := fs.open[op.Handle]
		if f == nil {
			return fail(syscall.EBADF)
		}
		return fs.onFile(&op, f)
	}
	f, e := fs.find(op.Path)
	if e != 0 {
		return fail(e)
	}
	switch op.Kind {
	case metatest.Chmod, metatest.Chown, metatest.Utimes:
		return f.setattr(&op)
	case metatest.SetXattr, metatest.GetXattr, metatest.ListXattr, metatest.RemoveXattr:
		return f.xattr(&op)
	}
	return fs.onFile(&op, f)
}

// create makes anything.
func (fs *FS) create(op *metatest.Op) metatest.Outcome {
	if op.Path == "" {
		return fail(syscall.EBUSY)
	}
	dir, name, e := fs.walk(op.Path)
	if e != 0 {
		return fail(e)
	}
	old, e := dir.child(name)
	if e == syscall.ENAMETOOLONG {
		return fail(e)
	}
	if old != nil {
		switch {
		case op.Kind != metatest.Create || op.Excl:
			return fail(syscall.EEXIST)
		case old.isDir():
			return fail(syscall.EISDIR)
		case !old.is(syscall.S_IFREG):
			return fail(syscall.EEXIST)
		}
		return old.stat()
	}
	f := &file{parent: dir}
	f.st = metatest.Stat{Nlink: 1, UID: op.UID, GID: op.GID, Mode: op.Mode & 0o7777,
		Atime: op.Now, Mtime: op.Now, Ctime: op.Now}
	if op.Kind == metatest.Mkdir {
		f.st.Mode &= 0o1777
	}
	if dir.st.Mode&0o2000 != 0 {
		f.st.GID = dir.st.GID
		if op.Kind == metatest.Mkdir {
			f.st.Mode |= 0o2000
		} else if f.st.Mode&0o2010 == 0o2010 && op.UID != 0 && op.GID != dir.st.GID {
			f.st.Mode -= 0o2000
		}
	}
	switch op.Kind {
	case metatest.Create:
		f.st.Mode |= syscall.S_IFREG
	case metatest.Mkdir:
		f.st.Mode |= syscall.S_IFDIR
		f.st.Nlink = 2
		f.entries = map[string]*file{}
		dir.st.Nlink++
	case metatest.Symlink:
		f.st.Mode = syscall.S_IFLNK | 0o777
		f.data = []byte(op.Path2)
	case metatest.Mknod:
		f.st.Mode |= op.Mode & syscall.S_IFMT
		if f.is(syscall.S_IFCHR) || f.is(syscall.S_IFBLK) {
			f.st.Rdev = op.Rdev
		}
	}
	dir.entries[name] = f
	dir.changed(op.Now, true)
	fs.files[f] = true
	return f.stat()
}

func (fs *FS) link(op *metatest.Op) metatest.Outcome {
	if op.Path == "" || op.Path2 == "" {
		return fail(syscall.EBUSY)
	}
	f, e := fs.find(op.Path)
	if e != 0 {
		return fail(e)
	}
	dir, name, e := fs.walk(op.Path2)
	if e != 0 {
		return fail(e)
	}
	switch _, e := dir.child(name); {
	case e == syscall.ENAMETOOLONG:
		return fail(e)
	case e == 0:
		return fail(syscall.EEXIST)
	case f.isDir():
		return fail(syscall.EPERM)
	}
	dir.entries[name] = f
	dir.changed(op.Now, true)
	f.st.Nlink++
	f.changed(op.Now, false)
	return f.stat()
}

// sticky says whether the caller may take f out of dir.
func sticky(op *metatest.Op, dir, f *file) bool {
	return dir.st.Mode&0o1000 == 0 || op.UID == 0 || op.UID == dir.st.UID || op.UID == f.st.UID
}

func (fs *FS) remove(op *metatest.Op) metatest.Outcome {
	if op.Path == "" {
		return fail(syscall.EBUSY)
	}
	dir, name, e := fs.walk(op.Path)
	if e != 0 {
		return fail(e)
	}
	f, e := dir.child(name)
	switch {
	case e != 0:
		return fail(e)
	case !sticky(op, dir, f):
		return fail(syscall.EPERM)
	case op.Kind == metatest.Unlink && f.isDir():
		return fail(syscall.EISDIR)
	case op.Kind == metatest.Rmdir && !f.isDir():
		return fail(syscall.ENOTDIR)
	case len(f.entries) > 0:
		return fail(syscall.ENOTEMPTY)
	}
	fs.unname(dir, name, op.Now)
	dir.changed(op.Now, true)
	return metatest.Outcome{}
}

// unname takes a name away, and the file with it when it was the last.
func (fs *FS) unname(dir *file, name string, now int64) {
	f := dir.entries[name]
	delete(dir.entries, name)
	f.st.Nlink--
	if f.isDir() {
		f.st.Nlink = 0
		dir.st.Nlink--
	}
	f.changed(now, false)
	fs.reap(f)
}

func (fs *FS) reap(f *file) {
	if f != nil && f.st.Nlink == 0 && !slices.Contains(fs.open[:], f) {
		delete(fs.files, f)
	}
}

// below reports whether f is top or inside it.
func (f *file) below(top *file) bool {
	for ; f != top; f = f.parent {
		if f == f.parent {
			return false
		}
	}
	return true
}

func (fs *FS) rename(op *metatest.Op) metatest.Outcome {
	if op.Path == "" || op.Path2 == "" {
		return fail(syscall.EBUSY)
	}
	from, a, e := fs.walk(op.Path)
	if e != 0 {
		return fail(e)
	}
	to, b, e := fs.walk(op.Path2)
	if e != 0 {
		return fail(e)
	}
	if len(a) > maxName || len(b) > maxName {
		return fail(syscall.ENAMETOOLONG)
	}
	f, over := from.entries[a], to.entries[b]
	noReplace, exchange := op.Flags == 1, op.Flags == 2
	if op.Flags > 2 {
		return fail(syscall.EINVAL)
	}
	switch {
	case f == nil:
		return fail(syscall.ENOENT)
	case noReplace && over != nil:
		return fail(syscall.EEXIST)
	case exchange && over == nil:
		return fail(syscall.ENOENT)
	case from != to && f.isDir() && to.below(f):
		return fail(syscall.EINVAL)
	case from != to && over != nil && over.isDir() && from.below(over):
		if exchange {
			return fail(syscall.EINVAL)
		}
		return fail(syscall.ENOTEMPTY)
	case f == over:
		return metatest.Outcome{}
	case !sticky(op, from, f) || over != nil && !sticky(op, to, over):
		return fail(syscall.EPERM)
	}
	if over != nil && !exchange {
		switch {
		case f.isDir() && !over.isDir():
			return fail(syscall.ENOTDIR)
		case !f.isDir() && over.isDir():
			return fail(syscall.EISDIR)
		case len(over.entries) > 0:
			return fail(syscall.ENOTEMPTY)
		}
		fs.unname(to, b, op.Now)
	}
	delete(from.entries, a)
	to.entries[b] = f
	f.moved(from, to, op.Now)
	if exchange {
		from.entries[a] = over
		over.moved(to, from, op.Now)
	}
	from.changed(op.Now, true)
	if from != to {
		to.changed(op.Now, true)
	}
	return metatest.Outcome{}
}

func (f *file) moved(from, to *file, now int64) {
	f.changed(now, false)
	if f.isDir() {
		from.st.Nlink--
		to.st.Nlink++
		f.parent = to
	}
}
