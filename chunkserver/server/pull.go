package server

import (
	"context"
	"errors"
	"sync"

	"agentdrive/chunkserver/chunk"
	"agentdrive/chunkserver/chunkclient"
	"agentdrive/chunkserver/chunkrpc"
	"agentdrive/internal/errs"
	"agentdrive/internal/rpc/rpcerr"
)

// pullAtOnce is how many blocks one Pull call fetches at a time.
const pullAtOnce = 4

// pull fetches blocks from another server and stores them. Each block has its
// own outcome.
func (s *Server) pull(ctx context.Context, req *chunkrpc.PullRequest, _ []byte) (*chunkrpc.Message, error) {
	const op = "chunk.pull"
	for _, right := range []uint8{chunk.RightRead, chunk.RightWrite} {
		if err := s.allow(op, &req.Grant, right); err != nil {
			return nil, err
		}
	}
	if err := chunk.CheckCount(op, len(req.IDs)); err != nil {
		return nil, err
	}
	peer, err := s.peer(op, req.From)
	if err != nil {
		return nil, err
	}
	results := make([]rpcerr.Record, len(req.IDs))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(pullAtOnce, len(req.IDs)) {
		wg.Go(func() {
			for i := range next {
				results[i] = rpcerr.NewRecord(s.pullOne(ctx, &req.Grant, peer, req.IDs[i]))
			}
		})
	}
	for i := range req.IDs {
		next <- i
	}
	close(next)
	wg.Wait()
	return chunkrpc.NewMessage(&chunkrpc.PullReply{Results: results}, nil), nil
}

// pullOne brings one block here unless it is here and intact. The store itself
// replaces a damaged copy.
func (s *Server) pullOne(ctx context.Context, g *chunk.Grant, peer *chunkclient.Client, id chunk.BlockID) error {
	const op = "chunk.pull"
	select {
	case s.pulls <- struct{}{}:
		defer func() { <-s.pulls }()
	case <-ctx.Done():
		return chunk.Ended(op, ctx)
	}
	intact, err := s.intact(ctx, g, id)
	if intact || err != nil {
		return err
	}
	b, err := peer.Fetch(ctx, *g, id) // verified
	if err != nil {
		return errs.E(op, errs.Other, "", err)
	}
	return s.store.Put(ctx, *g, b)
}

// intact tells whether the block is stored here and passes its checks.
func (s *Server) intact(ctx context.Context, g *chunk.Grant, id chunk.BlockID) (bool, error) {
	infos, err := s.store.List(ctx, *g, nil, before(id), 1)
	if err != nil || len(infos) == 0 || infos[0].ID != id {
		return false, err
	}
	_, err = s.store.Get(ctx, *g, id, 0, infos[0].Len)
	if errs.Is(err, errs.Corrupt) || errs.Is(err, errs.NotExist) {
		return false, nil
	}
	return err == nil, err
}

// maxPeers bounds the clients kept: addresses come from callers.
const maxPeers = 64

// peer returns the client for an address, made on first use. Beyond maxPeers
// another one goes; pulls under way from it fail and are asked for again.
func (s *Server) peer(op, addr string) (*chunkclient.Client, error) {
	if s.cfg.Dial == nil {
		return nil, errs.E(op, errs.Unsupported, "this server has no way to other servers", nil)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errs.E(op, errs.Unavailable, "the server is shutting down", nil)
	}
	if c := s.peers[addr]; c != nil {
		return c, nil
	}
	c, err := chunkclient.Dial(chunkclient.Config{Addr: addr, Dial: s.cfg.Dial, Conns: 1})
	if err != nil {
		return nil, err
	}
	for old, oc := range s.peers {
		if len(s.peers) < maxPeers {
			break
		}
		delete(s.peers, old)
		if err := oc.Close(); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	s.peers[addr] = c
	return c, nil
}
