// Package tree is the namespace: every rule of POSIX that the metadata
// service keeps, written once over an ordered key-value view (package kv).
//
// A Space is one drive in the key space of its Raft group. Apply executes a
// mutation inside the transaction of a Raft entry, Read answers from any
// view. Both are functions of state and input alone: no clock, no randomness,
// no goroutine, no memory between calls. Two replicas that apply the same log
// hold the same bytes.
//
// # Atomicity
//
// Apply either succeeds, or returns an error and has written nothing. The
// exception is an error of the store itself (kinds errs.IO, errs.Corrupt,
// errs.Version): then the transaction must not be committed.
//
// # Bounded work
//
// No operation touches a number of keys that grows with the size of a file or
// a directory. What cannot be done at once is written down under Q| and worked
// off by ReclaimStep, a bounded step at a time. An operation that would need a
// second such debt on the same file is refused with errs.Again; the server
// runs ReclaimStep and repeats it.
//
// # Inode lives
//
// An inode that loses its last name becomes an orphan (O|). The server names
// the sessions that still pin it (ResolveOrphan); with the last pin it dies:
// its record goes at once, its content through the queue.
//
// Keys and records are described in keys.go, records.go and DESIGN.md.
package tree
