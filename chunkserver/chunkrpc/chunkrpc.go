// Package chunkrpc is the protocol between chunk servers and their clients:
// gRPC service agentdrive.chunk.v1.Chunk, unary calls, without protobuf.
//
// A message is
//
//	length of the header, u32 big endian | header | payload
//
// where the header is a wire record (version 1) and the payload the raw bytes
// of a block, if the call carries one. The payload is neither copied nor
// encoded on its way out, and copied once on its way in (gRPC delivers it in
// pieces).
//
//	Call    Request header   payload   Reply header   payload
//	Put     PutRequest       data      Empty
//	Get     GetRequest                 GetReply       data
//	Fetch   FetchRequest               FetchReply     data, whole block
//	Has     HasRequest                 HasReply
//	Delete  DeleteRequest              Empty
//	List    ListRequest                ListReply
//	Status  Empty                      StatusReply
//	Pull    PullRequest                PullReply
//
// Errors are packed by package rpcerr.
package chunkrpc

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/grpc/mem"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/internal/rpc/rpcerr"
	"agentdrive/internal/wire"
)

// Service is the gRPC service name; Version the newest version of the headers.
const (
	Service = "agentdrive.chunk.v1.Chunk"
	Version = 1
)

// Method names.
const (
	Put    = "Put"
	Get    = "Get"
	Fetch  = "Fetch"
	Has    = "Has"
	Delete = "Delete"
	List   = "List"
	Status = "Status"
	Pull   = "Pull"
)

// Message is one message. Of an outgoing one gRPC keeps Payload until it is
// sent. Implements rpc.BufferMessage.
type Message struct {
	Header  []byte // encoded
	Payload []byte

	pool mem.BufferPool // of an incoming one, see Pooled
	buf  mem.Buffer
}

// NewMessage makes an outgoing message.
func NewMessage(header wire.Message, payload []byte) *Message {
	return &Message{Header: wire.Marshal(nil, Version, header), Payload: payload}
}

// Pooled makes an empty message whose content, once received, lives in memory
// of gRPC's pool until Free.
func Pooled() *Message { return &Message{pool: mem.DefaultBufferPool()} }

// Free gives back the memory of a pooled message; Header and Payload must not
// be used any more.
func (m *Message) Free() {
	if m.buf != nil {
		m.buf.Free()
		m.buf, m.Header, m.Payload = nil, nil, nil
	}
}

// MarshalBuffers implements rpc.BufferMessage.
func (m *Message) MarshalBuffers() (mem.BufferSlice, error) {
	head := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(m.Header)), uint32(len(m.Header)))
	out := mem.BufferSlice{mem.SliceBuffer(append(head, m.Header...))}
	if len(m.Payload) > 0 {
		out = append(out, mem.SliceBuffer(m.Payload))
	}
	return out, nil
}

// UnmarshalBuffers implements rpc.BufferMessage. Bytes that are no message
// leave an empty one, which Decode refuses: so the error crosses like others.
func (m *Message) UnmarshalBuffers(data mem.BufferSlice) error {
	var b []byte
	if m.pool != nil {
		m.buf = data.MaterializeToBuffer(m.pool)
		b = m.buf.ReadOnlyData()
	} else {
		b = data.Materialize()
	}
	m.Header, m.Payload = split(b)
	return nil
}

// split cuts a message at the end of its header; nil if it is malformed.
func split(b []byte) (header, payload []byte) {
	if len(b) < 4 {
		return nil, nil
	}
	n := int64(binary.BigEndian.Uint32(b))
	if n > int64(len(b)-4) {
		return nil, nil
	}
	return b[4 : 4+n : 4+n], b[4+n:]
}

// Decode reads the header. Byte slices in it alias the message.
func (m *Message) Decode(header wire.Message) error {
	if err := wire.Unmarshal(m.Header, Version, header); err != nil {
		return errs.E("chunk.decode", errs.Other, fmt.Sprintf("header of %T", header), err)
	}
	return nil
}

// Empty has no fields.
type Empty struct{}

// Wire codes nothing.
func (*Empty) Wire(*wire.Coder) {}

// PutRequest stores the payload.
type PutRequest struct {
	Grant chunk.Grant
	ID    chunk.BlockID
	Owner chunk.Owner
	Sums  []uint32
}

// Wire codes the fields in order.
func (r *PutRequest) Wire(c *wire.Coder) {
	r.Grant.Wire(c)
	r.ID.Wire(c)
	r.Owner.Wire(c)
	wire.List(c, &r.Sums, wire.Uint[uint32])
}

