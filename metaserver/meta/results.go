package meta

import (
	"agentdrive/internal/errs"
	"agentdrive/internal/wire"
)

// ResultKind numbers the results on the wire. Append only.
type ResultKind uint8

// Kinds of results; ResultError stands for a failed operation.
const (
	ResultError   ResultKind = 0
	ResultEmpty   ResultKind = 1
	ResultEntry   ResultKind = 2
	ResultAttr    ResultKind = 3
	ResultBytes   ResultKind = 4
	ResultNames   ResultKind = 5
	ResultDir     ResultKind = 6
	ResultStatFS  ResultKind = 7
	ResultMap     ResultKind = 8
	ResultSession ResultKind = 9
	ResultAcquire ResultKind = 10
	ResultLock    ResultKind = 11
)

// Result answers an operation.
type Result interface {
	wire.Message
	ResultKind() ResultKind
}

func newResult(k ResultKind) Result {
	switch k {
	case ResultEmpty:
		return new(EmptyResult)
	case ResultEntry:
		return new(EntryResult)
	case ResultAttr:
		return new(AttrResult)
	case ResultBytes:
		return new(BytesResult)
	case ResultNames:
		return new(NamesResult)
	case ResultDir:
		return new(DirResult)
	case ResultStatFS:
		return new(StatFSResult)
	case ResultMap:
		return new(MapResult)
	case ResultSession:
		return new(SessionResult)
	case ResultAcquire:
		return new(AcquireResult)
	case ResultLock:
		return new(LockResult)
	}
	return nil
}

// Outcome is a result or an error, as recorded for exactly-once execution and
// sent in replies. Exactly one of the fields is set.
type Outcome struct {
	Result Result
	Err    *errs.Error
}

// Wire codes the kind and what it announces.
func (x *Outcome) Wire(c *wire.Coder) {
	k := ResultError
	if !c.Decoding() && x.Err == nil {
		k = x.Result.ResultKind()
	}
	wire.Uint(c, &k)
	if c.Err() != nil {
		return
	}
	if k == ResultError {
		if c.Decoding() {
			x.Err = new(errs.Error)
		}
		WireError(c, x.Err)
		return
	}
	if c.Decoding() {
		if x.Result = newResult(k); x.Result == nil {
			c.Fail("unknown result %d", k)
			return
		}
	}
	x.Result.Wire(c)
}

// WireError codes an error; the cause travels as text inside the message.
func WireError(c *wire.Coder, e *errs.Error) {
	msg := e.Msg
	if !c.Decoding() && e.Err != nil {
		if msg != "" {
			msg += ": "
		}
		msg += e.Err.Error()
	}
	c.String(&e.Op)
	wire.Uint(c, &e.Kind)
	c.String(&msg)
	c.String(&e.Hint)
	if c.Decoding() {
		e.Msg = msg
	}
}

// Failed makes the outcome of a failed operation.
func Failed(err error) Outcome {
	if e, ok := err.(*errs.Error); ok {
		return Outcome{Err: e}
	}
	return Outcome{Err: errs.E("", errs.KindOf(err), "", err)}
}

// Unpack returns the outcome as Go code wants it.
func (x *Outcome) Unpack() (Result, error) {
	if x.Err != nil {
		return nil, x.Err
	}
	return x.Result, nil
}

// EmptyResult says that it was done.
type EmptyResult struct{}

// ResultKind implements Result.
func (*EmptyResult) ResultKind() ResultKind { return ResultEmpty }

// Wire codes nothing.
func (*EmptyResult) Wire(*wire.Coder) {}

// EntryResult gives an inode by name. Sent to a client it pins the inode once
// (rule S6).
type EntryResult struct {
	Attr    Attr
	Created bool // Make: a new inode
}

// ResultKind implements Result.
func (*EntryResult) ResultKind() ResultKind { return ResultEntry }

// Wire codes the fields in order.
func (x *EntryResult) Wire(c *wire.Coder) {
	x.Attr.Wire(c)
	c.Bool(&x.Created)
}

