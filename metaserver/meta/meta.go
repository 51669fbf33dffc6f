// Package meta is the vocabulary of the metadata service: the words, records
// and messages that clients and servers share. It holds no behaviour besides
// encoding and validation.
//
// A client speaks to one Raft group over one stream of frames (frames.go).
// Operations that change the namespace (ops.go) carry an id and are executed
// exactly once; reads (reads.go) are linearizable. Results (results.go) and
// errors answer them.
package meta

import (
	"crypto/sha256"
	"encoding/binary"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/wire"
)

// Ino is an inode number, unique within a drive and never reused. The upper
// 44 bits are the locality group in which it was born, the lower SlotBits the
// slot in it. It is also the FUSE node id, except that a mount's root is node
// 1 whatever its inode.
type Ino uint64

// DriveID names a drive within the cluster; never reused.
type DriveID uint64

// LayerID names a layer of a drive within its Raft group; never reused.
type LayerID uint64

// SessionID names a client session within a Raft group: the index of the
// entry that opened it; never reused.
type SessionID uint64

// OpID names a synchronous operation within a session. Ids need not be
// consecutive or ordered; they must not repeat while unacknowledged.
type OpID uint64

// Limits and constants of the namespace.
const (
	SlotBits   = 20
	RootIno    = Ino(1) // the root directory of every drive: group 0, slot 1
	MaxName    = 255    // bytes of a name
	MaxTarget  = 4095   // bytes of a symbolic link's target
	MaxXattr   = 64 << 10
	MaxXattrs  = 64 << 10 // bytes of all names and values of one inode
	MaxLink    = 65000
	MaxSize    = uint64(1) << 60 // bytes of a file
	MaxInline  = 4 << 10         // bytes that travel inside an operation
	MaxExtents = 256             // extents or new blocks in one Write
	MaxEntry   = 512 << 10       // bytes of a Raft entry
	OpWindow   = 1024            // unacknowledged operations of a session
	MaxPath    = 4096
)

// File type bits of Attr.Mode, as in stat(2).
const (
	ModeType    = 0o170000
	ModeDir     = 0o040000
	ModeRegular = 0o100000
	ModeSymlink = 0o120000
	ModeFIFO    = 0o010000
	ModeSocket  = 0o140000
	ModeChar    = 0o020000
	ModeBlock   = 0o060000
	ModeSetuid  = 0o4000
	ModeSetgid  = 0o2000
	ModeSticky  = 0o1000
	ModePerm    = 0o7777
)

// Cred is the caller on whose behalf an operation runs. Group membership
// beyond GID is known to the client's kernel only, which checks access modes
// before the operation is sent (FUSE default_permissions).
type Cred struct {
	UID, GID uint32
}

// Wire codes the fields in order.
func (x *Cred) Wire(c *wire.Coder) {
	c.U32(&x.UID)
	c.U32(&x.GID)
}

// Attr are the attributes of an inode. Times are nanoseconds since the Unix
// epoch.
type Attr struct {
	Ino         Ino
	Mode        uint32 // type and permission bits
	Nlink       uint32
	UID, GID    uint32
	Rdev        uint32
	Size        uint64 // bytes; of a directory, its entries
	Bytes       uint64 // allocated bytes
	Atime       int64
	Mtime       int64
	Ctime       int64
	Btime       int64
	DataVersion uint64 // grows with each change of content or entries
	Xattrs      bool   // it has extended attributes
}

// Wire codes the fields in order.
func (x *Attr) Wire(c *wire.Coder) {
	wire.Uint(c, &x.Ino)
	c.U32(&x.Mode)
	c.U32(&x.Nlink)
	c.U32(&x.UID)
	c.U32(&x.GID)
	c.U32(&x.Rdev)
	c.U64(&x.Size)
	c.U64(&x.Bytes)
	c.I64(&x.Atime)
	c.I64(&x.Mtime)
	c.I64(&x.Ctime)
	c.I64(&x.Btime)
	c.U64(&x.DataVersion)
	c.Bool(&x.Xattrs)
}

// IsDir reports whether the inode is a directory.
func (x *Attr) IsDir() bool { return x.Mode&ModeType == ModeDir }

// IsRegular reports whether the inode is a regular file.
func (x *Attr) IsRegular() bool { return x.Mode&ModeType == ModeRegular }

