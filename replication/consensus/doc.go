// Package consensus runs Raft groups: a Group is hashicorp/raft over
// raft-wal, the durable state of package store, and snapshots made from it.
// Several groups live in one process, each in a directory of its own.
//
// # What it promises
//
// An entry whose Future succeeded is on stable storage of a majority and
// applied here. Every server applies the same entries in the same order,
// each exactly once as far as the state can tell, through crashes too: the
// state carries the index it contains. A result of kind errs.Unavailable
// means that nobody knows whether the entry will be applied: repeat it only
// under a key that makes it apply once.
//
// Confirm is the linearizable read: after it returns index r, a View taken
// once WaitApplied(r) returned contains everything that was acknowledged
// anywhere before Confirm was called. No clock is part of the argument
// (DESIGN.md).
//
// # Files of a group
//
//	IDENTITY  group and server, wire record version 1 and CRC32C
//	state/    package store
//	log/      raft-wal: segments, wal-meta.db (term, vote, list of segments)
//	snap/     META: the latest snapshot as a marker; install-N.snap: one that
//	          was received and is not yet in state/
//
// # Goroutines and locks
//
// Locks: confirmer.mu, leadership.mu, snapStore.mu, appliedWait.mu,
// pending.mu. None is held while taking another, none across I/O except
// snapStore.mu (files of snap/), and none while calling the Applier, which
// runs on Raft's own goroutine.
package consensus
