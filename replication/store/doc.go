// Package store is the durable, ordered key-value state of one Raft group.
//
// The Raft log is the only write-ahead log; this store never promises that a
// commit survives a crash. It promises that after a crash it is an exact
// prefix of the commits, at Applied, never with half a commit visible, and it
// tells with Durable how far that prefix reaches at least. Whoever owns the
// Raft log keeps it from Durable on and applies the rest again.
//
// Inside is Badger in managed mode: the commit timestamp is the Raft index,
// values stay in the LSM tree, and Badger's own write-ahead log (*.mem) is
// deleted on every Open, after a kill -9 as after a power cut, so that there
// is one way to recover and not two. DESIGN.md has the argument.
//
// # Files
//
//	LOCK     flock of the process, contains its pid
//	CURRENT  wire record version 1: number of the live generation, CRC32C
//	db-N/    Badger's directory of generation N; others are left-overs of a
//	         crash during Restore and are removed by Open
//
// Keys of users carry the prefix 'u' inside, records of this package and of
// its owner (see Tx.SetMeta) the prefix 'r'. "r" + "applied" is the index and
// term of the last commit and is written with every commit.
//
// # Locks, in order
//
//	Store.writer  one transaction or Restore; held across I/O
//	Store.durableMu computing the durable index; held across an fsync
//	Store.mu      fields of Store and the count of open views; never across I/O
package store
