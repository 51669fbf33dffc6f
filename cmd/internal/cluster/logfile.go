package cluster

import (
	"fmt"
	"os"
	"sync"

	"agentdrive/internal/errs"
)

// Limits of a log file.
const (
	logLimit = 16 << 20 // bytes of one file
	logKeep  = 3        // rotated files kept beside it
)

// LogFile appends to a file and rotates it by size: path, path.1 (newer) to
// path.3 (older). Safe for concurrent use.
type LogFile struct {
	path  string
	limit int64

	mu   sync.Mutex // leaf lock; guards the fields below
	f    *os.File
	size int64
}

// OpenLog opens path for appending, creating it with mode 0600.
func OpenLog(path string) (*LogFile, error) {
	l := &LogFile{path: path, limit: logLimit}
	if err := l.openLocked(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *LogFile) openLocked() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return errs.E("log", errs.IO, "", err)
	}
	size, err := f.Seek(0, 2)
	if err != nil {
		f.Close()
		return errs.E("log", errs.IO, "", err)
	}
	l.f, l.size = f, size
	return nil
}

// Write appends p. A file that cannot be rotated is written on, over its
// limit, rather than losing lines.
func (l *LogFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return 0, os.ErrClosed
	}
	if l.size > 0 && l.size+int64(len(p)) > l.limit {
		if err := l.rotateLocked(); err != nil && l.f == nil {
			return 0, err
		}
	}
	n, err := l.f.Write(p)
	l.size += int64(n)
	return n, err
}

func (l *LogFile) rotateLocked() error {
	for i := logKeep - 1; i >= 0; i-- {
		from := l.path
		if i > 0 {
			from = fmt.Sprintf("%s.%d", l.path, i)
		}
		if err := os.Rename(from, fmt.Sprintf("%s.%d", l.path, i+1)); err != nil && !os.IsNotExist(err) {
			return errs.E("log", errs.IO, "", err)
		}
	}
	old := l.f
	if err := l.openLocked(); err != nil {
		return err // goes on with the renamed file
	}
	return old.Close()
}

// Close closes the file; later writes fail.
func (l *LogFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}
