package meta

import (
	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/wire"
)

// OpKind numbers the operations on the wire and in the log. Append only.
type OpKind uint8

// Kinds of operations: 1-63 change the namespace, 64-127 read it, 128-191 are
// the servers' own entries.
const (
	KindMake        OpKind = 1
	KindLink        OpKind = 2
	KindUnlink      OpKind = 3
	KindRmdir       OpKind = 4
	KindRename      OpKind = 5
	KindSetAttr     OpKind = 6
	KindSetXattr    OpKind = 7
	KindRemoveXattr OpKind = 8
	KindWrite       OpKind = 9
	KindLateAck     OpKind = 10

	KindLookup    OpKind = 64
	KindGetAttr   OpKind = 65
	KindReadlink  OpKind = 66
	KindReadDir   OpKind = 67
	KindGetXattr  OpKind = 68
	KindListXattr OpKind = 69
	KindStatFS    OpKind = 70
	KindReadMap   OpKind = 71
	KindAcquire   OpKind = 72
	KindSetLock   OpKind = 73
	KindGetLock   OpKind = 74
)

// Op is one operation. Mutations are executed exactly once per (session, id);
// reads are linearizable and not recorded.
type Op interface {
	wire.Message
	Kind() OpKind
}

// IsRead reports whether k leaves no trace in the log: it reads, or changes
// only the memory of the leader.
func (k OpKind) IsRead() bool { return k >= 64 && k < 128 }

// NewOp returns an empty client operation of kind k, or nil if there is none.
func NewOp(k OpKind) Op {
	switch k {
	case KindMake:
		return new(Make)
	case KindLink:
		return new(Link)
	case KindUnlink:
		return new(Unlink)
	case KindRmdir:
		return new(Rmdir)
	case KindRename:
		return new(Rename)
	case KindSetAttr:
		return new(SetAttr)
	case KindSetXattr:
		return new(SetXattr)
	case KindRemoveXattr:
		return new(RemoveXattr)
	case KindWrite:
		return new(Write)
	case KindLateAck:
		return new(LateAck)
	case KindLookup:
		return new(Lookup)
	case KindGetAttr:
		return new(GetAttr)
	case KindReadlink:
		return new(Readlink)
	case KindReadDir:
		return new(ReadDir)
	case KindGetXattr:
		return new(GetXattr)
	case KindListXattr:
		return new(ListXattr)
	case KindStatFS:
		return new(StatFS)
	case KindReadMap:
		return new(ReadMap)
	case KindAcquire:
		return new(Acquire)
	case KindSetLock:
		return new(SetLock)
	case KindGetLock:
		return new(GetLock)
	}
	return nil
}

// WireOp codes a kind byte and the operation behind it.
func WireOp(c *wire.Coder, p *Op) {
	var k OpKind
	if !c.Decoding() {
		k = (*p).Kind()
	}
	wire.Uint(c, &k)
	if c.Decoding() {
		if c.Err() != nil {
			return
		}
		if *p = NewOp(k); *p == nil {
			c.Fail("unknown operation %d", k)
			return
		}
	}
	(*p).Wire(c)
}

// wireName codes a name. Length and content are validated where the operation
// is executed: a bad name is the caller's error, not a broken message.
func wireName(c *wire.Coder, p *string) { c.String(p) }

// Make creates an inode of any type: create, mknod, mkdir, symlink. The mode
// has the umask applied. Without Excl, and only for a regular file, an
// existing regular file of that name is the result (Created=false). A child
// of a setgid directory takes its group; a directory there is setgid too.
// Result: *EntryResult.
//
// Ino is the number of the new inode, chosen by a client that works locally
// from a locality group of its own (Credited): errs.Invalid from another,
// errs.Exist if the number or the name is taken. 0: the servers choose.
type Make struct {
	Cred   Cred
	Ino    Ino
	Parent Ino
	Name   string
	Mode   uint32 // type and permissions
	Rdev   uint32 // devices
	Target string // symbolic links
	Excl   bool
}

// Kind implements Op.
func (*Make) Kind() OpKind { return KindMake }

// Wire codes the fields in order.
func (x *Make) Wire(c *wire.Coder) {
	x.Cred.Wire(c)
	wire.Uint(c, &x.Ino)
	wire.Uint(c, &x.Parent)
	wireName(c, &x.Name)
	c.U32(&x.Mode)
	c.U32(&x.Rdev)
	c.String(&x.Target)
	c.Bool(&x.Excl)
}

// Link adds a name to a non-directory. Result: *EntryResult.
type Link struct {
	Cred   Cred
	Ino    Ino
	Parent Ino
	Name   string
}

// Kind implements Op.
func (*Link) Kind() OpKind { return KindLink }

// Wire codes the fields in order.
func (x *Link) Wire(c *wire.Coder) {
	x.Cred.Wire(c)
	wire.Uint(c, &x.Ino)
	wire.Uint(c, &x.Parent)
	wireName(c, &x.Name)
}

// Unlink removes a name of a non-directory. Result: *AttrResult with the
// attributes after the removal (Nlink 0: the last name).
type Unlink struct {
	Cred   Cred
	Parent Ino
	Name   string
}

// Kind implements Op.
func (*Unlink) Kind() OpKind { return KindUnlink }

// Wire codes the fields in order.
func (x *Unlink) Wire(c *wire.Coder) {
	x.Cred.Wire(c)
	wire.Uint(c, &x.Parent)
	wireName(c, &x.Name)
}

// Rmdir removes an empty directory. Result: *AttrResult as for Unlink.
type Rmdir struct {
	Cred   Cred
	Parent Ino
	Name   string
}

// Kind implements Op.
func (*Rmdir) Kind() OpKind { return KindRmdir }

