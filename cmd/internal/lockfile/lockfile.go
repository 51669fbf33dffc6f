// Package lockfile holds advisory locks on files of the data directory.
//
// A lock is a flock(2) on an open file description. It ends when the last
// descriptor of that description is closed, so a crash releases it and a
// stale pid can deceive nobody. A descriptor handed to a child keeps the lock
// until that child has ended too: that is how the supervisor's lock comes to
// mean "the supervisor and all its servers are gone".
//
// The file's content is the holder's pid, for people; nothing is decided by
// it while the lock is free.
package lockfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"agentdrive/internal/errs"
)

// retryEvery bounds how late Wait notices that a lock became free: flock has
// no form that can be both waited for and cancelled.
const retryEvery = 20 * time.Millisecond

// Lock is a held lock. Not safe for concurrent use.
type Lock struct {
	f *os.File
}

// Try takes the lock on path, creating the file (mode 0600), and writes this
// process's pid into it. errs.Locked names the holder when another has it.
func Try(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, errs.E("lock", errs.IO, "", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errs.E("lock", errs.Locked, fmt.Sprintf("%s is held by process %s", path, holder(path)), nil)
		}
		return nil, errs.E("lock", errs.IO, path, err)
	}
	l := &Lock{f: f}
	if err := l.writePid(); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Wait is Try that waits until the lock is free or ctx ends (errs.Timeout).
func Wait(ctx context.Context, path string) (*Lock, error) {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		l, err := Try(path)
		if err == nil || !errs.Is(err, errs.Locked) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, errs.E("lock", errs.Timeout, "waited for the lock", err)
		case <-tick.C:
		}
	}
}

// Held reports whether some process holds the lock on path, and the pid it
// wrote (0 if unknown). A missing file is a free lock.
func Held(path string) (pid int, held bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, errs.E("lock", errs.IO, "", err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err == nil {
		return 0, false, nil
	} else if !errors.Is(err, unix.EWOULDBLOCK) {
		return 0, false, errs.E("lock", errs.IO, path, err)
	}
	pid, _ = strconv.Atoi(holder(path))
	return pid, true, nil
}

func (l *Lock) writePid() error {
	if err := l.f.Truncate(0); err != nil {
		return errs.E("lock", errs.IO, "", err)
	}
	if _, err := l.f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return errs.E("lock", errs.IO, "", err)
	}
	return nil
}

// File is the open file, to be inherited by a child that shall keep the lock.
// It stays owned by l.
func (l *Lock) File() *os.File { return l.f }

// Close gives up this process's hold.
func (l *Lock) Close() error { return l.f.Close() }

func holder(path string) string {
	b, err := os.ReadFile(path)
	if pid := strings.TrimSpace(string(b)); err == nil && pid != "" {
		return pid
	}
	return "unknown"
}
