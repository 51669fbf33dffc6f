// Package server puts a chunk.Store on the network: gRPC service
// agentdrive.chunk.v1.Chunk (see package chunkrpc).
//
// It trusts nobody: before the store is asked, each request's header must
// decode, counts and sizes must be within bounds, data must match its
// checksums, and the grant must be of this cluster, unexpired and sufficient.
package server

import (
	"context"
	"errors"
	"hash/crc32"
	"sync"
	"time"

	"google.golang.org/grpc"

	"agentdrive/chunkserver/chunk"
	"agentdrive/chunkserver/chunkclient"
	"agentdrive/chunkserver/chunkrpc"
	"agentdrive/internal/errs"
	"agentdrive/internal/rpc/rpcerr"
	"agentdrive/internal/wire"
)

// Config describes a server. Cluster is required.
type Config struct {
	Cluster   [16]byte
	Dial      chunkclient.Dialer // to other chunk servers; nil refuses Pull
	PullBytes int64              // memory for blocks being pulled, by all callers; default 64 MiB
	Now       func() time.Time   // for the expiry of grants; default time.Now
}

// Server serves one store.
type Server struct {
	store chunk.Store
	cfg   Config
	pulls chan struct{} // one token for each block in memory

	mu     sync.Mutex // guards the fields below; leaf
	peers  map[string]*chunkclient.Client
	closed bool
}

// New makes a server. The store stays the caller's.
func New(store chunk.Store, cfg Config) (*Server, error) {
	if cfg.PullBytes == 0 {
		cfg.PullBytes = 64 << 20
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if store == nil || cfg.Cluster == [16]byte{} || cfg.PullBytes < chunk.MaxBlock {
		return nil, errs.E("chunkserver.new", errs.Invalid, "no store, no cluster, or less pull memory than a block", nil)
	}
	return &Server{store: store, cfg: cfg, pulls: make(chan struct{}, cfg.PullBytes/chunk.MaxBlock),
		peers: map[string]*chunkclient.Client{}}, nil
}

// Register adds the service to a gRPC server made with rpc.ServerOptions.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: chunkrpc.Service,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			method(chunkrpc.Put, s.put), method(chunkrpc.Get, s.get), method(chunkrpc.Fetch, s.fetch),
			method(chunkrpc.Has, s.has), method(chunkrpc.Delete, s.delete), method(chunkrpc.List, s.list),
			method(chunkrpc.Status, s.status), method(chunkrpc.Pull, s.pull),
		},
	}, nil)
}

// Close ends the connections to other servers. Stop the gRPC server first.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var all []error
	for addr, c := range s.peers {
		all = append(all, c.Close())
		delete(s.peers, addr)
	}
	return errors.Join(all...)
}

// header is a pointer to a request header type.
type header[T any] interface {
	*T
	wire.Message
}

