package server_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"agentdrive/chunkserver/chunk"
	"agentdrive/chunkserver/chunk/memstore"
	"agentdrive/chunkserver/chunkclient"
	"agentdrive/chunkserver/chunkrpc"
	"agentdrive/chunkserver/chunktest"
	"agentdrive/chunkserver/engine"
	"agentdrive/chunkserver/server"
	"agentdrive/internal/disk"
	"agentdrive/internal/errs"
	"agentdrive/internal/rpc"
	"agentdrive/internal/rpc/memnet"
	"agentdrive/internal/rpc/rpcerr"
	"agentdrive/internal/wire"
)

// serve puts a store on the network and returns its address.
func serve(t *testing.T, network rpc.Network, addr string, store chunk.Store) string {
	t.Helper()
	lis, err := network.Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := server.New(store, server.Config{Cluster: chunktest.Cluster, Dial: network.Dial})
	if err != nil {
		t.Fatal(err)
	}
	gs := grpc.NewServer(rpc.ServerOptions()...)
	srv.Register(gs)
	ended := make(chan error, 1)
	go func() { ended <- gs.Serve(lis) }()
	t.Cleanup(func() {
		gs.Stop()
		if err := errors.Join(<-ended, srv.Close()); err != nil {
			t.Error(err)
		}
	})
	return lis.Addr().String()
}

func dial(t *testing.T, network rpc.Network, addr string) *chunkclient.Client {
	t.Helper()
	c, err := chunkclient.Dial(chunkclient.Config{Addr: addr, Dial: network.Dial})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestConformance(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		chunktest.Run(t, func(t *testing.T) chunk.Store {
			n := memnet.New()
			addr := serve(t, n.Host("c1"), "c1:0", memstore.New(chunktest.Cluster))
			return dial(t, n.Host("m1"), addr)
		})
	})
	t.Run("tcp and disk", func(t *testing.T) {
		chunktest.Run(t, func(t *testing.T) chunk.Store {
			s, err := engine.Open(engine.Config{FS: disk.OS{}, Dir: t.TempDir(), Cluster: chunktest.Cluster, Server: 1, SegmentBytes: 8 << 20, Reserve: -1})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
			return dial(t, rpc.TCP{}, serve(t, rpc.TCP{}, "127.0.0.1:0", s))
		})
	})
}

