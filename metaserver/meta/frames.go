package meta

import (
	"fmt"

	"agentdrive/internal/errs"
	"agentdrive/internal/wire"
)

// FrameVersion is the version of the frame format.
const FrameVersion = 2

// FrameKind numbers the messages of the client stream. Append only. Those
// marked reserved have their number and place, and are refused until they
// exist.
type FrameKind uint8

// Client to server.
const (
	FrameOpen       FrameKind = 1
	FrameResume     FrameKind = 2
	FrameReclaim    FrameKind = 3
	FrameRenew      FrameKind = 4
	FrameLog        FrameKind = 5
	FrameOp         FrameKind = 6
	FrameAck        FrameKind = 7
	FrameUnpin      FrameKind = 8
	FrameRelease    FrameKind = 9
	FrameCredit     FrameKind = 10
	FrameBarrierAck FrameKind = 11 // reserved
	FrameClose      FrameKind = 12
	FrameCancelOp   FrameKind = 13
)

// Server to client.
const (
	FrameWelcome     FrameKind = 64
	FrameReply       FrameKind = 65
	FrameRenewed     FrameKind = 66
	FrameEvicted     FrameKind = 67
	FrameNotLeader   FrameKind = 68
	FrameLogAck      FrameKind = 69
	FrameRecall      FrameKind = 70
	FrameCredited    FrameKind = 71
	FrameBarrier     FrameKind = 74 // reserved
	FrameBarrierDone FrameKind = 75 // reserved
)

// Frame is one message on the client stream.
type Frame interface {
	wire.Message
	FrameKind() FrameKind
}

func newFrame(k FrameKind) Frame {
	switch k {
	case FrameOpen:
		return new(Open)
	case FrameResume:
		return new(Resume)
	case FrameReclaim:
		return new(Reclaim)
	case FrameRenew:
		return new(Renew)
	case FrameLog:
		return new(Log)
	case FrameOp:
		return new(OpFrame)
	case FrameUnpin:
		return new(Unpin)
	case FrameClose:
		return new(Close)
	case FrameAck:
		return new(Ack)
	case FrameRelease:
		return new(Release)
	case FrameCredit:
		return new(Credit)
	case FrameCancelOp:
		return new(CancelOp)
	case FrameRecall:
		return new(Recall)
	case FrameCredited:
		return new(Credited)
	case FrameWelcome:
		return new(Welcome)
	case FrameReply:
		return new(Reply)
	case FrameRenewed:
		return new(Renewed)
	case FrameEvicted:
		return new(Evicted)
	case FrameNotLeader:
		return new(NotLeader)
	case FrameLogAck:
		return new(LogAck)
	}
	return nil
}

// envelope is the top-level record around a frame.
type envelope struct{ frame Frame }

// Wire codes the kind and the frame behind it.
func (x *envelope) Wire(c *wire.Coder) {
	var k FrameKind
	if !c.Decoding() {
		k = x.frame.FrameKind()
	}
	wire.Uint(c, &k)
	if c.Decoding() && c.Err() == nil {
		if x.frame = newFrame(k); x.frame == nil {
			c.Fail("unknown frame %d", k)
		}
	}
	if c.Err() == nil {
		x.frame.Wire(c)
	}
}

// EncodeFrame appends the record of f to dst.
func EncodeFrame(dst []byte, f Frame) []byte {
	return wire.Marshal(dst, FrameVersion, &envelope{f})
}

// DecodeFrame reads a record made by EncodeFrame; the frame aliases b.
func DecodeFrame(b []byte) (Frame, error) {
	var e envelope
	if err := wire.UnmarshalFrom(b, FrameVersion, FrameVersion, &e); err != nil {
		return nil, errs.E("frame.decode", errs.Other, fmt.Sprintf("frame of %d bytes", len(b)), err)
	}
	return e.frame, nil
}

// Capability is what a mount may do. Servers check drive, path and mode at
// session open; Token is reserved for the signed form and stays empty until
// keys exist.
type Capability struct {
	Drive    DriveID
	Path     string // subtree, "/" for the whole drive
	ReadOnly bool
	Expires  int64 // Unix seconds, 0 = never
	Token    []byte
}

