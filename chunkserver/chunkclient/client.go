// Package chunkclient speaks to a chunk server. A Client is a chunk.Store.
//
// Errors of the server arrive with their kind and name the peer; a server
// that cannot be reached is errs.Unavailable at once, not after a timeout. A
// peer that hangs costs the caller its context, and after some seconds without
// an answer to pings its connection; other clients are not affected.
package chunkclient

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"

	"agentdrive/chunkserver/chunk"
	"agentdrive/chunkserver/chunkrpc"
	"agentdrive/internal/errs"
	"agentdrive/internal/rpc"
	"agentdrive/internal/rpc/rpcerr"
	"agentdrive/internal/wire"
)

// Dialer opens a byte stream to an address.
type Dialer func(ctx context.Context, addr string) (net.Conn, error)

// Config describes a client. Addr and Dial are required.
type Config struct {
	Addr  string // as in package rpc
	Dial  Dialer
	Conns int // connections for block data; default 2. Small calls have one more.
}

// Client is a chunk server seen from elsewhere. Safe for concurrent use.
type Client struct {
	addr  string
	small *grpc.ClientConn   // small calls never queue behind block data
	bulk  []*grpc.ClientConn // taken in turn
	turn  atomic.Uint32

	closeOnce sync.Once
}

var _ chunk.Store = (*Client)(nil)

// network makes a Dialer an rpc.Network.
type network struct{ dial Dialer }

func (n network) Dial(ctx context.Context, addr string) (net.Conn, error) { return n.dial(ctx, addr) }

func (n network) Listen(addr string) (net.Listener, error) {
	return nil, errs.E("chunkclient.listen", errs.Unsupported, addr, nil)
}

// Dial makes a client. It connects when first used and again whenever the
// connection was lost. errs.Usage for a malformed address.
func Dial(cfg Config) (*Client, error) {
	if cfg.Conns == 0 {
		cfg.Conns = 2
	}
	if cfg.Dial == nil || cfg.Conns < 0 {
		return nil, errs.E("chunkclient.dial", errs.Invalid, fmt.Sprintf("no dialer, or %d connections", cfg.Conns), nil)
	}
	c := &Client{addr: cfg.Addr}
	for range 1 + cfg.Conns {
		cc, err := rpc.NewClient(network{cfg.Dial}, cfg.Addr)
		if err != nil {
			return nil, errs.E("chunkclient.dial", errs.Other, "", errors.Join(err, c.Close()))
		}
		if c.small == nil {
			c.small = cc
		} else {
			c.bulk = append(c.bulk, cc)
		}
	}
	return c, nil
}

// Addr is the address of the server.
func (c *Client) Addr() string { return c.addr }

// Close ends the connections; calls under way fail with errs.Unavailable. A
// second call does nothing.
func (c *Client) Close() error {
	var err error
	c.closeOnce.Do(func() { err = c.close() })
	return err
}

func (c *Client) close() error {
	var all []error
	for _, cc := range append([]*grpc.ClientConn{c.small}, c.bulk...) {
		if cc != nil {
			all = append(all, cc.Close())
		}
	}
	return errors.Join(all...)
}

// call does one call and decodes the reply's header.
func (c *Client) call(ctx context.Context, method string, req *chunkrpc.Message, reply wire.Message) (*chunkrpc.Message, error) {
	op := "chunk." + strings.ToLower(method)
	if err := chunk.Ended(op, ctx); err != nil {
		return nil, err
	}
	cc := c.small
	if method == chunkrpc.Put || method == chunkrpc.Get || method == chunkrpc.Fetch {
		cc = c.bulk[int(c.turn.Add(1))%len(c.bulk)]
	}
	var in chunkrpc.Message
	err := cc.Invoke(ctx, "/"+chunkrpc.Service+"/"+method, req, &in, grpc.ForceCodecV2(rpc.RawCodec{}))
	if err != nil {
		err = rpcerr.FromStatus(op, c.addr, err)
		if errs.Is(err, errs.Canceled) && ctx.Err() == nil { // by Close, not by the caller
			err = errs.E(op, errs.Unavailable, c.addr, err)
		}
		return nil, err
	}
	if err := in.Decode(reply); err != nil {
		return nil, errs.E(op, errs.Other, c.addr, err)
	}
	return &in, nil
}

