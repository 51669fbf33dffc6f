package disk

import (
	"io/fs"
	"time"
)

// Call is a kind of disk call that Observed reports.
type Call string

// The calls reported.
const (
	CallRead    Call = "read"
	CallWrite   Call = "write"
	CallSync    Call = "sync"
	CallSyncDir Call = "syncdir"
)

// Observed passes everything to fs and tells observe of reads, writes and syncs:
// the bytes moved and how long it took, failed or not. observe is called on the
// caller's goroutine, also concurrently.
func Observed(fs FS, observe func(c Call, bytes int, took time.Duration)) FS {
	return &observedFS{fs, observe}
}

type observedFS struct {
	FS
	observe func(Call, int, time.Duration)
}

// OpenFile implements FS.
func (o *observedFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := o.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &observedFile{f, o.observe}, nil
}

// SyncDir implements FS.
func (o *observedFS) SyncDir(dir string) error {
	begun := time.Now()
	err := o.FS.SyncDir(dir)
	o.observe(CallSyncDir, 0, time.Since(begun))
	return err
}

type observedFile struct {
	File
	observe func(Call, int, time.Duration)
}

// ReadAt implements File.
func (o *observedFile) ReadAt(p []byte, off int64) (int, error) {
	begun := time.Now()
	n, err := o.File.ReadAt(p, off)
	o.observe(CallRead, n, time.Since(begun))
	return n, err
}

// WriteAt implements File.
func (o *observedFile) WriteAt(p []byte, off int64) (int, error) {
	begun := time.Now()
	n, err := o.File.WriteAt(p, off)
	o.observe(CallWrite, n, time.Since(begun))
	return n, err
}

// Sync implements File.
func (o *observedFile) Sync() error {
	begun := time.Now()
	err := o.File.Sync()
	o.observe(CallSync, 0, time.Since(begun))
	return err
}