// Wire codes the fields in order.
func (x *Capability) Wire(c *wire.Coder) {
	wire.Uint(c, &x.Drive)
	c.String(&x.Path)
	c.Bool(&x.ReadOnly)
	c.I64(&x.Expires)
	c.Bytes(&x.Token)
}

// Open asks for a session. Sent again with the same nonce it gives the same
// session.
type Open struct {
	Nonce      [16]byte
	Capability Capability
	CreatePath bool // make the subtree when it is missing
	Client     ClientInfo
	Leases     bool // the client answers recalls: it may be given leases
}

// FrameKind implements Frame.
func (*Open) FrameKind() FrameKind { return FrameOpen }

// Wire codes the fields in order.
func (x *Open) Wire(c *wire.Coder) {
	c.Fixed(x.Nonce[:])
	x.Capability.Wire(c)
	c.Bool(&x.CreatePath)
	x.Client.Wire(c)
	c.Bool(&x.Leases)
}

// Resume continues a session on a new stream. The server answers Welcome or
// Evicted. It forgets what it believed to be pinned: Reclaim frames follow.
type Resume struct {
	Session SessionID
	Epoch   uint64
	Nonce   [16]byte // of the Open: the session's secret
}

// FrameKind implements Frame.
func (*Resume) FrameKind() FrameKind { return FrameResume }

// Wire codes the fields in order.
func (x *Resume) Wire(c *wire.Coder) {
	wire.Uint(c, &x.Session)
	c.U64(&x.Epoch)
	c.Fixed(x.Nonce[:])
}

// Pin counts the entry replies that gave an inode.
type Pin struct {
	Ino   Ino
	Count uint32
}

// Wire codes the fields in order.
func (x *Pin) Wire(c *wire.Coder) {
	wire.Uint(c, &x.Ino)
	c.U32(&x.Count)
}

// Reclaim declares what the session holds, in one or more frames, the last
// one marked. Counts are those of this stream's beginning. Open lists the
// mutations without an answer, which the client will send again: recorded
// replies to all others are acknowledged by it, so that acknowledgements lost
// with a leader leave nothing behind.
type Reclaim struct {
	Pins   []Pin
	Leases []Grant // held; on an inode that the log will bring, too
	Locks  []FileLock
	Open   []OpID // with Last; ascending
	Last   bool
}

// FrameKind implements Frame.
func (*Reclaim) FrameKind() FrameKind { return FrameReclaim }

// Wire codes the fields in order.
func (x *Reclaim) Wire(c *wire.Coder) {
	wire.List(c, &x.Pins, func(c *wire.Coder, p *Pin) { p.Wire(c) })
	wireGrants(c, &x.Leases)
	wire.List(c, &x.Locks, func(c *wire.Coder, l *FileLock) { l.Wire(c) })
	wire.List(c, &x.Open, wire.Uint[OpID])
	c.Bool(&x.Last)
}

// Renew prolongs the session; the client counts from the moment of sending.
// Progress lists owed recalls whose flush has moved since the last Renew.
type Renew struct {
	Seq      uint64 // echoed by Renewed
	Progress []uint64
}

// FrameKind implements Frame.
func (*Renew) FrameKind() FrameKind { return FrameRenew }

// Wire codes the fields in order.
func (x *Renew) Wire(c *wire.Coder) {
	c.U64(&x.Seq)
	wire.List(c, &x.Progress, wire.Uint[uint64])
}

// Log carries delegated operations, a FIFO: operation i has sequence number
// First+i. The server executes each once, in order.
type Log struct {
	First   uint64
	Records []LogRecord
}

// FrameKind implements Frame.
func (*Log) FrameKind() FrameKind { return FrameLog }

// Wire codes the fields in order.
func (x *Log) Wire(c *wire.Coder) {
	c.U64(&x.First)
	wire.List(c, &x.Records, func(c *wire.Coder, r *LogRecord) { r.Wire(c) })
}

// OpFrame carries one operation or read. Acked lists ids whose replies the
// client has: the server forgets them. After is the log sequence number that
// must have been executed before.
type OpFrame struct {
	ID    OpID
	After uint64
	Acked []OpID
	Op    Op
}

// FrameKind implements Frame.
func (*OpFrame) FrameKind() FrameKind { return FrameOp }