// The server checks by itself, not by grace of its client or store.
func TestHostileRequests(t *testing.T) {
	n := memnet.New()
	addr := serve(t, n.Host("c1"), "c1:0", blindStore{memstore.New(chunktest.Cluster)})
	cc, err := rpc.NewClient(n.Host("m1"), addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	call := func(method string, m *chunkrpc.Message) error {
		var in chunkrpc.Message
		err := cc.Invoke(t.Context(), "/"+chunkrpc.Service+"/"+method, m, &in, grpc.ForceCodecV2(rpc.RawCodec{}))
		return rpcerr.FromStatus("test", addr, err)
	}
	g, none := chunktest.Grant(), chunk.Grant{}
	b := chunktest.Block(1, 1000)
	many := make([]chunk.BlockID, chunk.MaxPerCall+1)
	for _, tc := range []struct {
		name   string
		method string
		m      *chunkrpc.Message
		want   errs.Kind
	}{
		{"no header", chunkrpc.Put, &chunkrpc.Message{}, errs.Corrupt},
		{"newer header", chunkrpc.Put, &chunkrpc.Message{Header: []byte{9}}, errs.Version},
		{"put without grant", chunkrpc.Put, chunkrpc.NewMessage(&chunkrpc.PutRequest{Grant: none, ID: b.ID, Sums: b.Sums}, b.Data), errs.Refused},
		{"put of other data", chunkrpc.Put, chunkrpc.NewMessage(&chunkrpc.PutRequest{Grant: g, ID: b.ID, Sums: b.Sums}, b.Data[1:]), errs.Corrupt},
		{"put without sums", chunkrpc.Put, chunkrpc.NewMessage(&chunkrpc.PutRequest{Grant: g, ID: b.ID}, b.Data), errs.Invalid},
		{"put of nothing", chunkrpc.Put, chunkrpc.NewMessage(&chunkrpc.PutRequest{Grant: g, ID: b.ID}, nil), errs.Invalid},
		{"put too long", chunkrpc.Put, chunkrpc.NewMessage(&chunkrpc.PutRequest{Grant: g, ID: b.ID}, make([]byte, chunk.MaxBlock+1)), errs.Invalid},
		{"get too long", chunkrpc.Get, chunkrpc.NewMessage(&chunkrpc.GetRequest{Grant: g, ID: b.ID, Length: 1<<32 - 1}, nil), errs.Invalid},
		{"get without grant", chunkrpc.Get, chunkrpc.NewMessage(&chunkrpc.GetRequest{Grant: none, ID: b.ID, Length: 1}, nil), errs.Refused},
		{"fetch without grant", chunkrpc.Fetch, chunkrpc.NewMessage(&chunkrpc.FetchRequest{Grant: none, ID: b.ID}, nil), errs.Refused},
		{"has too many", chunkrpc.Has, chunkrpc.NewMessage(&chunkrpc.HasRequest{Grant: g, IDs: many}, nil), errs.Invalid},
		{"delete too many", chunkrpc.Delete, chunkrpc.NewMessage(&chunkrpc.DeleteRequest{Grant: g, IDs: many}, nil), errs.Invalid},
		{"delete without grant", chunkrpc.Delete, chunkrpc.NewMessage(&chunkrpc.DeleteRequest{Grant: none}, nil), errs.Refused},
		{"list too many", chunkrpc.List, chunkrpc.NewMessage(&chunkrpc.ListRequest{Grant: g, Limit: 1 << 62}, nil), errs.Invalid},
		{"list backwards", chunkrpc.List, chunkrpc.NewMessage(&chunkrpc.ListRequest{Grant: g, Limit: -1 << 62}, nil), errs.Invalid},
		{"pull too many", chunkrpc.Pull, chunkrpc.NewMessage(&chunkrpc.PullRequest{Grant: g, From: "c1:1", IDs: many}, nil), errs.Invalid},
		{"pull without grant", chunkrpc.Pull, chunkrpc.NewMessage(&chunkrpc.PullRequest{Grant: none, From: "c1:1"}, nil), errs.Refused},
		{"pull from nowhere", chunkrpc.Pull, chunkrpc.NewMessage(&chunkrpc.PullRequest{Grant: g, From: "rubbish"}, nil), errs.Usage},
		{"unknown call", "Format", &chunkrpc.Message{}, errs.Unsupported},
	} {
		if err := call(tc.method, tc.m); !errs.Is(err, tc.want) {
			t.Errorf("%s: %v (kind %v), want kind %v", tc.name, err, errs.KindOf(err), tc.want)
		}
	}
}

// blindStore takes everything.
type blindStore struct{ chunk.Store }

func (blindStore) Put(context.Context, chunk.Grant, chunk.Block) error { return nil }
func (blindStore) Get(context.Context, chunk.Grant, chunk.BlockID, uint32, uint32) ([]byte, error) {
	return nil, nil
}
func (blindStore) Has(context.Context, chunk.Grant, []chunk.BlockID) ([]bool, error) { return nil, nil }
func (blindStore) Delete(context.Context, chunk.Grant, []chunk.BlockID) error        { return nil }

// A server fetches what it lacks, replaces what is damaged, and answers for
// each block.
func TestPull(t *testing.T) {
	n := memnet.New()
	src, dst := memstore.New(chunktest.Cluster), memstore.New(chunktest.Cluster)
	from := serve(t, n.Host("c1"), "c1:0", src)
	to := dial(t, n.Host("m1"), serve(t, n.Host("c2"), "c2:0", dst))
	var ids []chunk.BlockID
	for i := range uint64(10) {
		b := chunktest.Block(i, int(i+1)*30000)
		chunktest.MustPut(t, src, b)
		ids = append(ids, b.ID)
	}
	chunktest.MustPut(t, dst, chunktest.Block(0, 30000)) // has it
	chunktest.MustPut(t, dst, chunktest.Block(1, 60000)) // has it, damaged
	dst.Rot(ids[1], 40000)
	src.Rot(ids[2], 5) // the source is damaged
	unknown := chunk.BlockID{1}
	results, err := to.Pull(t.Context(), chunktest.Grant(), from, append(ids, unknown))
	if err != nil || len(results) != 11 {
		t.Fatalf("%d results, %v", len(results), err)
	}
	for i, r := range results {
		switch {
		case i == 2:
			chunktest.WantKind(t, r.Err, errs.Corrupt)
		case i == 10:
			chunktest.WantKind(t, r.Err, errs.NotExist)
		case r.Err != nil:
			t.Errorf("block %d: %v", i, r.Err)
		default:
			chunktest.WantBlock(t, dst, chunktest.Block(uint64(i), (i+1)*30000))
		}
	}
	infos, err := dst.List(t.Context(), chunktest.Grant(), &chunk.Owner{Group: 1, Drive: 2, Session: 2, Epoch: 1}, chunk.BlockID{}, 100)
	if err != nil || len(infos) != 2 { // blocks 5 and 8; 2 was damaged
		t.Errorf("owners did not come along: %v, %v", infos, err)
	}
	results, err = to.Pull(t.Context(), chunktest.Grant(), "c9:1", ids[3:5])
	if err != nil || results[0].Err != nil {
		t.Errorf("what is here needs no source: %v, %v", results, err)
	}
	results, err = to.Pull(t.Context(), chunktest.Grant(), "c9:1", []chunk.BlockID{unknown})
	if err != nil || !errs.Is(results[0].Err, errs.Unavailable) {
		t.Errorf("a source that is away: %v, %v", results, err)
	}
}

// What the network changed is noticed on arrival.
func TestDamagedReply(t *testing.T) {
	n := memnet.New()
	lis, err := n.Host("c1").Listen("c1:0")
	if err != nil {
		t.Fatal(err)
	}
	reply := func(header wire.Message, payload string) grpc.MethodHandler {
		return func(_ any, _ context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			return chunkrpc.NewMessage(header, []byte(payload)), dec(&chunkrpc.Message{})
		}
	}
	gs := grpc.NewServer(rpc.ServerOptions()...)
	gs.RegisterService(&grpc.ServiceDesc{ServiceName: chunkrpc.Service, HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{
		{MethodName: chunkrpc.Get, Handler: reply(&chunkrpc.GetReply{Sum: 1}, "data")},
		{MethodName: chunkrpc.Fetch, Handler: reply(&chunkrpc.FetchReply{Sums: []uint32{1}}, "data")},
		{MethodName: chunkrpc.Has, Handler: reply(&chunkrpc.HasReply{}, "")},
		{MethodName: chunkrpc.Pull, Handler: reply(&chunkrpc.PullReply{}, "")},
	}}, nil)
	ended := make(chan error, 1)
	go func() { ended <- gs.Serve(lis) }()
	t.Cleanup(func() {
		gs.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	c, g, id := dial(t, n.Host("m1"), lis.Addr().String()), chunktest.Grant(), chunk.BlockID{1}
	_, err = c.Get(t.Context(), g, id, 0, 4)
	chunktest.WantKind(t, err, errs.Corrupt)
	_, err = c.Get(t.Context(), g, id, 0, 5)
	chunktest.WantKind(t, err, errs.Corrupt)
	_, err = c.Fetch(t.Context(), g, id)
	chunktest.WantKind(t, err, errs.Corrupt)
	_, err = c.Has(t.Context(), g, []chunk.BlockID{id})
	chunktest.WantKind(t, err, errs.Corrupt)
	_, err = c.Pull(t.Context(), g, "c2:1", []chunk.BlockID{id})
	chunktest.WantKind(t, err, errs.Corrupt)
}

// A refused connection is Unavailable at once and names the peer; so is a
// closed client.
func TestUnavailable(t *testing.T) {
	n := memnet.New()
	c := dial(t, n.Host("m1"), "c9:1")
	_, err := c.Status(t.Context())
	chunktest.WantKind(t, err, errs.Unavailable)
	if err == nil || !strings.Contains(err.Error(), "c9:1") || errs.HintOf(err) == "" {
		t.Errorf("%v (hint %q)", err, errs.HintOf(err))
	}
	c = dial(t, n.Host("m1"), serve(t, n.Host("c1"), "c1:0", memstore.New(chunktest.Cluster)))
	if _, err := c.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = c.Status(t.Context())
	chunktest.WantKind(t, err, errs.Unavailable)
}

// A peer that accepts and says nothing costs each caller its own context only.
func TestHungPeer(t *testing.T) {
	lis, err := rpc.TCP{}.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, 16)
	go func() {
		for {
			c, err := lis.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	t.Cleanup(func() {
		_ = lis.Close()
		for c := range accepted {
			_ = c.Close()
		}
	})
	hung := dial(t, rpc.TCP{}, lis.Addr().String())
	good := dial(t, rpc.TCP{}, serve(t, rpc.TCP{}, "127.0.0.1:0", memstore.New(chunktest.Cluster)))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- hung.Put(ctx, chunktest.Grant(), chunktest.Block(1, chunk.MaxBlock)) }()
	b := chunktest.Block(2, chunk.MaxBlock)
	chunktest.MustPut(t, good, b)
	chunktest.WantBlock(t, good, b)
	select {
	case err := <-done:
		t.Fatalf("the hung put ended by itself: %v", err)
	default:
	}
	cancel()
	chunktest.WantKind(t, <-done, errs.Canceled)
}

func TestConfigInvalid(t *testing.T) {
	m := memstore.New(chunktest.Cluster)
	for name, cfg := range map[string]server.Config{"no cluster": {}, "little memory": {Cluster: chunktest.Cluster, PullBytes: 1}} {
		if _, err := server.New(m, cfg); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := chunkclient.Dial(chunkclient.Config{Addr: "c1:1"}); !errs.Is(err, errs.Invalid) {
		t.Errorf("no dialer: %v", err)
	}
	if _, err := chunkclient.Dial(chunkclient.Config{Addr: "nonsense", Dial: rpc.TCP{}.Dial}); !errs.Is(err, errs.Usage) {
		t.Errorf("bad address: %v", err)
	}
}
