// Package kv is the small ordered key-value view over which the namespace
// rules are written once, and its in-memory implementation.
//
// Keys are compared bytewise. A View is a consistent state; a Tx is a View
// whose writes it sees itself. Nobody else sees them until the owner commits.
//
// Mem keeps everything in memory (tests, models). Overlay turns any View into
// a Tx by buffering writes beside it; the durable store is built from it.
package kv

// View reads one consistent state. Safe for concurrent readers unless it is a
// Tx. Returned slices are read-only and valid until the view is released (for
// a Tx: until its next write).
type View interface {
	// Get returns the value of key, or ok=false. An error is a failing disk or
	// corrupt file, kind errs.IO or errs.Corrupt.
	Get(key []byte) (val []byte, ok bool, err error)
	// Scan calls fn for each pair with lo <= key < hi in ascending order until
	// fn returns false. hi == nil means no upper bound. key and val are valid
	// only during the call. In a Tx, fn must not write.
	Scan(lo, hi []byte, fn func(key, val []byte) bool) error
}

// Snapshot is a View that holds resources.
type Snapshot interface {
	View
	// Release gives them back. Call it exactly once, after all reads.
	Release()
}

// Tx is one transaction of the single writer. Not safe for concurrent use.
// It takes ownership of neither key nor val (they are copied).
type Tx interface {
	View
	Set(key, val []byte)
	Delete(key []byte)
}
