// Package chunk is the vocabulary of the block store: what everybody who
// speaks to a chunk server shares with it.
//
// A block is a sequence of at most MaxBlock bytes under a random 128-bit id.
// It is written once, never modified, and either absent or whole. Every
// 64 KiB of it carry a CRC32C (Castagnoli) made by the writer, stored beside
// the data and verified by the server on receipt and by the reader on
// arrival.
package chunk

import (
	"context"
	"encoding/hex"
	"hash/crc32"

	"agentdrive/internal/wire"
)

// Sizes in bytes.
const (
	MaxBlock   = 4 << 20  // the longest block
	SumStride  = 64 << 10 // one checksum covers this much
	MaxPerCall = 1024     // ids in one Has, Delete or List call
)

// BlockID names a block; random, never reused.
type BlockID [16]byte

// String renders the id in hex.
func (id BlockID) String() string { return hex.EncodeToString(id[:]) }

// Wire codes the id as 16 bytes.
func (id *BlockID) Wire(c *wire.Coder) { c.Fixed(id[:]) }

// ServerID names a chunk server (or metadata server) for ever; given by the
// operator with --id, from 1.
type ServerID uint32

// Owner says which writer brought a block. Until a metadata group publishes
// the block it belongs to that session; afterwards the group's block table
// decides over its life.
type Owner struct {
	Group   uint32 // Raft group of the drive
	Drive   uint64
	Session uint64
	Epoch   uint64 // epoch of the session
}

// Wire codes the fields in order.
func (o *Owner) Wire(c *wire.Coder) {
	c.U32(&o.Group)
	c.U64(&o.Drive)
	c.U64(&o.Session)
	c.U64(&o.Epoch)
}

// Rights of a Grant.
const (
	RightRead   uint8 = 1
	RightWrite  uint8 = 2
	RightDelete uint8 = 4 // metadata servers only
)

// Grant is the capability that every call carries. Chunk servers check the
// cluster, the rights and the expiry; Signature is reserved for the cluster's
// Ed25519 key and stays empty until keys exist.
type Grant struct {
	Cluster   [16]byte // cluster id
	Owner     Owner
	Rights    uint8
	Expires   int64 // Unix seconds, 0 = no expiry
	Signature []byte
}

// Wire codes the fields in order.
func (g *Grant) Wire(c *wire.Coder) {
	c.Fixed(g.Cluster[:])
	g.Owner.Wire(c)
	c.U8(&g.Rights)
	c.I64(&g.Expires)
	c.Bytes(&g.Signature)
}

// Sums computes the CRC32C of each SumStride of data; empty data has none.
func Sums(data []byte) []uint32 {
	sums := make([]uint32, 0, (len(data)+SumStride-1)/SumStride)
	for len(data) > 0 {
		n := min(len(data), SumStride)
		sums = append(sums, crc32.Checksum(data[:n], castagnoli))
		data = data[n:]
	}
	return sums
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Block is a block on its way: content, checksums, owner.
type Block struct {
	ID    BlockID
	Owner Owner
	Sums  []uint32 // of Data, see Sums
	Data  []byte
}

// Info describes a stored block.
type Info struct {
	ID    BlockID
	Owner Owner
	Len   uint32 // bytes
}

// Status describes a store.
type Status struct {
	Blocks   uint64 // live blocks
	Live     uint64 // bytes of live blocks
	Used     uint64 // bytes of segments on disk
	Free     uint64 // bytes that new blocks may take, reserve deducted
	ReadOnly bool   // out of space or of working disks: puts are refused
}

// Store keeps blocks. The disk engine, the remote client and an in-memory
// store implement it and pass one conformance suite. Safe for concurrent use.
//
// Error kinds: errs.NotExist (block unknown), errs.Exist (id already stored
// with other content), errs.Corrupt (checksum mismatch, on Put: the request's;
// on Get: the disk's), errs.Invalid (too long, empty, bad range), errs.NoSpace,
// errs.Refused (grant), errs.Unavailable (server away), errs.IO.
type Store interface {
	// Put returns nil once the block is on stable storage. Putting the same
	// block again is a success; a stored copy that turns out damaged is
	// replaced. It keeps no reference to b.Data afterwards, except that a
	// remote store may read it a little longer after errs.Canceled,
	// errs.Timeout or errs.Unavailable: do not modify it then.
	Put(ctx context.Context, g Grant, b Block) error
	// Get returns length bytes at off, checked against the checksums of all
	// strides touched. The caller owns the result.
	Get(ctx context.Context, g Grant, id BlockID, off, length uint32) ([]byte, error)
	// Has tells for each id whether the block is stored whole.
	Has(ctx context.Context, g Grant, ids []BlockID) ([]bool, error)
	// Delete removes blocks durably; unknown ids are no error.
	Delete(ctx context.Context, g Grant, ids []BlockID) error
	// List returns up to limit blocks with ids after the given one, ascending;
	// owner nil lists all, else only that owner's. A short answer is the end.
	List(ctx context.Context, g Grant, owner *Owner, after BlockID, limit int) ([]Info, error)
	// Status describes the store.
	Status(ctx context.Context) (Status, error)
}
