package server

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc"

	"agentdrive/internal/errs"
	"agentdrive/internal/rpc"
	"agentdrive/internal/rpc/rpcerr"
	"agentdrive/internal/wire"
	"agentdrive/replication/consensus"
)

// The service Peer: what metadata servers ask each other besides Raft.
const (
	peerService = "agentdrive.meta.v1.Peer"
	callTerm    = "Term" // termCall -> termReply
)

const peerVersion = 1

// TermCall asks for the current term of a group.
type TermCall struct{ Group uint32 }

// Wire codes the group.
func (x *TermCall) Wire(c *wire.Coder) { c.U32(&x.Group) }

// TermReply answers TermCall.
type TermReply struct{ Term uint64 }

// Wire codes the term.
func (x *TermReply) Wire(c *wire.Coder) { c.U64(&x.Term) }

// errorCodec carries errs.Error through gRPC.
func errorCodec(peer string) rpc.ErrorCodec {
	return rpc.ErrorCodec{
		ToWire:   rpcerr.ToStatus,
		FromWire: func(err error) error { return rpcerr.FromStatus("metaserver", peer, err) },
	}
}

// peers keeps connections to the other metadata servers.
type peers struct {
	network rpc.Network

	mu     sync.Mutex // guards the fields below; leaf
	conns  map[string]*grpc.ClientConn
	closed bool
}

func newPeers(n rpc.Network) *peers {
	return &peers{network: n, conns: map[string]*grpc.ClientConn{}}
}

func (p *peers) conn(addr string) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed { // a call that is still under way must not leave a connection behind
		return nil, errs.E("peer.dial", errs.Unavailable, "the server is shutting down", nil)
	}
	if cc := p.conns[addr]; cc != nil {
		return cc, nil
	}
	cc, err := rpc.NewClient(p.network, addr)
	if err != nil {
		return nil, err
	}
	p.conns[addr] = cc
	return cc, nil
}

func (p *peers) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var all []error
	for _, cc := range p.conns {
		all = append(all, cc.Close())
	}
	return errors.Join(all...)
}

// groupPeers asks for the terms of one group.
type groupPeers struct {
	*peers
	group uint32
}

func (p *peers) forGroup(id uint32) consensus.TermPeers { return groupPeers{p, id} }

// AskTerm implements consensus.TermPeers.
func (p groupPeers) AskTerm(ctx context.Context, peer consensus.Peer) (uint64, error) {
	cc, err := p.conn(peer.Addr)
	if err != nil {
		return 0, err
	}
	b, err := rpc.CallUnary(ctx, cc, errorCodec(peer.Addr), rpc.Method{Service: peerService, Name: callTerm},
		wire.Marshal(nil, peerVersion, &TermCall{p.group}))
	if err != nil {
		return 0, err
	}
	var reply TermReply
	if err := wire.Unmarshal(b, peerVersion, &reply); err != nil {
		return 0, errs.E("peer.term", errs.Other, "from "+peer.Addr, err)
	}
	return reply.Term, nil
}

// answerTerm serves callTerm.
func (s *Server) answerTerm(_ context.Context, req []byte) ([]byte, error) {
	var call TermCall
	if err := wire.Unmarshal(req, peerVersion, &call); err != nil {
		return nil, err
	}
	h, err := s.host(call.Group)
	if err != nil {
		return nil, errs.E("peer.term", errs.Other, fmt.Sprintf("group %d", call.Group), err)
	}
	return wire.Marshal(nil, peerVersion, &TermReply{h.group.CurrentTerm()}), nil
}
