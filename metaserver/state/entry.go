package state

import (
	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/wire"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/tree"
)

// entryVersion is the version of Entry and Outcomes, and the only one that is
// read: version 1 was never released. A change that must be read later raises
// it and keeps decoding the older ones.
const entryVersion = 2

// Entry is one command of the Raft log: a batch of items under one time
// stamp. The leader puts everything into it that is not a function of the
// state: time, and who pins an orphan.
//
// Term is the reign for which the leader decided all that. An entry appended in
// another one is refused: what its proposer knew of pins, and which operations
// it had seen answered, may be out of date.
type Entry struct {
	Now   int64  // leader's wall clock, Unix nanoseconds
	Term  uint64 // 0 = any
	Items []Item
}

// Item is one step of an entry. Exactly one of Op, Records and Internal is set.
type Item struct {
	Session meta.SessionID // 0 for internal items
	Epoch   uint64

	ID    meta.OpID // with Op: exactly-once channel of synchronous operations
	After uint64
	Acked []meta.OpID
	Op    meta.Op
	// Reserved is what the leader has promised to other sessions and is not in
	// the state yet: room under the drive's quota that Op must leave.
	Reserved Reserved

	First   uint64 // with Records: exactly-once channel of the log
	Records []meta.LogRecord

	Internal Internal
}

// Reserved are the credits outstanding under a drive's quota.
type Reserved struct{ Bytes, Files uint64 }

// Wire codes the fields in order.
func (x *Reserved) Wire(c *wire.Coder) {
	c.U64(&x.Bytes)
	c.U64(&x.Files)
}

// Kinds of items on the wire. Append only.
const (
	itemOp       uint8 = 1
	itemLog      uint8 = 2
	itemInternal uint8 = 3
)

// Wire codes the entry.
func (x *Entry) Wire(c *wire.Coder) {
	c.I64(&x.Now)
	c.U64(&x.Term)
	wire.List(c, &x.Items, func(c *wire.Coder, i *Item) { i.Wire(c) })
}

func (x *Item) kind() uint8 {
	switch {
	case x.Op != nil:
		return itemOp
	case x.Internal != nil:
		return itemInternal
	}
	return itemLog
}

// Wire codes the item.
func (x *Item) Wire(c *wire.Coder) {
	k := x.kind()
	c.U8(&k)
	switch k {
	case itemOp:
		wire.Uint(c, &x.Session)
		c.U64(&x.Epoch)
		wire.Uint(c, &x.ID)
		c.U64(&x.After)
		wire.List(c, &x.Acked, wire.Uint[meta.OpID])
		meta.WireOp(c, &x.Op)
		x.Reserved.Wire(c)
	case itemLog:
		wire.Uint(c, &x.Session)
		c.U64(&x.Epoch)
		c.U64(&x.First)
		wire.List(c, &x.Records, func(c *wire.Coder, r *meta.LogRecord) { r.Wire(c) })
	case itemInternal:
		wireInternal(c, &x.Internal)
	default:
		c.Fail("unknown item %d", k)
	}
}

// EncodeEntry appends the record of e to dst.
func EncodeEntry(dst []byte, e *Entry) []byte { return wire.Marshal(dst, entryVersion, e) }

// DecodeEntry reads a record made by EncodeEntry; the entry aliases b.
func DecodeEntry(b []byte) (*Entry, error) {
	e := new(Entry)
	if err := wire.UnmarshalFrom(b, entryVersion, entryVersion, e); err != nil {
		return nil, err
	}
	return e, nil
}

// Outcomes answers an entry, one outcome for each item.
type Outcomes struct {
	List []meta.Outcome
}

// Wire codes the list.
func (x *Outcomes) Wire(c *wire.Coder) {
	wire.List(c, &x.List, func(c *wire.Coder, o *meta.Outcome) { o.Wire(c) })
}

// EncodeOutcomes appends the record of o to dst.
func EncodeOutcomes(dst []byte, o *Outcomes) []byte { return wire.Marshal(dst, entryVersion, o) }

