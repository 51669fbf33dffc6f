// Package core is the leader's protocol logic for one metadata group: a step
// machine without goroutines, clocks or I/O.
//
// An adapter feeds it events (streams and frames of clients, results of
// proposals, reads and leadership confirmations, time) through Server.Step and
// carries out the effects in order. The core decides who may speak for which
// session, what goes into the log and when an answer may leave: mutations
// after they are applied, reads and renewals after a leadership confirmation
// begun after they arrived (rule S3). It also keeps what is leader memory by
// design: leases with their gates and recalls (rules S1, S2, S4, S7), pins of
// inodes (rule S6) and the lives of sessions (rule S5). See DESIGN.md.
package core

import (
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
)

// Time is monotonic nanoseconds since an arbitrary start.
type Time int64

// StreamID names a client's stream; never reused in the life of a process.
type StreamID uint64

// Token pairs an effect with the event that answers it.
type Token uint64

// Event is what the adapter tells the core.
type Event interface{ event() }

// StreamOpened announces a client's stream.
type StreamOpened struct {
	Stream StreamID
	Peer   string // address, for messages
}

// StreamFrame is a frame received.
type StreamFrame struct {
	Stream StreamID
	Frame  meta.Frame
}

// StreamClosed says that a stream broke. It frees nothing: the kernel behind
// it lives on.
type StreamClosed struct{ Stream StreamID }

// BecameLeader starts a reign: the barrier of the term is applied, and
// sessions and orphans are read from the state at or behind it.
type BecameLeader struct {
	Term     uint64
	Sessions []state.Session
	Orphans  []Orphan
}

// Orphan is an inode without a name.
type Orphan struct {
	Drive    meta.DriveID
	Ino      meta.Ino
	Resolved bool
	Pins     []meta.SessionID // of a resolved one, ascending
}

// LostLeadership ends the reign, or tells a follower who leads.
type LostLeadership struct {
	Leader  uint32 // 0 = unknown
	Address string
}

// Confirmed answers Confirm: the server still led after the call, and
// everything committed before it is applied.
type Confirmed struct {
	Round uint64
	Err   error
}

// Applied answers Propose. With Err the outcome is unknown or the entry was
// not appended; the clients send again. An entry that entered the log in
// another term than that of its reign is refused by every replica, so its
// answer no longer matters.
type Applied struct {
	Token    Token
	Outcomes []meta.Outcome
	Err      error
}

// ReadDone answers Read.
type ReadDone struct {
	Token   Token
	Outcome meta.Outcome
}

// SessionRead answers ReadSession. Replies are from the same view as Result.
type SessionRead struct {
	Token   Token
	Result  *meta.SessionResult
	Replies []state.Recorded
	Err     error
}

// Touched answers ReadTouched. With Err nothing could be read; executing the
// operation will meet the same obstacle.
type Touched struct {
	Token Token
	Set   TouchSet
	Err   error
}

// OrphansFound answers FindOrphans with orphans nobody has resolved, read
// after the effect was issued.
type OrphansFound struct{ Orphans []Orphan }

// Submit asks for an internal operation on behalf of the adapter or an
// administrator. Answer: Submitted.
type Submit struct {
	Token Token
	Op    state.Internal
}

// Tick tells the time when nothing else happens; see Timer.
type Tick struct{}

func (StreamOpened) event()   {}
func (StreamFrame) event()    {}
func (StreamClosed) event()   {}
func (BecameLeader) event()   {}
func (LostLeadership) event() {}
func (Confirmed) event()      {}
func (Applied) event()        {}
func (ReadDone) event()       {}
func (SessionRead) event()    {}
func (Touched) event()        {}
func (OrphansFound) event()   {}
func (Submit) event()         {}
func (Tick) event()           {}

// Effect is what the core asks of the adapter.
type Effect interface{ effect() }

// Send sends a frame to a client. Frames of a stream arrive in order or the
// stream breaks.
type Send struct {
	Stream StreamID
	Frame  meta.Frame
}

// CloseStream ends a stream after what was sent before.
type CloseStream struct{ Stream StreamID }

// Propose appends an entry to the log; the adapter stamps its time. Entries
// are appended in the order of the effects. Answer: Applied, in log order.
type Propose struct {
	Token Token
	Entry *state.Entry
}

// Confirm asks for a leadership confirmation begun now. Answer: Confirmed.
type Confirm struct{ Round uint64 }

// Read executes a read at the applied state. Answer: ReadDone.
type Read struct {
	Token Token
	Drive meta.DriveID
	Op    meta.Op
}

// ReadTouched finds out what a mutation would change at the applied state.
// Answer: Touched.
type ReadTouched struct {
	Token Token
	Drive meta.DriveID
	Op    meta.Op
}

// TouchSet is what a mutation changes or depends on.
type TouchSet = state.Touched

// ReadSession reads what Resume needs at the applied state. Answer:
// SessionRead.
type ReadSession struct {
	Token   Token
	Session meta.SessionID
	Epoch   uint64
	Nonce   [16]byte
}

// FindOrphans lists unresolved orphans at the applied state. Answer:
// OrphansFound.
type FindOrphans struct{}

// Submitted answers Submit.
type Submitted struct {
	Token   Token
	Outcome meta.Outcome
}

// Timer asks for a Tick at or soon after At; a later Timer replaces it.
type Timer struct{ At Time }

// HandedOver says how long a recall took, from sending it until its answer
// counted. For metrics.
type HandedOver struct{ Took Time }

// Notice is for people: logged at level info.
type Notice struct {
	Text    string
	Session meta.SessionID
}

func (Send) effect()        {}
func (CloseStream) effect() {}
func (Propose) effect()     {}
func (Confirm) effect()     {}
func (Read) effect()        {}
func (ReadTouched) effect() {}
func (ReadSession) effect() {}
func (FindOrphans) effect() {}
func (Submitted) effect()   {}
func (Timer) effect()       {}
func (HandedOver) effect()  {}
func (Notice) effect()      {}

// Config of a server core. Zero values take the defaults named.
type Config struct {
	TTL         Time // life of a session after a renewal; default 15 s
	MaxInFlight int  // entries proposed and not applied; default 8
	Reclaim     int  // keys per background step; default 512

	// Break switches one rule off, for tests that must notice: see breaks.go.
	// Empty in production.
	Break string
}