// Wire codes the fields in order.
func (x *OpFrame) Wire(c *wire.Coder) {
	wire.Uint(c, &x.ID)
	c.U64(&x.After)
	wire.List(c, &x.Acked, wire.Uint[OpID])
	if c.Decoding() && c.Err() == nil && len(x.Acked) > OpWindow {
		c.Fail("%d acknowledgements", len(x.Acked))
	}
	WireOp(c, &x.Op)
}

// Unpin gives pins back (FORGET): as many entry replies as counted.
type Unpin struct {
	Pins []Pin
}

// FrameKind implements Frame.
func (*Unpin) FrameKind() FrameKind { return FrameUnpin }

// Wire codes the fields in order.
func (x *Unpin) Wire(c *wire.Coder) {
	wire.List(c, &x.Pins, func(c *wire.Coder, p *Pin) { p.Wire(c) })
}

// Close ends the session; the server answers Evicted once it is recorded.
type Close struct{}

// FrameKind implements Frame.
func (*Close) FrameKind() FrameKind { return FrameClose }

// Wire codes nothing.
func (*Close) Wire(*wire.Coder) {}

// Welcome answers Open and Resume.
type Welcome struct {
	Session    SessionID
	Epoch      uint64
	Root       Attr
	LastLogSeq uint64
	TTLMillis  uint32 // life of the session after a renewal
	Resumed    bool
	Now        int64 // the server's wall clock, Unix nanoseconds
}

// FrameKind implements Frame.
func (*Welcome) FrameKind() FrameKind { return FrameWelcome }

// Wire codes the fields in order.
func (x *Welcome) Wire(c *wire.Coder) {
	wire.Uint(c, &x.Session)
	c.U64(&x.Epoch)
	x.Root.Wire(c)
	c.U64(&x.LastLogSeq)
	c.U32(&x.TTLMillis)
	c.Bool(&x.Resumed)
	c.I64(&x.Now)
}

// Reply answers an OpFrame. Only what the inodes in Grants have to do with it
// may be cached.
type Reply struct {
	ID      OpID
	Outcome Outcome
	Grants  []Grant
}

// FrameKind implements Frame.
func (*Reply) FrameKind() FrameKind { return FrameReply }

// Wire codes the fields in order.
func (x *Reply) Wire(c *wire.Coder) {
	wire.Uint(c, &x.ID)
	x.Outcome.Wire(c)
	wireGrants(c, &x.Grants)
}

// Renewed answers Renew.
type Renewed struct {
	Seq uint64
	Now int64 // the server's wall clock, Unix nanoseconds
}

// FrameKind implements Frame.
func (*Renewed) FrameKind() FrameKind { return FrameRenewed }

// Wire codes the fields in order.
func (x *Renewed) Wire(c *wire.Coder) {
	c.U64(&x.Seq)
	c.I64(&x.Now)
}

// Evicted says that the session has ended, or that Open was refused. Nothing
// follows on the stream.
type Evicted struct {
	Err *errs.Error // kind errs.Expired, or why Open was refused
}

// FrameKind implements Frame.
func (*Evicted) FrameKind() FrameKind { return FrameEvicted }

// Wire codes the error.
func (x *Evicted) Wire(c *wire.Coder) {
	if c.Decoding() {
		x.Err = new(errs.Error)
	}
	WireError(c, x.Err)
}

// NotLeader sends the client elsewhere. Nothing follows on the stream.
type NotLeader struct {
	Leader  uint32 // server id, 0 = unknown
	Address string
}

// FrameKind implements Frame.
func (*NotLeader) FrameKind() FrameKind { return FrameNotLeader }

// Wire codes the fields in order.
func (x *NotLeader) Wire(c *wire.Coder) {
	c.U32(&x.Leader)
	c.String(&x.Address)
}

// LogAck says that log operations up to Seq are durable. A refusal poisons
// the session: operation Seq+1 and all behind it were not executed.
type LogAck struct {
	Seq     uint64
	Refused bool
	Err     *errs.Error // with Refused
}

// FrameKind implements Frame.
func (*LogAck) FrameKind() FrameKind { return FrameLogAck }

// Wire codes the fields in order.
func (x *LogAck) Wire(c *wire.Coder) {
	c.U64(&x.Seq)
	c.Bool(&x.Refused)
	if x.Refused {
		if c.Decoding() {
			x.Err = new(errs.Error)
		}
		WireError(c, x.Err)
	}
}
