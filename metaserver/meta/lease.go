package meta

import "agentdrive/internal/wire"

// LeaseKind is what a session may do with an inode on its own. Kinds are
// ordered: a higher one includes the lower ones.
type LeaseKind uint8

// The kinds of leases.
const (
	LeaseNone  LeaseKind = 0 // every operation goes to the servers
	LeaseRead  LeaseKind = 1 // cache attributes and pages; of a directory, its names
	LeaseWrite LeaseKind = 2 // exclusive: change it locally, tell the servers through the log
)

// Grant gives a session a lease on an inode. In a Reply it also says that what
// the answer tells about the inode (of a directory: the names in the answer,
// too) may be cached; an answer is used once for inodes that it does not grant.
// LeaseNone, in the Reply to a mutation, takes nothing away: the mutation changed
// the inode, so what the session believed of it before is over.
type Grant struct {
	Ino  Ino
	Kind LeaseKind
}

// Wire codes the fields in order.
func (x *Grant) Wire(c *wire.Coder) {
	wire.Uint(c, &x.Ino)
	wireLease(c, &x.Kind)
}

func wireLease(c *wire.Coder, k *LeaseKind) {
	wire.Uint(c, k)
	if c.Decoding() && c.Err() == nil && *k > LeaseWrite {
		c.Fail("lease of kind %d", *k)
	}
}

func wireGrants(c *wire.Coder, p *[]Grant) {
	wire.List(c, p, func(c *wire.Coder, g *Grant) { g.Wire(c) })
}

// MaxWants bounds the inodes of one Acquire.
const MaxWants = 256

// Acquire asks for leases before an operation that wants to be local. It
// changes nothing in the namespace. What was granted stands in the Reply's
// Grants; anything missing there was refused, and the operation goes to the
// servers. Result: *AcquireResult.
type Acquire struct {
	Wants []Grant
}

// Kind implements Op.
func (*Acquire) Kind() OpKind { return KindAcquire }

// Wire codes the fields in order.
func (x *Acquire) Wire(c *wire.Coder) {
	wireGrants(c, &x.Wants)
	if c.Decoding() && c.Err() == nil && len(x.Wants) > MaxWants {
		c.Fail("%d leases wanted at once", len(x.Wants))
	}
}

// AcquireResult gives the attributes of the inodes wanted, in their order; Ino
// is 0 in those of an inode that is gone.
type AcquireResult struct {
	Attrs []Attr
}

// ResultKind implements Result.
func (*AcquireResult) ResultKind() ResultKind { return ResultAcquire }

// Wire codes the fields in order.
func (x *AcquireResult) Wire(c *wire.Coder) {
	wire.List(c, &x.Attrs, func(c *wire.Coder, a *Attr) { a.Wire(c) })
}

// LockKind is the strength of a lock.
type LockKind uint8

// The kinds of locks.
const (
	Unlocked   LockKind = 0
	LockShared LockKind = 1
	LockExcl   LockKind = 2
)

// LockEOF is the End of a lock that reaches to the end of the file, wherever
// that is.
const LockEOF = ^uint64(0)

// FileLock is one advisory lock: of fcntl(2), on a range and owned by a
// process (the kernel's lock owner), or of flock(2), on the whole file and
// owned by an open file. The two kinds never meet.
type FileLock struct {
	Ino   Ino
	Flock bool
	Owner uint64 // unique in its session
	Kind  LockKind
	Start uint64 // bytes; 0 with Flock
	End   uint64 // last byte, inclusive; LockEOF = no end; LockEOF with Flock
	PID   uint32 // for F_GETLK
}

// Wire codes the fields in order.
func (x *FileLock) Wire(c *wire.Coder) {
	wire.Uint(c, &x.Ino)
	c.Bool(&x.Flock)
	c.U64(&x.Owner)
	wire.Uint(c, &x.Kind)
	c.U64(&x.Start)
	c.U64(&x.End)
	c.U32(&x.PID)
	if c.Decoding() && c.Err() == nil && (x.Kind > LockExcl || x.Start > x.End) {
		c.Fail("lock of kind %d on [%d, %d]", x.Kind, x.Start, x.End)
	}
}

// SetLock sets, changes or (Kind Unlocked) removes a lock. With Wait the reply
// comes when the lock is granted, CancelOp arrives (errs.Interrupted), or
// waiting would never end (errs.Deadlock); without it a conflict is
// errs.WouldBlock. It is leader memory, not an entry of the log.
// Result: *EmptyResult.
type SetLock struct {
	Lock FileLock
	Wait bool
}

// Kind implements Op.
func (*SetLock) Kind() OpKind { return KindSetLock }

// Wire codes the fields in order.
func (x *SetLock) Wire(c *wire.Coder) {
	x.Lock.Wire(c)
	c.Bool(&x.Wait)
}

// GetLock asks which lock, if any, stands in the way of Lock. Result:
// *LockResult.
type GetLock struct {
	Lock FileLock
}

// Kind implements Op.
func (*GetLock) Kind() OpKind { return KindGetLock }

// Wire codes the fields in order.
func (x *GetLock) Wire(c *wire.Coder) { x.Lock.Wire(c) }