// method wraps a handler. The payload is valid until the handler returns; the
// reply's payload is given away.
func method[T any, P header[T]](name string, h func(ctx context.Context, req P, payload []byte) (*chunkrpc.Message, error)) grpc.MethodDesc {
	call := func(ctx context.Context, req any) (any, error) {
		m := req.(*chunkrpc.Message)
		defer m.Free()
		p := P(new(T))
		err := m.Decode(p)
		var reply *chunkrpc.Message
		if err == nil {
			reply, err = h(ctx, p, m.Payload)
		}
		if err != nil {
			return nil, rpcerr.ToStatus(err)
		}
		return reply, nil
	}
	handler := func(srv any, ctx context.Context, dec func(any) error, mw grpc.UnaryServerInterceptor) (any, error) {
		m := chunkrpc.Pooled()
		if err := dec(m); err != nil {
			return nil, err
		}
		if mw == nil {
			return call(ctx, m)
		}
		return mw(ctx, m, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/" + chunkrpc.Service + "/" + name}, call)
	}
	return grpc.MethodDesc{MethodName: name, Handler: handler}
}

func empty() *chunkrpc.Message { return chunkrpc.NewMessage(&chunkrpc.Empty{}, nil) }

func (s *Server) allow(op string, g *chunk.Grant, rights uint8) error {
	return g.Check(op, s.cfg.Cluster, rights, s.cfg.Now())
}

func (s *Server) put(ctx context.Context, req *chunkrpc.PutRequest, payload []byte) (*chunkrpc.Message, error) {
	const op = "chunk.put"
	if err := s.allow(op, &req.Grant, chunk.RightWrite); err != nil {
		return nil, err
	}
	b := chunk.Block{ID: req.ID, Owner: req.Owner, Sums: req.Sums, Data: payload}
	if err := b.Check(op); err != nil {
		return nil, err
	}
	if err := s.store.Put(ctx, req.Grant, b); err != nil {
		return nil, err
	}
	return empty(), nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (s *Server) get(ctx context.Context, req *chunkrpc.GetRequest, _ []byte) (*chunkrpc.Message, error) {
	const op = "chunk.get"
	if err := s.allow(op, &req.Grant, chunk.RightRead); err != nil {
		return nil, err
	}
	if err := chunk.CheckRange(op, req.ID, req.Off, req.Length, chunk.MaxBlock); err != nil {
		return nil, err
	}
	data, err := s.store.Get(ctx, req.Grant, req.ID, req.Off, req.Length)
	if err != nil {
		return nil, err
	}
	return chunkrpc.NewMessage(&chunkrpc.GetReply{Sum: crc32.Checksum(data, castagnoli)}, data), nil
}

func (s *Server) fetch(ctx context.Context, req *chunkrpc.FetchRequest, _ []byte) (*chunkrpc.Message, error) {
	const op = "chunk.fetch"
	if err := s.allow(op, &req.Grant, chunk.RightRead); err != nil {
		return nil, err
	}
	infos, err := s.store.List(ctx, req.Grant, nil, before(req.ID), 1)
	if err != nil {
		return nil, err
	}
	if len(infos) == 0 || infos[0].ID != req.ID {
		return nil, errs.E(op, errs.NotExist, "block "+req.ID.String(), nil)
	}
	data, err := s.store.Get(ctx, req.Grant, req.ID, 0, infos[0].Len)
	if err != nil {
		return nil, err
	}
	return chunkrpc.NewMessage(&chunkrpc.FetchReply{Owner: infos[0].Owner, Sums: chunk.Sums(data)}, data), nil
}

// before is the id just below id, so that a list after it begins with id. Id
// zero names no block and is its own predecessor.
func before(id chunk.BlockID) chunk.BlockID {
	if id == (chunk.BlockID{}) {
		return id
	}
	for i := len(id) - 1; ; i-- {
		id[i]--
		if id[i] != 0xff {
			return id
		}
	}
}

func (s *Server) has(ctx context.Context, req *chunkrpc.HasRequest, _ []byte) (*chunkrpc.Message, error) {
	const op = "chunk.has"
	if err := s.allow(op, &req.Grant, chunk.RightRead|chunk.RightWrite); err != nil {
		return nil, err
	}
	if err := chunk.CheckCount(op, len(req.IDs)); err != nil {
		return nil, err
	}
	has, err := s.store.Has(ctx, req.Grant, req.IDs)
	if err != nil {
		return nil, err
	}
	return chunkrpc.NewMessage(&chunkrpc.HasReply{Has: has}, nil), nil
}

func (s *Server) delete(ctx context.Context, req *chunkrpc.DeleteRequest, _ []byte) (*chunkrpc.Message, error) {
	const op = "chunk.delete"
	if err := s.allow(op, &req.Grant, chunk.RightDelete); err != nil {
		return nil, err
	}
	if err := chunk.CheckCount(op, len(req.IDs)); err != nil {
		return nil, err
	}
	if err := s.store.Delete(ctx, req.Grant, req.IDs); err != nil {
		return nil, err
	}
	return empty(), nil
}

func (s *Server) list(ctx context.Context, req *chunkrpc.ListRequest, _ []byte) (*chunkrpc.Message, error) {
	const op = "chunk.list"
	if err := s.allow(op, &req.Grant, chunk.RightRead); err != nil {
		return nil, err
	}
	limit := int(max(-1, min(req.Limit, chunk.MaxPerCall+1)))
	if err := chunk.CheckLimit(op, limit); err != nil {
		return nil, err
	}
	var owner *chunk.Owner
	if req.Owned {
		owner = &req.Owner
	}
	infos, err := s.store.List(ctx, req.Grant, owner, req.After, limit)
	if err != nil {
		return nil, err
	}
	return chunkrpc.NewMessage(&chunkrpc.ListReply{Infos: infos}, nil), nil
}

func (s *Server) status(ctx context.Context, _ *chunkrpc.Empty, _ []byte) (*chunkrpc.Message, error) {
	st, err := s.store.Status(ctx)
	if err != nil {
		return nil, err
	}
	return chunkrpc.NewMessage(&chunkrpc.StatusReply{Status: st}, nil), nil
}
