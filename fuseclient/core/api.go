// Package core is the client's protocol logic: a step machine without
// goroutines, clocks or I/O.
//
// An adapter feeds it events (requests of the kernel, frames from the server,
// completions of block writes, time) through Client.Step and carries out the
// effects it returns. Everything that decides what an application sees stands
// here: sessions and their resumption, exactly-once retry of operations,
// pins, buffered writes and the moments of their publication, and the merging
// of own unpublished data into what the server says. A simulator drives the
// same Step through seeded faults.
package core

import (
	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// Time is monotonic nanoseconds since an arbitrary start; it advances while
// the host sleeps (CLOCK_BOOTTIME).
type Time int64

// ReqID names a request of the kernel while it is open.
type ReqID uint64

// Event is what the adapter tells the core.
type Event interface{ event() }

// Request is a call that wants an answer: exactly one Answer effect follows
// for each, whatever happens. Op is one of the meta operations (Lookup,
// GetAttr, SetAttr, Make, ...; not Write and ReadMap) or one of the client's
// own (ReadFile, WriteFile, Flush, Fsync, SyncAll, Shutdown). Operations of
// meta are given as pointers, the client's own as values.
type Request struct {
	ID ReqID
	Op any
}

// ReadFile reads file content. Answer: *FilePlan.
type ReadFile struct {
	Ino    meta.Ino
	Off    uint64
	Len    uint32
	Direct bool // its bytes stay in no page of the kernel
	Fresh  bool // the plan before named a block that is gone: ask the servers
}

// WriteFile writes file content into the buffer. The core owns Data from now
// on. Answer: *meta.AttrResult at once while there is room; with Append or
// Sync after publication, Off telling where the data went. Until something
// was heard from the server about the inode, the attributes of an answer to a
// buffered write have Nlink 0 and only Ino, type and Size mean something.
type WriteFile struct {
	Cred     meta.Cred
	Ino      meta.Ino
	Off      uint64
	Data     []byte
	Append   bool // to the true end of file, atomically
	Sync     bool // O_SYNC: answer when durable
	KillPriv bool // clear setuid and setgid
	// Writeback: dirty pages of a mapping (FUSE_WRITE_CACHE). They go where
	// they were, whatever Append says.
	Writeback bool
}

// Flush publishes the file's buffered data (close). Answer: *meta.EmptyResult
// or the file's pending error, reported once.
type Flush struct{ Ino meta.Ino }

// Fsync publishes the file's buffered data; the answer means durable.
type Fsync struct{ Ino meta.Ino }

// SyncAll publishes everything buffered by this mount.
type SyncAll struct{}

// Shutdown publishes everything, closes the session and answers: with
// *meta.EmptyResult, or with the first error if data was lost. Later requests
// fail with errs.Expired. It waits for the servers if data is unpublished;
// cancelled, it is answered and goes on.
type Shutdown struct{}

// Cancel says that nobody waits for the request any longer. The core answers
// it: with errs.Interrupted if it was not sent, only reads, or no stream is up
// (then it may still be executed at the server); a mutation that was sent on
// a living stream is answered with its outcome when that comes.
type Cancel struct{ ID ReqID }

// Forget says that the kernel dropped N references to an inode given by entry
// results (Lookup, Make, Link, ReadDir with Plus). Each entry of an answer
// counts as one reference from the moment of the Answer; the adapter forgets
// those that it does not hand to the kernel.
type Forget struct {
	Ino meta.Ino
	N   uint64
}

// OpenFile and CloseFile tell of open handles, so that data errors find
// somebody to report to. They have no answer.
type OpenFile struct{ Ino meta.Ino }

// CloseFile ends what OpenFile began.
type CloseFile struct{ Ino meta.Ino }

// StreamUp says that a stream to the presumed leader is open.
type StreamUp struct{ Stream uint64 }

// StreamDown says that the stream ended or could not be opened. Unrefused
// effects Send for it are lost.
type StreamDown struct {
	Stream uint64
	Err    error
}

// FrameIn is a frame received on a stream.
type FrameIn struct {
	Stream uint64
	Frame  meta.Frame
}

// BlockStored answers PutBlock when the write quorum is durable.
type BlockStored struct {
	Token uint64
	PG    uint32
	Epoch uint64
	Acked []chunk.ServerID
	// Missing are the members without a durable copy so far.
	Missing []chunk.ServerID
}

// BlockLate says that a copy missing in BlockStored is durable now.
type BlockLate struct {
	Token  uint64
	Server chunk.ServerID
}

// BlockFailed answers PutBlock when the block cannot be stored: a permanent
// error (no space, refused). While servers are merely away the adapter goes
// on trying.
type BlockFailed struct {
	Token uint64
	Err   error
}

// Tick tells the time when nothing else happens; see the effect Timer.
type Tick struct{}

// Invalidated answers Invalidate: the kernel believes nothing of it any more.
type Invalidated struct{ Token uint64 }

func (Request) event()     {}
func (Invalidated) event() {}
func (Cancel) event()      {}
func (Forget) event()      {}
func (OpenFile) event()    {}
func (CloseFile) event()   {}
func (StreamUp) event()    {}
func (StreamDown) event()  {}
func (FrameIn) event()     {}
func (BlockStored) event() {}
func (BlockLate) event()   {}
func (BlockFailed) event() {}
func (Tick) event()        {}

// Effect is what the core asks of the adapter. Effects are carried out in
// order; none may block the next Step.
type Effect interface{ effect() }

// Connect asks for a new stream with this number to the leader (the adapter
// finds it; hint, if any, comes from a NotLeader frame). Any older stream is
// abandoned. Answer: StreamUp or StreamDown.
type Connect struct {
	Stream uint64
	Hint   string // address
	After  Time   // not before (back-off); 0 = at once
}

// Send sends a frame on a stream; frames of a stream arrive in order or not
// at all.
type Send struct {
	Stream uint64
	Frame  meta.Frame
}

// Disconnect abandons a stream.
type Disconnect struct{ Stream uint64 }

// PutBlock stores a block under a fresh id on a write quorum. Data is
// read-only until BlockStored or BlockFailed.
type PutBlock struct {
	Token uint64
	ID    chunk.BlockID
	Owner chunk.Owner
	Data  []byte
}

// Answer completes a Request. Exactly one of Result and Err is set.
type Answer struct {
	ID     ReqID
	Result any // a meta result or *FilePlan
	Err    error
	Cache  Cache   // how long the kernel may believe it; with errs.NotExist of a Lookup, Entry is that of the absence
	Lives  []Cache // of a *meta.DirResult with Plus: one for each entry; nil = all zero
}

// Cache says how long the kernel may believe an answer without asking again,
// in nanoseconds from now; 0 = not at all (rule C3).
type Cache struct {
	Entry Time // that the name stands for the inode, or for nothing
	Attr  Time // the attributes
}

// Invalidate tells the kernel to forget. The adapter carries it out outside
// the core's lock and may run several at a time: every reply whose Answer came
// before this effect is written first, then the kernel is told (rules C4, C5).
// Answer: Invalidated, whatever the kernel said.
type Invalidate struct {
	Token uint64
	Items []Inval
}

// Inval is one thing to forget. Exactly one of its three forms is given.
type Inval struct {
	Ino      meta.Ino // this inode's attributes, and unless Attr its pages
	Attr     bool
	Off, Len uint64 // the range of the pages, bytes; Len 0: to the end

	Dir  meta.Ino // the name Name in directory Dir
	Name string

	Epoch bool // every name of the mount, at once (FUSE_NOTIFY_INC_EPOCH)
}

// Timer asks for a Tick at or soon after At; a later Timer replaces it.
type Timer struct{ At Time }

// Event for people: logged, shown by status.
type Notice struct {
	State State
	Err   *errs.Error // why, when not ready
	Text  string
}

// State of the session as people see it.
type State string

// The states.
const (
	StateConnecting State = "connecting" // no stream; operations wait
	StateReady      State = "ready"
	StateEnded      State = "ended" // session lost or closed
)

func (Connect) effect()    {}
func (Send) effect()       {}
func (Disconnect) effect() {}
func (PutBlock) effect()   {}
func (Answer) effect()     {}

// Logged gives a local operation with its place in the log, as it will be sent.
// It comes before the Answer that it belongs to: the adapter keeps both where
// they outlive the process, before the kernel gets the reply.
type Logged struct {
	Seq    uint64
	Record meta.LogRecord // shared with the core: read only
}

// LogGone says that the records up to Seq need not be kept any longer: they are
// durable at the servers, or lost with their session.
type LogGone struct{ Seq uint64 }

func (Timer) effect()      {}
func (Logged) effect()     {}
func (LogGone) effect()    {}
func (Invalidate) effect() {}
func (Notice) effect()     {}

// FilePlan tells the adapter how to assemble the bytes of a read: pieces in
// ascending order without gaps; the total is the length to return (short at
// end of file). Data pieces are read-only copies.
type FilePlan struct {
	Attr   meta.Attr // merged with own buffered data
	Pieces []Piece
	// Keep: the kernel may keep the pages. Otherwise the adapter makes it
	// forget their range once the reply is written, and lets no other read of
	// the inode begin before (rule C6).
	Keep bool
}

// Piece is one part of a read: own or inline Data, a range of a block, or
// zeros when neither is given.
type Piece struct {
	Len      uint32
	Data     []byte
	Block    *meta.BlockRef
	BlockOff uint32
}

// Config of a client. Zero values take the defaults named.
type Config struct {
	Group      uint32 // Raft group of the drive
	Open       meta.Open
	MaxDirty   int  // bytes buffered before writes wait; default 256 MiB
	BlockSize  int  // bytes of a full block; default chunk.MaxBlock
	MaxPuts    int  // blocks under way; default 16
	DirtyAge   Time // publish after; default 0.5 s
	RenewEvery Time // default 5 s
	RetryAfter Time // first reconnect back-off; default 50 ms, doubles to 250 ms
	// Strict answers changes when they are durable: nothing is done under write
	// leases. Otherwise ("ordered") a crash may lose the last moment (P2).
	Strict   bool
	IncEpoch bool // the kernel has FUSE_NOTIFY_INC_EPOCH (Linux 6.16)
	NoLeases bool // ask for none: every operation goes to the servers
	MaxNodes int  // inodes that something is known of; more are given back, the unused first; default 1 Mi
	// Break names one rule to break, for tests that prove that they would see
	// it: C2-attr-in-create, C3-long, C4-no-inval, C5-no-entry,
	// D4-no-self-recall, ack-before-flush, log-reorder, read-without-after,
	// stale-grant, trust-forever, keep-after-recall.
	Break string
	// NewBlockID makes random block ids; injected because a core has no
	// randomness of its own. Required.
	NewBlockID func() chunk.BlockID
}
