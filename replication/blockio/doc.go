// Package blockio writes blocks to the members of a placement group and reads
// them back.
//
// A Writer sends a block to all live members at once and returns when a quorum
// has it on stable storage; it never waits for the rest, whose outcome comes
// through a callback. It does not shrink: with fewer than MinCopies members in
// reach a write waits, and says so through a callback, until members return or
// its context ends.
//
// A Reader asks the nearest member, asks another when the answer is late or
// bad, and takes the first good answer.
//
// Both remember members that failed and leave them out until a probe, which is
// an ordinary call with back-off, succeeds; so a member that is gone costs
// nothing while enough others live.
//
// Locks: tracker.mu and Writer.mu, both leaves, never held during calls or
// callbacks.
package blockio

import (
	"agentdrive/chunkserver/chunk"
)

// Stores finds a chunk server. Safe for concurrent use; it does not block.
type Stores interface {
	// Store returns a member; errs.Unavailable when its address is unknown.
	Store(id chunk.ServerID) (chunk.Store, error)
}
