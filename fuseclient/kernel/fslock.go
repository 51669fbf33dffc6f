package kernel

import (
	"math"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// lockOwner is who holds locks on a file: a process (fcntl), or an open file
// (flock, and F_OFD_SETLK), by the kernel's number for it.
type lockOwner struct {
	ino   meta.Ino
	flock bool
	owner uint64
}

// owners are those that may hold locks, with the handle through which they
// asked last. A close must release them, and need not ask the Backend for
// anybody else.
type owners struct {
	mu     sync.Mutex // guards the maps; leaf
	handle map[lockOwner]uint64
	byFile map[uint64]map[lockOwner]struct{} // the reverse of handle
}

func (o *owners) add(k lockOwner, fh uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.handle == nil {
		o.handle, o.byFile = map[lockOwner]uint64{}, map[uint64]map[lockOwner]struct{}{}
	}
	o.removeLocked(k)
	o.handle[k] = fh
	if o.byFile[fh] == nil {
		o.byFile[fh] = map[lockOwner]struct{}{}
	}
	o.byFile[fh][k] = struct{}{}
}

func (o *owners) removeLocked(k lockOwner) bool {
	fh, ok := o.handle[k]
	if !ok {
		return false
	}
	delete(o.handle, k)
	if delete(o.byFile[fh], k); len(o.byFile[fh]) == 0 {
		delete(o.byFile, fh)
	}
	return true
}

// take removes k and reports whether it was there.
func (o *owners) take(k lockOwner) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.removeLocked(k)
}

// of returns those that asked through a handle last.
func (o *owners) of(fh uint64) (all []lockOwner) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for k := range o.byFile[fh] {
		all = append(all, k)
	}
	return all
}

// none reports whether nobody can hold a lock.
func (o *owners) none() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.handle) == 0
}

// lockOf translates a request. Ends are inclusive on both sides; the kernel's
// largest offset means "to the end, wherever that is".
func (f *fileSystem) lockOf(in *fuse.LkIn) (meta.FileLock, error) {
	l := meta.FileLock{
		Ino: f.ino(in.NodeId), Flock: in.LkFlags&fuse.LK_FLOCK != 0, Owner: in.Owner,
		Start: in.Lk.Start, End: in.Lk.End, PID: in.Lk.Pid,
	}
	if l.Flock {
		l.Start, l.End = 0, meta.LockEOF
	}
	if l.End >= math.MaxInt64 {
		l.End = meta.LockEOF
	}
	switch in.Lk.Typ {
	case syscall.F_RDLCK:
		l.Kind = meta.LockShared
	case syscall.F_WRLCK:
		l.Kind = meta.LockExcl
	case syscall.F_UNLCK:
		l.Kind = meta.Unlocked
	default:
		return l, errs.E("kernel.lock", errs.Invalid, "no such kind of lock", nil)
	}
	if l.Start > l.End {
		return l, errs.E("kernel.lock", errs.Invalid, "lock ends before it begins", nil)
	}
	return l, nil
}

// GetLk implements fuse.RawFileSystem: F_GETLK.
func (f *fileSystem) GetLk(_ <-chan struct{}, in *fuse.LkIn, out *fuse.LkOut) fuse.Status {
	l, err := f.lockOf(in)
	if err != nil {
		return status(err)
	}
	r, _, err := do[*meta.LockResult](f, &in.InHeader, &meta.GetLock{Lock: l})
	if err != nil {
		return status(err)
	}
	out.Lk = fuse.FileLock{Start: r.Lock.Start, End: min(r.Lock.End, math.MaxInt64), Typ: syscall.F_UNLCK, Pid: r.Lock.PID}
	switch r.Lock.Kind {
	case meta.LockShared:
		out.Lk.Typ = syscall.F_RDLCK
	case meta.LockExcl:
		out.Lk.Typ = syscall.F_WRLCK
	}
	return fuse.OK
}

// SetLk implements fuse.RawFileSystem: a lock now or not at all, or an unlock.
func (f *fileSystem) SetLk(_ <-chan struct{}, in *fuse.LkIn) fuse.Status { return f.setLock(in, false) }

// SetLkw implements fuse.RawFileSystem: a lock when it is free. Interrupted it
// fails with EINTR, unless it was granted meanwhile.
func (f *fileSystem) SetLkw(_ <-chan struct{}, in *fuse.LkIn) fuse.Status { return f.setLock(in, true) }

func (f *fileSystem) setLock(in *fuse.LkIn, wait bool) fuse.Status {
	l, err := f.lockOf(in)
	if err != nil {
		return status(err)
	}
	if l.Kind != meta.Unlocked {
		// Before it is asked for: a grant whose reply nobody waits for any
		// longer is released with the file all the same.
		f.conn.locks.add(lockOwner{l.Ino, l.Flock, l.Owner}, in.Fh)
	}
	_, _, err = do[*meta.EmptyResult](f, &in.InHeader, &meta.SetLock{Lock: l, Wait: wait})
	return status(err)
}

// unlockAll releases what an owner may hold of a file. The kernel drops its own
// record, whatever comes of it.
func (f *fileSystem) unlockAll(h *fuse.InHeader, fh uint64, k lockOwner) error {
	if !f.conn.locks.take(k) {
		return nil
	}
	_, _, err := do[*meta.EmptyResult](f, h, &meta.SetLock{Lock: meta.FileLock{
		Ino: k.ino, Flock: k.flock, Owner: k.owner, Kind: meta.Unlocked, End: meta.LockEOF,
	}})
	if errs.Is(err, errs.Interrupted) {
		f.conn.locks.add(k, fh) // the next close tries again
	}
	return err
}

// unlockFile releases the locks of an open file at its last RELEASE. Those of
// flock(2) are announced there, those of F_OFD_SETLK are not; the locks of
// processes are gone by then, for each of them has closed it.
func (f *fileSystem) unlockFile(h *fuse.InHeader, fh uint64) {
	for _, k := range f.conn.locks.of(fh) {
		if err := f.unlockAll(h, fh, k); err != nil {
			f.conn.log.Warn("fuse: a lock of a closed file was not released", "inode", uint64(k.ino), "err", err)
		}
	}
}