// ExtentKind says where an extent's bytes are.
type ExtentKind uint8

// The kinds of extents.
const (
	ExtentInline ExtentKind = 1 // in the record itself
	ExtentBlock  ExtentKind = 2 // in a block
)

// Extent maps a range of a file to its content. Ranges of a file without an
// extent read as zeros.
type Extent struct {
	Off      uint64 // in the file, bytes; in an appending Write, from its end
	Len      uint32 // bytes, at least 1
	Kind     ExtentKind
	Inline   []byte        // ExtentInline: Len bytes
	Block    chunk.BlockID // ExtentBlock
	BlockOff uint32        // ExtentBlock: where in the block the range starts
}

// Wire codes the fields and validates them.
func (x *Extent) Wire(c *wire.Coder) {
	c.U64(&x.Off)
	c.U32(&x.Len)
	wire.Uint(c, &x.Kind)
	switch x.Kind {
	case ExtentInline:
		c.Bytes(&x.Inline)
		if c.Decoding() && c.Err() == nil && (len(x.Inline) != int(x.Len) || x.Len > MaxInline) {
			c.Fail("inline extent of %d bytes says %d", len(x.Inline), x.Len)
		}
	case ExtentBlock:
		x.Block.Wire(c)
		c.U32(&x.BlockOff)
		if c.Decoding() && c.Err() == nil && uint64(x.BlockOff)+uint64(x.Len) > chunk.MaxBlock {
			c.Fail("extent reaches beyond its block")
		}
	default:
		c.Fail("extent kind %d", x.Kind)
	}
	if c.Decoding() && c.Err() == nil && (x.Len == 0 || x.Off > MaxSize || x.Off+uint64(x.Len) > MaxSize) {
		c.Fail("extent range %d+%d", x.Off, x.Len)
	}
}

// NewBlock tells the servers of a block that a Write publishes: where it was
// written and which members had it on stable storage then. Members that are
// missing go on the repair list.
type NewBlock struct {
	ID      chunk.BlockID
	PG      uint32 // placement group
	Epoch   uint64 // of the placement group when written
	Len     uint32 // bytes
	Acked   []chunk.ServerID
	Missing []chunk.ServerID
}

// Wire codes the fields in order.
func (x *NewBlock) Wire(c *wire.Coder) {
	x.ID.Wire(c)
	c.U32(&x.PG)
	c.U64(&x.Epoch)
	c.U32(&x.Len)
	wire.List(c, &x.Acked, wire.Uint[chunk.ServerID])
	wire.List(c, &x.Missing, wire.Uint[chunk.ServerID])
	if c.Decoding() && c.Err() == nil && (x.Len == 0 || x.Len > chunk.MaxBlock || len(x.Acked) == 0) {
		c.Fail("block of %d bytes with %d copies", x.Len, len(x.Acked))
	}
}

// BlockRef tells a reader where a block is.
type BlockRef struct {
	ID      chunk.BlockID
	PG      uint32
	Epoch   uint64 // of the placement group when written
	Len     uint32
	Missing []chunk.ServerID // members that have no copy yet
}

// Wire codes the fields in order.
func (x *BlockRef) Wire(c *wire.Coder) {
	x.ID.Wire(c)
	c.U32(&x.PG)
	c.U64(&x.Epoch)
	c.U32(&x.Len)
	wire.List(c, &x.Missing, wire.Uint[chunk.ServerID])
}

// ClientInfo describes a mount to people; status shows it.
type ClientInfo struct {
	Host string
	PID  uint32
	Dir  string // mount point
}

// Wire codes the fields in order.
func (x *ClientInfo) Wire(c *wire.Coder) {
	c.String(&x.Host)
	c.U32(&x.PID)
	c.String(&x.Dir)
}

// FirstCookie is the smallest cookie of a name: below are the start of a
// listing, "." and "..".
const FirstCookie = 3

// NameCookie is the place of a name in its directory: 63 bits of SHA-256. The
// hash is a strong one so that nobody can crowd one cookie, which a page of a
// listing must give whole.
func NameCookie(name string) uint64 {
	sum := sha256.Sum256([]byte(name))
	return max(binary.BigEndian.Uint64(sum[:8])>>1, FirstCookie)
}