// Wire codes the fields in order.
func (x *Rmdir) Wire(c *wire.Coder) {
	x.Cred.Wire(c)
	wire.Uint(c, &x.Parent)
	wireName(c, &x.Name)
}

// Flags of Rename, as in renameat2(2).
const (
	RenameNoReplace uint32 = 1
	RenameExchange  uint32 = 2
)

// Rename moves or exchanges names. Result: *AttrResult of the moved inode.
type Rename struct {
	Cred      Cred
	OldParent Ino
	OldName   string
	NewParent Ino
	NewName   string
	Flags     uint32
}

// Kind implements Op.
func (*Rename) Kind() OpKind { return KindRename }

// Wire codes the fields in order.
func (x *Rename) Wire(c *wire.Coder) {
	x.Cred.Wire(c)
	wire.Uint(c, &x.OldParent)
	wireName(c, &x.OldName)
	wire.Uint(c, &x.NewParent)
	wireName(c, &x.NewName)
	c.U32(&x.Flags)
}

// Bits of SetAttr.Set.
const (
	SetMode     uint32 = 1 << 0
	SetUID      uint32 = 1 << 1
	SetGID      uint32 = 1 << 2
	SetSize     uint32 = 1 << 3
	SetAtime    uint32 = 1 << 4
	SetMtime    uint32 = 1 << 5
	SetAtimeNow uint32 = 1 << 6 // the entry's time
	SetMtimeNow uint32 = 1 << 7
	KillPriv    uint32 = 1 << 8 // clear setuid and setgid as a write would
)

// SetAttr changes attributes; SetSize truncates or extends. Result:
// *AttrResult.
type SetAttr struct {
	Cred     Cred
	Ino      Ino
	Set      uint32
	Mode     uint32 // permission bits
	UID, GID uint32
	Size     uint64
	Atime    int64 // nanoseconds
	Mtime    int64
}

// Kind implements Op.
func (*SetAttr) Kind() OpKind { return KindSetAttr }

// Wire codes the fields in order.
func (x *SetAttr) Wire(c *wire.Coder) {
	x.Cred.Wire(c)
	wire.Uint(c, &x.Ino)
	c.U32(&x.Set)
	c.U32(&x.Mode)
	c.U32(&x.UID)
	c.U32(&x.GID)
	c.U64(&x.Size)
	c.I64(&x.Atime)
	c.I64(&x.Mtime)
}

// Flags of SetXattr, as in setxattr(2).
const (
	XattrCreate  uint32 = 1
	XattrReplace uint32 = 2
)

// SetXattr sets an extended attribute. Result: *EmptyResult.
type SetXattr struct {
	Cred  Cred
	Ino   Ino
	Name  string
	Value []byte
	Flags uint32
}

// Kind implements Op.
func (*SetXattr) Kind() OpKind { return KindSetXattr }

// Wire codes the fields in order.
func (x *SetXattr) Wire(c *wire.Coder) {
	x.Cred.Wire(c)
	wire.Uint(c, &x.Ino)
	wireName(c, &x.Name)
	c.Bytes(&x.Value)
	c.U32(&x.Flags)
}

// RemoveXattr removes an extended attribute. Result: *EmptyResult.
type RemoveXattr struct {
	Cred Cred
	Ino  Ino
	Name string
}

// Kind implements Op.
func (*RemoveXattr) Kind() OpKind { return KindRemoveXattr }

// Wire codes the fields in order.
func (x *RemoveXattr) Wire(c *wire.Coder) {
	x.Cred.Wire(c)
	wire.Uint(c, &x.Ino)
	wireName(c, &x.Name)
}

// Write publishes content: inline bytes, or ranges of blocks that are durable
// on a write quorum. The file grows to the end of the last extent; extents of
// one Write must not overlap. With Append, offsets count from the end of file
// at execution. Result: *AttrResult with Off, where the first byte went.
type Write struct {
	Cred     Cred
	Ino      Ino
	Append   bool
	KillPriv bool // clear setuid and setgid
	Extents  []Extent
	Blocks   []NewBlock // every block named by Extents that is not yet published
}

// Kind implements Op.
func (*Write) Kind() OpKind { return KindWrite }

// Wire codes the fields in order.
func (x *Write) Wire(c *wire.Coder) {
	x.Cred.Wire(c)
	wire.Uint(c, &x.Ino)
	c.Bool(&x.Append)
	c.Bool(&x.KillPriv)
	wire.List(c, &x.Extents, func(c *wire.Coder, e *Extent) { e.Wire(c) })
	wire.List(c, &x.Blocks, func(c *wire.Coder, b *NewBlock) { b.Wire(c) })
	if c.Decoding() && c.Err() == nil && (len(x.Extents) == 0 || len(x.Extents) > MaxExtents || len(x.Blocks) > MaxExtents) {
		c.Fail("write of %d extents, %d blocks", len(x.Extents), len(x.Blocks))
	}
}

// BlockCopy names one copy of a block.
type BlockCopy struct {
	ID     chunk.BlockID
	Server chunk.ServerID
}

// Wire codes the fields in order.
func (x *BlockCopy) Wire(c *wire.Coder) {
	x.ID.Wire(c)
	wire.Uint(c, &x.Server)
}

// LateAck takes copies off the repair list that became durable after their
// block was published. Unknown ones are ignored. Result: *EmptyResult.
type LateAck struct {
	Copies []BlockCopy
}

// Kind implements Op.
func (*LateAck) Kind() OpKind { return KindLateAck }

// Wire codes the fields in order.
func (x *LateAck) Wire(c *wire.Coder) {
	wire.List(c, &x.Copies, func(c *wire.Coder, b *BlockCopy) { b.Wire(c) })
}
