package kernel

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"agentdrive/fuseclient/core"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// Handles are numbers that never come again, with the access mode in the last
// two bits: with FLUSH the kernel does not say otherwise whether a handle was
// opened for writing. They name nothing here but the owners of locks.
const (
	handleStep   = 8
	handleDirect = 4 // FOPEN_DIRECT_IO
)

// open answers OPEN and CREATE.
//
// The kernel keeps its pages where the Backend vouches for them; else the open
// drops them, so that a mapping made after it sees what others wrote before
// it. An O_APPEND handle bypasses the page cache (C8): the kernel would copy
// appended bytes into pages at the end of file it believes in. So does every
// handle that can write, unless told otherwise: see Config.CachedWrites.
func (f *fileSystem) open(ino meta.Ino, flags uint32, out *fuse.OpenOut) {
	if f.backend.OpenFile(ino) {
		out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
	}
	out.Fh = f.conn.handles.Add(handleStep) | uint64(flags&syscall.O_ACCMODE)
	writes := flags&syscall.O_ACCMODE != syscall.O_RDONLY
	if flags&(syscall.O_APPEND|syscall.O_DIRECT) != 0 || writes && f.conn.directWrites {
		out.OpenFlags |= fuse.FOPEN_DIRECT_IO
		out.Fh |= handleDirect
	}
}

// Open implements fuse.RawFileSystem. Access was checked by the kernel,
// O_TRUNC arrives as SETATTR.
func (f *fileSystem) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	f.open(f.ino(in.NodeId), in.Flags, out)
	return fuse.OK
}

// Release implements fuse.RawFileSystem.
func (f *fileSystem) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	f.unlockFile(&in.InHeader, in.Fh)
	f.conn.nodes.close(in.NodeId)
	f.backend.CloseFile(f.ino(in.NodeId))
}

// filled is a read result that stands in the reply buffer already.
type filled []byte

// Bytes implements fuse.ReadResult.
func (r filled) Bytes([]byte) ([]byte, fuse.Status) { return r, fuse.OK }

// Size implements fuse.ReadResult.
func (r filled) Size() int { return len(r) }

// Done implements fuse.ReadResult.
func (filled) Done() {}

// Readv hands the bytes over: there is nothing to copy when they stand at
// their place.
func (r filled) Readv(dst [][]byte) (int, fuse.Status) {
	if len(dst) == 1 && len(r) > 0 && len(dst[0]) >= len(r) && &dst[0][0] == &r[0] {
		return len(r), fuse.OK
	}
	n := 0
	for _, d := range dst {
		n += copy(d, r[n:])
	}
	return n, fuse.OK
}

// planAttempts bounds how often a read is planned anew.
const planAttempts = 5

// Read implements fuse.RawFileSystem.
func (f *fileSystem) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	buf = buf[:min(len(buf), int(in.Size))]
	op := core.ReadFile{Ino: f.ino(in.NodeId), Off: in.Offset, Len: uint32(len(buf)), Direct: in.Fh&handleDirect != 0}
	f.conn.nodes.page(in.NodeId)
	var n int
	for attempt := 1; ; attempt++ {
		plan, _, err := do[*core.FilePlan](f, &in.InHeader, op)
		if err != nil {
			return nil, status(err)
		}
		if n, err = f.backend.ReadData(f.conn.call(in.Unique), plan, buf); err == nil {
			break
		}
		// A plan that slept (a stopped process, a long wait for servers) may
		// name blocks that were overwritten and deleted since: ask again.
		if attempt == planAttempts || !errs.Is(err, errs.NotExist) {
			return nil, status(err)
		}
		op.Fresh = true
	}
	if n < 0 || n > len(buf) {
		return nil, status(errs.E("kernel.read", errs.IO, "backend filled more than there is room for", nil))
	}
	return filled(buf[:n]), fuse.OK
}

// Write implements fuse.RawFileSystem. data is not part of a pooled buffer
// (see takeRequest), so that the core may keep it. FUSE_WRITE_LOCKOWNER means
// nothing: locks are advisory.
func (f *fileSystem) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if len(data) < int(in.Size) {
		return 0, fuse.EINVAL
	}
	data = data[:in.Size:in.Size]
	writeback := in.WriteFlags&fuse.WRITE_CACHE != 0
	op := core.WriteFile{
		Cred: cred(&in.InHeader), Ino: f.ino(in.NodeId), Off: in.Offset, Data: data,
		// Dirty pages of a mapping go where they were, even if the
		// handle that the kernel lends them appends.
		Append:    in.Flags&syscall.O_APPEND != 0 && !writeback,
		Sync:      in.Flags&(syscall.O_SYNC|syscall.O_DSYNC) != 0,
		KillPriv:  in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0,
		Writeback: writeback,
	}
	r, _, err := do[*meta.AttrResult](f, &in.InHeader, op)
	if err != nil {
		return 0, status(err)
	}
	if in.Fh&handleDirect != 0 && !writeback && f.conn.nodes.paged(in.NodeId) {
		// The kernel dropped its pages of the range before it sent the
		// request; whoever read since has brought them back as they were.
		// (Linux 6.18 was seen to drop them after the reply as well.)
		off := op.Off
		if op.Append {
			off = r.Off
		}
		f.conn.led.refilled(f.conn.call(in.Unique), op.Ino, pages(off, uint64(in.Size)))
	}
	return in.Size, fuse.OK
}

// Flush implements fuse.RawFileSystem: close(2) of a descriptor. A handle that
// cannot write has nothing to publish and no error to collect. Every close
// releases the process's fcntl locks on the file, after what they protected.
func (f *fileSystem) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	reads := in.Fh&syscall.O_ACCMODE == syscall.O_RDONLY
	if reads && f.conn.locks.none() {
		return fuse.OK
	}
	defer f.conn.letDie(in.Unique)()
	var err error
	if !reads {
		_, _, err = do[*meta.EmptyResult](f, &in.InHeader, core.Flush{Ino: f.ino(in.NodeId)})
	}
	if lockErr := f.unlockAll(&in.InHeader, in.Fh, lockOwner{f.ino(in.NodeId), false, in.LockOwner}); err == nil {
		err = lockErr
	}
	return status(err)
}

// Fsync implements fuse.RawFileSystem; fdatasync is no less.
func (f *fileSystem) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	_, _, err := do[*meta.EmptyResult](f, &in.InHeader, core.Fsync{Ino: f.ino(in.NodeId)})
	return status(err)
}

// Ioctl implements fuse.RawFileSystem: there are none.
func (*fileSystem) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return fuse.Status(syscall.ENOTTY)
}
