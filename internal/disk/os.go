package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"agentdrive/internal/errs"
)

// OS is the local filesystem of this machine.
type OS struct{}

var _ FS = OS{}

// wrap turns what the kernel said into an errs.Error that names the file.
func wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return errs.E("disk."+op, kindOf(err), name, err)
}

func kindOf(err error) errs.Kind {
	if k := errs.KindOf(err); k != errs.Other {
		return k
	}
	switch {
	case errors.Is(err, unix.ENOTEMPTY): // before ErrExist, which covers it too
		return errs.NotEmpty
	case errors.Is(err, fs.ErrNotExist):
		return errs.NotExist
	case errors.Is(err, fs.ErrExist):
		return errs.Exist
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return errs.NoSpace
	case errors.Is(err, unix.ENOTDIR):
		return errs.NotDir
	case errors.Is(err, unix.EISDIR):
		return errs.IsDir
	case errors.Is(err, unix.EROFS):
		return errs.ReadOnly
	case errors.Is(err, unix.EACCES):
		return errs.Access
	case errors.Is(err, unix.EPERM):
		return errs.Permission
	case errors.Is(err, unix.EINVAL):
		return errs.Invalid
	}
	return errs.IO
}

// OpenFile implements FS.
func (OS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, wrap("open", name, err)
	}
	return &osFile{f: f}, nil
}

// Remove implements FS.
func (OS) Remove(name string) error { return wrap("remove", name, os.Remove(name)) }

// Rename implements FS.
func (OS) Rename(oldName, newName string) error {
	return wrap("rename", newName, os.Rename(oldName, newName))
}

// MkdirAll implements FS.
func (OS) MkdirAll(name string, perm fs.FileMode) error {
	return wrap("mkdir", name, os.MkdirAll(name, perm))
}

// ReadDir implements FS.
func (OS) ReadDir(name string) ([]string, error) {
	entries, err := os.ReadDir(name) // sorted
	if err != nil {
		return nil, wrap("readdir", name, err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// Stat implements FS.
func (OS) Stat(name string) (Info, error) {
	st, err := os.Stat(name)
	if err != nil {
		return Info{}, wrap("stat", name, err)
	}
	return Info{Size: st.Size(), Dir: st.IsDir()}, nil
}

// SyncDir implements FS.
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return wrap("syncdir", dir, err)
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return wrap("syncdir", dir, err)
}

// Lock implements FS with flock: the lock belongs to the open file, so it
// excludes a second opener in this process too and dies with the process.
func (OS) Lock(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, wrap("lock", name, err)
	}
	err = eintr(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		holder := readPid(f)
		return nil, errors.Join(locked(name, holder), closeQuiet(f))
	}
	if err == nil {
		err = writePid(f)
	}
	if err != nil {
		return nil, errors.Join(wrap("lock", name, err), closeQuiet(f))
	}
	return &osFile{f: f}, nil
}

// closeQuiet closes a file that an error already condemned; only a failing
// close adds to that error.
func closeQuiet(f *os.File) error { return wrap("close", f.Name(), f.Close()) }

func locked(name, holder string) error {
	msg := name + " is in use by another process"
	hint := "stop the process that uses the directory, or choose another directory"
	if holder != "" {
		msg = fmt.Sprintf("%s is in use by process %s", name, holder)
		hint = fmt.Sprintf("stop process %s, or choose another directory", holder)
	}
	return errs.E("disk.lock", errs.Locked, msg, nil).WithHint(hint)
}

// readPid returns the pid in a lock file, or "" while its holder has not yet
// written it.
func readPid(f io.ReaderAt) string {
	var b [32]byte
	n, err := f.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	pid := strings.TrimSpace(string(b[:n]))
	if _, err := strconv.Atoi(pid); err != nil {
		return ""
	}
	return pid
}

func writePid(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// Usage implements FS.
func (OS) Usage(name string) (Usage, error) {
	var st unix.Statfs_t
	if err := eintr(func() error { return unix.Statfs(name, &st) }); err != nil {
		return Usage{}, wrap("usage", name, err)
	}
	return Usage{Total: int64(st.Blocks) * st.Bsize, Free: int64(st.Bavail) * st.Bsize}, nil
}

type osFile struct{ f *os.File }

func (o *osFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := o.f.ReadAt(p, off)
	if err == nil || err == io.EOF {
		return n, err
	}
	return n, wrap("read", o.f.Name(), err)
}

func (o *osFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := o.f.WriteAt(p, off)
	return n, wrap("write", o.f.Name(), err)
}

func (o *osFile) Truncate(size int64) error {
	return wrap("truncate", o.f.Name(), o.f.Truncate(size))
}

func (o *osFile) Size() (int64, error) {
	st, err := o.f.Stat()
	if err != nil {
		return 0, wrap("stat", o.f.Name(), err)
	}
	return st.Size(), nil
}

// Sync is fdatasync. After an error the kernel may have dropped the dirty
// pages while marking them clean, so a second call proves nothing: callers
// treat the file as failed.
func (o *osFile) Sync() error {
	rc, err := o.f.SyscallConn()
	if err != nil {
		return wrap("sync", o.f.Name(), err)
	}
	var serr error
	if err := rc.Control(func(fd uintptr) {
		serr = eintr(func() error { return unix.Fdatasync(int(fd)) })
	}); err != nil {
		return wrap("sync", o.f.Name(), err)
	}
	return wrap("sync", o.f.Name(), serr)
}

func (o *osFile) Name() string { return o.f.Name() }

func (o *osFile) Close() error { return wrap("close", o.f.Name(), o.f.Close()) }

func eintr(f func() error) error {
	for {
		if err := f(); err != syscall.EINTR {
			return err
		}
	}
}