// LockResult tells of a lock in the way; Kind Unlocked: there is none.
type LockResult struct {
	Lock FileLock
}

// ResultKind implements Result.
func (*LockResult) ResultKind() ResultKind { return ResultLock }

// Wire codes the fields in order.
func (x *LockResult) Wire(c *wire.Coder) { x.Lock.Wire(c) }

// RecallMode says what a holder shall do with a lease, besides bringing what it
// has not told yet to the servers.
type RecallMode uint8

// The modes of a recall.
const (
	RecallQuery     RecallMode = 1 // keep the lease
	RecallDowngrade RecallMode = 2 // Write becomes Read
	RecallRelease   RecallMode = 3 // to None: forget everything about it
	RecallNames     RecallMode = 4 // directory: the names listed change; Write becomes Read
	RecallAttr      RecallMode = 5 // attributes change; Write becomes Read
	RecallDrain     RecallMode = 6 // directory: to None without hurry, by Release
)

// RecallItem is a recall of one inode's lease.
type RecallItem struct {
	Ino   Ino
	Mode  RecallMode
	Names []string // RecallNames
}

// Wire codes the fields in order.
func (x *RecallItem) Wire(c *wire.Coder) {
	wire.Uint(c, &x.Ino)
	wire.Uint(c, &x.Mode)
	wire.List(c, &x.Names, func(c *wire.Coder, s *string) { c.String(s) })
	if c.Decoding() && c.Err() == nil && (x.Mode < RecallQuery || x.Mode > RecallDrain) {
		c.Fail("recall of mode %d", x.Mode)
	}
}

// Recall asks a holder to give leases back or to tell what it has. Ids grow on
// a stream. The answer is one Ack when all items are done.
type Recall struct {
	ID    uint64
	Items []RecallItem
}

// FrameKind implements Frame.
func (*Recall) FrameKind() FrameKind { return FrameRecall }

// Wire codes the fields in order.
func (x *Recall) Wire(c *wire.Coder) {
	c.U64(&x.ID)
	wire.List(c, &x.Items, func(c *wire.Coder, i *RecallItem) { i.Wire(c) })
}

// Ack answers a Recall: everything asked is done, and what the log holds up to
// LogSeq belongs before it. Less lists the inodes on which the holder keeps
// less than the mode leaves it.
type Ack struct {
	Recall uint64
	LogSeq uint64
	Less   []Grant
}

// FrameKind implements Frame.
func (*Ack) FrameKind() FrameKind { return FrameAck }

// Wire codes the fields in order.
func (x *Ack) Wire(c *wire.Coder) {
	c.U64(&x.Recall)
	c.U64(&x.LogSeq)
	wireGrants(c, &x.Less)
}

// Release gives leases back or lowers them unasked, after the log up to
// LogSeq.
type Release struct {
	LogSeq uint64
	Leases []Grant // what is kept from now on
}

// FrameKind implements Frame.
func (*Release) FrameKind() FrameKind { return FrameRelease }

// Wire codes the fields in order.
func (x *Release) Wire(c *wire.Coder) {
	c.U64(&x.LogSeq)
	wireGrants(c, &x.Leases)
}

// Credit asks for means to work locally: locality groups for inode numbers,
// and room under the drive's quota. The amounts are what the session wants to
// have; Credited answers with what it has now.
type Credit struct {
	Groups uint32
	Bytes  uint64
	Files  uint64
}

// FrameKind implements Frame.
func (*Credit) FrameKind() FrameKind { return FrameCredit }

// Wire codes the fields in order.
func (x *Credit) Wire(c *wire.Coder) {
	c.U32(&x.Groups)
	c.U64(&x.Bytes)
	c.U64(&x.Files)
}

// Credited gives a session fresh locality groups [FirstGroup, FirstGroup +
// Groups), which nobody else will ever get, and raises its room for bytes and
// files by the amounts given. Unlimited: the drive has no quota, and the
// amounts mean nothing.
type Credited struct {
	FirstGroup uint64
	Groups     uint32
	Bytes      uint64
	Files      uint64
	Unlimited  bool
}

// FrameKind implements Frame.
func (*Credited) FrameKind() FrameKind { return FrameCredited }

// Wire codes the fields in order.
func (x *Credited) Wire(c *wire.Coder) {
	c.U64(&x.FirstGroup)
	c.U32(&x.Groups)
	c.U64(&x.Bytes)
	c.U64(&x.Files)
	c.Bool(&x.Unlimited)
}

// CancelOp says that nobody waits for a blocked SetLock any longer. The
// answer is its Reply: errs.Interrupted, or the lock if it came before.
type CancelOp struct {
	ID OpID
}

// FrameKind implements Frame.
func (*CancelOp) FrameKind() FrameKind { return FrameCancelOp }

// Wire codes the field.
func (x *CancelOp) Wire(c *wire.Coder) { wire.Uint(c, &x.ID) }

// LogRecord is one delegated operation with the time at which its client
// executed it: the inode's new times.
type LogRecord struct {
	Now int64 // Unix nanoseconds
	Op  Op
}

// Wire codes the fields in order.
func (x *LogRecord) Wire(c *wire.Coder) {
	c.I64(&x.Now)
	WireOp(c, &x.Op)
}
