package members

import (
	"context"
	"testing"

	"google.golang.org/grpc"

	"agentdrive/chunkserver/chunk"
	"agentdrive/chunkserver/chunk/memstore"
	chunkserver "agentdrive/chunkserver/server"
	"agentdrive/internal/errs"
	"agentdrive/internal/rpc"
	"agentdrive/internal/rpc/memnet"
)

var cluster = [16]byte{1}

// serve runs a chunk server with some blocks at host:1.
func serve(t *testing.T, net *memnet.Net, host string, blocks int) {
	t.Helper()
	store := memstore.New(cluster)
	for i := range blocks {
		data := []byte{byte(i)}
		if err := store.Put(context.Background(), chunk.Grant{Cluster: cluster, Rights: chunk.RightWrite}, chunk.Block{ID: chunk.BlockID{byte(i + 1)}, Data: data, Sums: chunk.Sums(data)}); err != nil {
			t.Fatal(err)
		}
	}
	ln, err := net.Host(host).Listen(host + ":1")
	if err != nil {
		t.Fatal(err)
	}
	srv, err := chunkserver.New(store, chunkserver.Config{Cluster: cluster})
	if err != nil {
		t.Fatal(err)
	}
	gs := grpc.NewServer(rpc.ServerOptions()...)
	srv.Register(gs)
	go gs.Serve(ln)
	t.Cleanup(func() {
		gs.Stop()
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestRegistry(t *testing.T) {
	net := memnet.New()
	serve(t, net, "a", 1)
	serve(t, net, "b", 2)
	r := New(net.Host("client").Dial)
	blocks := func(id chunk.ServerID) uint64 {
		t.Helper()
		s, err := r.Store(id)
		if err != nil {
			t.Fatal(err)
		}
		st, err := s.Status(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return st.Blocks
	}
	set := func(addrs map[chunk.ServerID]string) {
		t.Helper()
		if err := r.Set(addrs); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := r.Store(1); s != nil || !errs.Is(err, errs.Unavailable) {
		t.Fatalf("unknown server: %v, %v", s, err)
	}
	addrs := map[chunk.ServerID]string{1: "a:1", 2: "b:1"}
	set(addrs)
	addrs[2] = "changed behind its back"
	if n := blocks(1); n != 1 {
		t.Errorf("server 1 has %d blocks", n)
	}
	if n := blocks(2); n != 2 {
		t.Errorf("server 2 has %d blocks", n)
	}
	kept, err := r.Client(1)
	if err != nil {
		t.Fatal(err)
	}
	moved, err := r.Client(2)
	if err != nil {
		t.Fatal(err)
	}

	set(map[chunk.ServerID]string{1: "a:1", 2: "a:1"})
	if c, err := r.Client(1); c != kept || err != nil {
		t.Error("the client of a server that stayed was replaced")
	}
	if n := blocks(2); n != 1 || r.Addr(2) != "a:1" {
		t.Errorf("server 2 moved to a, which has 1 block: %d, address %q", n, r.Addr(2))
	}
	if _, err := moved.Status(context.Background()); err == nil {
		t.Error("the client of the old address still works")
	}

	set(map[chunk.ServerID]string{1: "a:1"})
	if _, err := r.Client(2); !errs.Is(err, errs.Unavailable) || r.Addr(2) != "" {
		t.Errorf("a server that left: %v", err)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Client(1); !errs.Is(err, errs.Unavailable) {
		t.Errorf("after Close: %v", err)
	}
}