// AttrResult gives attributes.
type AttrResult struct {
	Attr Attr
	Off  uint64 // Write: where the first byte went
}

// ResultKind implements Result.
func (*AttrResult) ResultKind() ResultKind { return ResultAttr }

// Wire codes the fields in order.
func (x *AttrResult) Wire(c *wire.Coder) {
	x.Attr.Wire(c)
	c.U64(&x.Off)
}

// BytesResult gives a value or a link target.
type BytesResult struct {
	Data []byte
}

// ResultKind implements Result.
func (*BytesResult) ResultKind() ResultKind { return ResultBytes }

// Wire codes the fields in order.
func (x *BytesResult) Wire(c *wire.Coder) { c.Bytes(&x.Data) }

// NamesResult gives names, ascending.
type NamesResult struct {
	Names []string
}

// ResultKind implements Result.
func (*NamesResult) ResultKind() ResultKind { return ResultNames }

// Wire codes the fields in order.
func (x *NamesResult) Wire(c *wire.Coder) {
	wire.List(c, &x.Names, func(c *wire.Coder, s *string) { c.String(s) })
}

// DirEntry is one entry of a listing.
type DirEntry struct {
	Name   string
	Cookie uint64 // resume after this entry
	Attr   Attr   // without Plus only Ino and the type bits of Mode
}

// DirResult is a page of a listing.
type DirResult struct {
	Entries []DirEntry
	EOF     bool // nothing follows
	Plus    bool // entries carry attributes and were pinned
}

// ResultKind implements Result.
func (*DirResult) ResultKind() ResultKind { return ResultDir }

// Wire codes the fields in order.
func (x *DirResult) Wire(c *wire.Coder) {
	c.Bool(&x.EOF)
	c.Bool(&x.Plus)
	wire.List(c, &x.Entries, func(c *wire.Coder, e *DirEntry) {
		c.String(&e.Name)
		c.U64(&e.Cookie)
		if x.Plus {
			e.Attr.Wire(c)
			return
		}
		wire.Uint(c, &e.Attr.Ino)
		c.U32(&e.Attr.Mode)
	})
}

// StatFSResult is the use of a drive. Limits are 0 when there is none.
type StatFSResult struct {
	Bytes, Files       uint64 // used
	MaxBytes, MaxFiles uint64 // quota
	FreeBytes          uint64 // of content that the cluster's disks still take
}

// ResultKind implements Result.
func (*StatFSResult) ResultKind() ResultKind { return ResultStatFS }

// Wire codes the fields in order.
func (x *StatFSResult) Wire(c *wire.Coder) {
	c.U64(&x.Bytes)
	c.U64(&x.Files)
	c.U64(&x.MaxBytes)
	c.U64(&x.MaxFiles)
	c.U64(&x.FreeBytes)
}

// MapResult is a part of a file's extent map with the blocks it names.
type MapResult struct {
	Attr    Attr
	Covered uint64 // the map speaks for [Off, Covered) of the request
	Extents []Extent
	Blocks  []BlockRef
}

// ResultKind implements Result.
func (*MapResult) ResultKind() ResultKind { return ResultMap }

// Wire codes the fields in order.
func (x *MapResult) Wire(c *wire.Coder) {
	x.Attr.Wire(c)
	c.U64(&x.Covered)
	wire.List(c, &x.Extents, func(c *wire.Coder, e *Extent) { e.Wire(c) })
	wire.List(c, &x.Blocks, func(c *wire.Coder, b *BlockRef) { b.Wire(c) })
}

// SessionResult answers the entry that opens a session.
type SessionResult struct {
	Session    SessionID
	Epoch      uint64
	Root       Attr // directory at which the session is rooted
	LastLogSeq uint64
}

// ResultKind implements Result.
func (*SessionResult) ResultKind() ResultKind { return ResultSession }

// Wire codes the fields in order.
func (x *SessionResult) Wire(c *wire.Coder) {
	wire.Uint(c, &x.Session)
	c.U64(&x.Epoch)
	x.Root.Wire(c)
	c.U64(&x.LastLogSeq)
}