// GetRequest reads a range.
type GetRequest struct {
	Grant  chunk.Grant
	ID     chunk.BlockID
	Off    uint32
	Length uint32
}

// Wire codes the fields in order.
func (r *GetRequest) Wire(c *wire.Coder) {
	r.Grant.Wire(c)
	r.ID.Wire(c)
	c.U32(&r.Off)
	c.U32(&r.Length)
}

// GetReply guards the payload on its way.
type GetReply struct{ Sum uint32 } // CRC32C of the payload

// Wire codes the field.
func (r *GetReply) Wire(c *wire.Coder) { c.U32(&r.Sum) }

// FetchRequest asks for a whole block: what a repairing server does.
type FetchRequest struct {
	Grant chunk.Grant
	ID    chunk.BlockID
}

// Wire codes the fields in order.
func (r *FetchRequest) Wire(c *wire.Coder) {
	r.Grant.Wire(c)
	r.ID.Wire(c)
}

// FetchReply describes the payload.
type FetchReply struct {
	Owner chunk.Owner
	Sums  []uint32
}

// Wire codes the fields in order.
func (r *FetchReply) Wire(c *wire.Coder) {
	r.Owner.Wire(c)
	wire.List(c, &r.Sums, wire.Uint[uint32])
}

func codeIDs(c *wire.Coder, ids *[]chunk.BlockID) {
	wire.List(c, ids, func(c *wire.Coder, id *chunk.BlockID) { id.Wire(c) })
}

// HasRequest asks which blocks are stored.
type HasRequest struct {
	Grant chunk.Grant
	IDs   []chunk.BlockID
}

// Wire codes the fields in order.
func (r *HasRequest) Wire(c *wire.Coder) {
	r.Grant.Wire(c)
	codeIDs(c, &r.IDs)
}

// HasReply answers in the order of the request.
type HasReply struct{ Has []bool }

// Wire codes the field.
func (r *HasReply) Wire(c *wire.Coder) {
	wire.List(c, &r.Has, func(c *wire.Coder, b *bool) { c.Bool(b) })
}

// DeleteRequest removes blocks.
type DeleteRequest struct {
	Grant chunk.Grant
	IDs   []chunk.BlockID
}

// Wire codes the fields in order.
func (r *DeleteRequest) Wire(c *wire.Coder) {
	r.Grant.Wire(c)
	codeIDs(c, &r.IDs)
}

// ListRequest asks for blocks in order of id.
type ListRequest struct {
	Grant chunk.Grant
	Owned bool // only Owner's
	Owner chunk.Owner
	After chunk.BlockID
	Limit int64
}

// Wire codes the fields in order; Owner only if Owned.
func (r *ListRequest) Wire(c *wire.Coder) {
	r.Grant.Wire(c)
	c.Bool(&r.Owned)
	if r.Owned {
		r.Owner.Wire(c)
	}
	r.After.Wire(c)
	c.I64(&r.Limit)
}

// ListReply describes blocks.
type ListReply struct{ Infos []chunk.Info }

// Wire codes the field.
func (r *ListReply) Wire(c *wire.Coder) {
	wire.List(c, &r.Infos, func(c *wire.Coder, i *chunk.Info) {
		i.ID.Wire(c)
		i.Owner.Wire(c)
		c.U32(&i.Len)
	})
}

// StatusReply describes the store.
type StatusReply struct{ chunk.Status }

// Wire codes the fields in order.
func (r *StatusReply) Wire(c *wire.Coder) {
	c.U64(&r.Blocks)
	c.U64(&r.Live)
	c.U64(&r.Used)
	c.U64(&r.Free)
	c.Bool(&r.ReadOnly)
}

// PullRequest asks the server to fetch blocks from another one.
type PullRequest struct {
	Grant chunk.Grant
	From  string // address of the other server
	IDs   []chunk.BlockID
}

// Wire codes the fields in order.
func (r *PullRequest) Wire(c *wire.Coder) {
	r.Grant.Wire(c)
	c.String(&r.From)
	codeIDs(c, &r.IDs)
}

// PullReply answers in the order of the request.
type PullReply struct{ Results []rpcerr.Record }

// Wire codes the field.
func (r *PullReply) Wire(c *wire.Coder) {
	wire.List(c, &r.Results, func(c *wire.Coder, e *rpcerr.Record) { e.Wire(c) })
}
