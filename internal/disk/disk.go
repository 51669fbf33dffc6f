// Package disk is the seam between Agent Drive and a local filesystem.
//
// Production uses OS. Tests use Mem, which keeps apart what was written and
// what is on stable storage, and can lose, tear and reorder whatever was not
// synced when the power fails, or fail a chosen call.
package disk

import "io/fs"

// FS is the set of calls our servers make. Names are slash-separated paths.
// Errors wrap the cause and carry errs.NotExist, errs.Exist, errs.NoSpace or
// errs.IO. Safe for concurrent use.
type FS interface {
	// OpenFile opens name; flag takes os.O_RDONLY, O_RDWR, O_CREATE, O_EXCL,
	// O_TRUNC. A created file is durable only after Sync of the file and
	// SyncDir of its directory.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	// Remove deletes a file or an empty directory.
	Remove(name string) error
	// Rename replaces newName atomically; durable after SyncDir of both
	// directories.
	Rename(oldName, newName string) error
	// MkdirAll creates name and its parents.
	MkdirAll(name string, perm fs.FileMode) error
	// ReadDir lists names (not paths) in ascending order.
	ReadDir(name string) ([]string, error)
	// Stat describes name.
	Stat(name string) (Info, error)
	// SyncDir makes creations, removals and renames inside dir durable.
	SyncDir(dir string) error
	// Lock takes an exclusive lock on the file name, creating it; errs.Locked
	// (naming the holder's pid if known) when another process has it. It ends
	// with the process or with Close of the returned file.
	Lock(name string) (File, error)
	// Usage tells the space of the filesystem holding name.
	Usage(name string) (Usage, error)
}

// File is an open file. ReadAt and WriteAt are safe for concurrent use on
// disjoint ranges.
type File interface {
	ReadAt(p []byte, off int64) (int, error) // io.EOF as in io.ReaderAt
	WriteAt(p []byte, off int64) (int, error)
	Truncate(size int64) error
	Size() (int64, error)
	// Sync makes the content and the size durable (fdatasync).
	Sync() error
	Name() string
	Close() error
}

// Info describes a directory entry.
type Info struct {
	Size int64 // bytes
	Dir  bool
}

// Usage is the space of a filesystem in bytes.
type Usage struct {
	Total int64
	Free  int64 // available to this process
}