// DecodeOutcomes reads a record made by EncodeOutcomes.
func DecodeOutcomes(b []byte) (*Outcomes, error) {
	o := new(Outcomes)
	if err := wire.UnmarshalFrom(b, entryVersion, entryVersion, o); err != nil {
		return nil, err
	}
	return o, nil
}

// Internal is an operation of the servers themselves.
type Internal interface {
	wire.Message
	internalKind() uint8
}

// Kinds of internal operations. Append only.
const (
	kindOpenSession    uint8 = 128
	kindCloseSession   uint8 = 129
	kindInitDrive      uint8 = 130
	kindDropDrive      uint8 = 131
	kindResolveOrphans uint8 = 132
	kindUnpinOrphans   uint8 = 133
	kindReclaim        uint8 = 134
	kindForgetFreed    uint8 = 135
	kindCopiesDone     uint8 = 136
	kindSwept          uint8 = 137
	kindAckReplies     uint8 = 138
	kindAllocGroups    uint8 = 139
	kindSetQuota       uint8 = 140
	kindInitCluster    uint8 = 160
	kindPutServer      uint8 = 161
	kindCreateDrive    uint8 = 162
	kindMarkDrive      uint8 = 163
	kindRemoveDrive    uint8 = 164
)

func newInternal(k uint8) Internal {
	switch k {
	case kindOpenSession:
		return new(OpenSession)
	case kindCloseSession:
		return new(CloseSession)
	case kindInitDrive:
		return new(InitDrive)
	case kindDropDrive:
		return new(DropDrive)
	case kindResolveOrphans:
		return new(ResolveOrphans)
	case kindUnpinOrphans:
		return new(UnpinOrphans)
	case kindReclaim:
		return new(Reclaim)
	case kindForgetFreed:
		return new(ForgetFreed)
	case kindCopiesDone:
		return new(CopiesDone)
	case kindSwept:
		return new(Swept)
	case kindAckReplies:
		return new(AckReplies)
	case kindAllocGroups:
		return new(AllocGroups)
	case kindSetQuota:
		return new(SetQuota)
	case kindInitCluster:
		return new(InitCluster)
	case kindPutServer:
		return new(PutServer)
	case kindCreateDrive:
		return new(CreateDrive)
	case kindMarkDrive:
		return new(MarkDrive)
	case kindRemoveDrive:
		return new(RemoveDrive)
	}
	return nil
}

func wireInternal(c *wire.Coder, p *Internal) {
	var k uint8
	if !c.Decoding() {
		k = (*p).internalKind()
	}
	c.U8(&k)
	if c.Decoding() && c.Err() == nil {
		if *p = newInternal(k); *p == nil {
			c.Fail("unknown internal operation %d", k)
		}
	}
	if c.Err() == nil {
		(*p).Wire(c)
	}
}

// OpenSession opens a session, or returns the one that the nonce opened
// before. Result: *meta.SessionResult.
type OpenSession struct {
	Open meta.Open
}

func (*OpenSession) internalKind() uint8 { return kindOpenSession }

// Wire codes the fields in order.
func (x *OpenSession) Wire(c *wire.Coder) { x.Open.Wire(c) }

// CloseSession ends a session: its recorded replies and orphan pins go, and
// its unpublished blocks are swept. Unknown sessions are no error. Result:
// *meta.EmptyResult.
type CloseSession struct {
	Session meta.SessionID
}

func (*CloseSession) internalKind() uint8 { return kindCloseSession }

// Wire codes the fields in order.
func (x *CloseSession) Wire(c *wire.Coder) { wire.Uint(c, &x.Session) }

// InitDrive makes a drive's root in its group; idempotent. Result:
// *meta.EmptyResult.
type InitDrive struct {
	Drive meta.DriveID
	Name  string // for people; names are decided in group 0
}

func (*InitDrive) internalKind() uint8 { return kindInitDrive }

// Wire codes the fields in order.
func (x *InitDrive) Wire(c *wire.Coder) {
	wire.Uint(c, &x.Drive)
	c.String(&x.Name)
}

// DropDrive ends a drive in its group: its sessions are closed, its content
// goes to the reclaim queue. Unless Force, errs.Busy while sessions are open.
// Idempotent. Result: *meta.EmptyResult.
type DropDrive struct {
	Drive meta.DriveID
	Force bool
}