// Put implements chunk.Store. When ctx ends or the connection breaks first,
// gRPC may read b.Data a little longer: then the caller must not modify it.
func (c *Client) Put(ctx context.Context, g chunk.Grant, b chunk.Block) error {
	if err := b.Check("chunk.put"); err != nil { // do not send what will be refused
		return err
	}
	req := chunkrpc.PutRequest{Grant: g, ID: b.ID, Owner: b.Owner, Sums: b.Sums}
	_, err := c.call(ctx, chunkrpc.Put, chunkrpc.NewMessage(&req, b.Data), &chunkrpc.Empty{})
	return err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Get implements chunk.Store.
func (c *Client) Get(ctx context.Context, g chunk.Grant, id chunk.BlockID, off, length uint32) ([]byte, error) {
	req := chunkrpc.GetRequest{Grant: g, ID: id, Off: off, Length: length}
	var reply chunkrpc.GetReply
	in, err := c.call(ctx, chunkrpc.Get, chunkrpc.NewMessage(&req, nil), &reply)
	if err != nil {
		return nil, err
	}
	if n := len(in.Payload); n != int(length) || crc32.Checksum(in.Payload, castagnoli) != reply.Sum {
		return nil, errs.E("chunk.get", errs.Corrupt, fmt.Sprintf("%s: block %s: %d of %d bytes arrived, or their checksum is wrong", c.addr, id, n, length), nil)
	}
	return in.Payload, nil
}

// Fetch returns a whole block, verified.
func (c *Client) Fetch(ctx context.Context, g chunk.Grant, id chunk.BlockID) (chunk.Block, error) {
	req := chunkrpc.FetchRequest{Grant: g, ID: id}
	var reply chunkrpc.FetchReply
	in, err := c.call(ctx, chunkrpc.Fetch, chunkrpc.NewMessage(&req, nil), &reply)
	if err != nil {
		return chunk.Block{}, err
	}
	b := chunk.Block{ID: id, Owner: reply.Owner, Sums: reply.Sums, Data: in.Payload}
	if err := b.Check("chunk.fetch"); err != nil {
		return chunk.Block{}, errs.E("chunk.fetch", errs.Corrupt, c.addr, err)
	}
	return b, nil
}

// Has implements chunk.Store.
func (c *Client) Has(ctx context.Context, g chunk.Grant, ids []chunk.BlockID) ([]bool, error) {
	var reply chunkrpc.HasReply
	if _, err := c.call(ctx, chunkrpc.Has, chunkrpc.NewMessage(&chunkrpc.HasRequest{Grant: g, IDs: ids}, nil), &reply); err != nil {
		return nil, err
	}
	if len(reply.Has) != len(ids) {
		return nil, c.malformed("chunk.has", len(reply.Has), len(ids))
	}
	return reply.Has, nil
}

func (c *Client) malformed(op string, got, want int) error {
	return errs.E(op, errs.Corrupt, fmt.Sprintf("%s answered %d ids, asked were %d", c.addr, got, want), nil)
}

// Delete implements chunk.Store.
func (c *Client) Delete(ctx context.Context, g chunk.Grant, ids []chunk.BlockID) error {
	_, err := c.call(ctx, chunkrpc.Delete, chunkrpc.NewMessage(&chunkrpc.DeleteRequest{Grant: g, IDs: ids}, nil), &chunkrpc.Empty{})
	return err
}

// List implements chunk.Store.
func (c *Client) List(ctx context.Context, g chunk.Grant, owner *chunk.Owner, after chunk.BlockID, limit int) ([]chunk.Info, error) {
	req := chunkrpc.ListRequest{Grant: g, After: after, Limit: int64(limit)}
	if owner != nil {
		req.Owned, req.Owner = true, *owner
	}
	var reply chunkrpc.ListReply
	_, err := c.call(ctx, chunkrpc.List, chunkrpc.NewMessage(&req, nil), &reply)
	return reply.Infos, err
}

// Status implements chunk.Store.
func (c *Client) Status(ctx context.Context) (chunk.Status, error) {
	var reply chunkrpc.StatusReply
	_, err := c.call(ctx, chunkrpc.Status, chunkrpc.NewMessage(&chunkrpc.Empty{}, nil), &reply)
	return reply.Status, err
}

// Pull has the server fetch blocks from the server at address from and store
// them; the results stand in the order of ids. The grant needs the rights to
// read and to write. Blocks that it already has intact are not fetched.
func (c *Client) Pull(ctx context.Context, g chunk.Grant, from string, ids []chunk.BlockID) ([]chunk.PullResult, error) {
	var reply chunkrpc.PullReply
	if _, err := c.call(ctx, chunkrpc.Pull, chunkrpc.NewMessage(&chunkrpc.PullRequest{Grant: g, From: from, IDs: ids}, nil), &reply); err != nil {
		return nil, err
	}
	if len(reply.Results) != len(ids) {
		return nil, c.malformed("chunk.pull", len(reply.Results), len(ids))
	}
	results := make([]chunk.PullResult, len(ids))
	for i := range ids {
		results[i] = chunk.PullResult{ID: ids[i], Err: reply.Results[i].Err()}
	}
	return results, nil
}
