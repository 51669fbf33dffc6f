package model

import (
	"maps"
	"slices"
	"strings"
	"syscall"

	"agentdrive/metaserver/metatest"
)

// onFile executes what concerns one file.
func (fs *FS) onFile(op *metatest.Op, f *file) metatest.Outcome {
	switch op.Kind {
	case metatest.GetStat:
		return f.stat()
	case metatest.Readlink:
		if !f.is(syscall.S_IFLNK) {
			return fail(syscall.EINVAL)
		}
		return metatest.Outcome{Data: f.data}
	case metatest.ReadDir:
		if !f.isDir() {
			return fail(syscall.ENOTDIR)
		}
		return metatest.Outcome{Names: slices.Sorted(maps.Keys(f.entries))}
	case metatest.Close:
		fs.open[op.Handle] = nil
		fs.reap(f)
		return metatest.Outcome{}
	}
	if f.isDir() {
		return fail(syscall.EISDIR)
	}
	if !f.is(syscall.S_IFREG) {
		return fail(syscall.EINVAL)
	}
	switch op.Kind {
	case metatest.Open:
		old := fs.open[op.Handle]
		fs.open[op.Handle] = f
		fs.reap(old)
		return metatest.Outcome{}
	case metatest.Read:
		if op.Off >= uint64(len(f.data)) {
			return metatest.Outcome{}
		}
		return metatest.Outcome{Data: f.data[op.Off:min(uint64(len(f.data)), op.Off+op.Size)]}
	case metatest.Truncate:
		if op.Size > maxSize {
			return fail(syscall.EFBIG)
		}
		f.resize(op.Size)
	case metatest.Write:
		off := op.Off
		if op.Append {
			off = uint64(len(f.data))
		}
		data := op.Data()
		f.resize(max(uint64(len(f.data)), off+uint64(len(data))))
		copy(f.data[off:], data)
		for i := range data {
			f.written[off+uint64(i)] = true
		}
	default:
		return fail(syscall.ENOSYS)
	}
	f.st.Bytes = 0
	for _, w := range f.written {
		if w {
			f.st.Bytes++
		}
	}
	if op.UID != 0 {
		f.unprivileged(op)
	}
	f.changed(op.Now, true)
	return f.stat()
}

// resize cuts or extends content with zeros. It never shares memory with an
// answer already given.
func (f *file) resize(size uint64) {
	keep := min(size, uint64(len(f.data)))
	data, written := make([]byte, size), make([]bool, size)
	copy(data, f.data[:keep])
	copy(written, f.written[:keep])
	f.data, f.written = data, written
}

// unprivileged takes the set-id bits away as Linux does.
func (f *file) unprivileged(op *metatest.Op) {
	f.st.Mode &= ^uint32(0o4000)
	runnable := f.st.Mode&0o010 != 0
	member := op.UID == 0 || op.GID == f.st.GID
	if runnable || !member {
		f.st.Mode &= ^uint32(0o2000)
	}
}

// setattr is chmod, chown and utimes.
func (f *file) setattr(op *metatest.Op) metatest.Outcome {
	owner := op.UID == 0 || op.UID == f.st.UID
	switch op.Kind {
	case metatest.Chmod:
		if f.is(syscall.S_IFLNK) {
			return fail(syscall.EOPNOTSUPP)
		}
		if !owner {
			return fail(syscall.EPERM)
		}
		f.st.Mode = f.st.Mode&syscall.S_IFMT | op.Mode&0o7777
	case metatest.Chown:
		if op.Owner >= 0 && op.UID != 0 && (!owner || uint32(op.Owner) != f.st.UID) {
			return fail(syscall.EPERM)
		}
		if op.Group >= 0 && !owner {
			return fail(syscall.EPERM)
		}
		if (op.Owner >= 0 || op.Group >= 0) && !f.isDir() {
			f.unprivileged(op)
		}
		if op.Owner >= 0 {
			f.st.UID = uint32(op.Owner)
		}
		if op.Group >= 0 {
			f.st.GID = uint32(op.Group)
		}
	case metatest.Utimes:
		if !owner {
			return fail(syscall.EPERM)
		}
		f.st.Atime, f.st.Mtime = op.Atime, op.Mtime
	}
	f.changed(op.Now, false)
	return f.stat()
}

// xattrName checks a name; read says that the caller only looks.
func (f *file) xattrName(op *metatest.Op, read bool) syscall.Errno {
	if op.Name == "" || len(op.Name) > maxName {
		return syscall.ERANGE
	}
	space, rest, dot := strings.Cut(op.Name, ".")
	switch {
	case !dot || space != "user" && space != "trusted" && space != "security":
		return syscall.EOPNOTSUPP
	case rest == "":
		return syscall.EINVAL
	case read:
		return 0
	case space == "trusted" && op.UID != 0:
		return syscall.EPERM
	case space == "user" && !f.isDir() && !f.is(syscall.S_IFREG):
		return syscall.EPERM
	case space == "user" && f.isDir() && !sticky(op, f, f):
		return syscall.EPERM
	}
	return 0
}

func (f *file) xattr(op *metatest.Op) metatest.Outcome {
	if op.Kind == metatest.ListXattr {
		return metatest.Outcome{Names: slices.Sorted(maps.Keys(f.xattrs))}
	}
	if e := f.xattrName(op, op.Kind == metatest.GetXattr); e != 0 {
		return fail(e)
	}
	old, exists := f.xattrs[op.Name]
	switch op.Kind {
	case metatest.SetXattr:
		return f.setXattr(op, exists)
	case metatest.GetXattr:
		if exists {
			return metatest.Outcome{Data: old}
		}
	case metatest.RemoveXattr:
		if exists {
			delete(f.xattrs, op.Name)
			f.changed(op.Now, false)
			return metatest.Outcome{}
		}
	}
	return fail(syscall.ENODATA)
}

func (f *file) setXattr(op *metatest.Op, exists bool) metatest.Outcome {
	total := len(op.Name) + int(op.Size)
	for name, val := range f.xattrs {
		if name != op.Name {
			total += len(name) + len(val)
		}
	}
	switch {
	case op.Size > maxXattr:
		return fail(syscall.E2BIG)
	case exists && op.Flags&1 != 0:
		return fail(syscall.EEXIST)
	case !exists && op.Flags&2 != 0:
		return fail(syscall.ENODATA)
	case total > maxXattrs:
		return fail(syscall.ENOSPC)
	}
	if f.xattrs == nil {
		f.xattrs = map[string][]byte{}
	}
	f.xattrs[op.Name] = op.Data()
	f.changed(op.Now, false)
	return metatest.Outcome{}
}