func (*DropDrive) internalKind() uint8 { return kindDropDrive }

// Wire codes the fields in order.
func (x *DropDrive) Wire(c *wire.Coder) {
	wire.Uint(c, &x.Drive)
	c.Bool(&x.Force)
}

// OrphanPins says which sessions pin an orphan.
type OrphanPins struct {
	Ino  meta.Ino
	Pins []meta.SessionID
}

// Wire codes the fields in order.
func (x *OrphanPins) Wire(c *wire.Coder) {
	wire.Uint(c, &x.Ino)
	wire.List(c, &x.Pins, wire.Uint[meta.SessionID])
}

// ResolveOrphans stamps the pins of fresh orphans; those without any are
// reclaimed. Result: *meta.EmptyResult.
type ResolveOrphans struct {
	Drive   meta.DriveID
	Orphans []OrphanPins
}

func (*ResolveOrphans) internalKind() uint8 { return kindResolveOrphans }

// Wire codes the fields in order.
func (x *ResolveOrphans) Wire(c *wire.Coder) {
	wire.Uint(c, &x.Drive)
	wire.List(c, &x.Orphans, func(c *wire.Coder, o *OrphanPins) { o.Wire(c) })
}

// UnpinOrphans takes a session's pins off orphans. Result: *meta.EmptyResult.
type UnpinOrphans struct {
	Session meta.SessionID
	Inos    []meta.Ino
}

func (*UnpinOrphans) internalKind() uint8 { return kindUnpinOrphans }

// Wire codes the fields in order.
func (x *UnpinOrphans) Wire(c *wire.Coder) {
	wire.Uint(c, &x.Session)
	wire.List(c, &x.Inos, wire.Uint[meta.Ino])
}

// Reclaim does a bounded piece of queued work. Result: *meta.BytesResult, one
// byte: 1 when the queue is empty.
type Reclaim struct {
	Budget uint32 // keys
}

func (*Reclaim) internalKind() uint8 { return kindReclaim }

// Wire codes the fields in order.
func (x *Reclaim) Wire(c *wire.Coder) { c.U32(&x.Budget) }

// ForgetFreed removes records of freed blocks that every member has deleted.
// Result: *meta.EmptyResult.
type ForgetFreed struct {
	Keys []tree.FreedKey
}

func (*ForgetFreed) internalKind() uint8 { return kindForgetFreed }

// Wire codes the fields in order.
func (x *ForgetFreed) Wire(c *wire.Coder) {
	wire.List(c, &x.Keys, func(c *wire.Coder, k *tree.FreedKey) {
		c.U64(&k.Index)
		k.Block.Wire(c)
	})
}

// CopiesDone takes repaired copies off the repair list. Result:
// *meta.EmptyResult.
type CopiesDone struct {
	Copies []meta.BlockCopy
}

func (*CopiesDone) internalKind() uint8 { return kindCopiesDone }

// Wire codes the fields in order.
func (x *CopiesDone) Wire(c *wire.Coder) {
	wire.List(c, &x.Copies, func(c *wire.Coder, b *meta.BlockCopy) { b.Wire(c) })
}

// Swept forgets a closed session whose unpublished blocks are deleted on a
// chunk server. Result: *meta.EmptyResult.
type Swept struct {
	Session meta.SessionID
	Server  chunk.ServerID
}

func (*Swept) internalKind() uint8 { return kindSwept }

// Wire codes the fields in order.
func (x *Swept) Wire(c *wire.Coder) {
	wire.Uint(c, &x.Session)
	wire.Uint(c, &x.Server)
}

// AckReplies forgets recorded replies that the session's client has, for
// acknowledgements that no operation carries into the log. Result:
// *meta.EmptyResult.
type AckReplies struct {
	Session meta.SessionID
	Ops     []meta.OpID
}

func (*AckReplies) internalKind() uint8 { return kindAckReplies }

// Wire codes the fields in order.
func (x *AckReplies) Wire(c *wire.Coder) {
	wire.Uint(c, &x.Session)
	wire.List(c, &x.Ops, wire.Uint[meta.OpID])
}
