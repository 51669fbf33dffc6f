package posix

import (
	"context"
	"encoding/hex"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc"

	"agentdrive/chunkserver/chunk/memstore"
	chunkserver "agentdrive/chunkserver/server"
	"agentdrive/fuseclient"
	"agentdrive/internal/rpc"
	"agentdrive/internal/rpc/memnet"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/metaclient"
	metaserver "agentdrive/metaserver/server"
	"agentdrive/replication/consensus"
)

var clusterID = [16]byte{1, 2, 3}

const (
	metaAddr  = "meta:1"
	chunkAddr = "chunk:1"
)

// newCluster starts a metadata server and a chunk server in this process, on
// a network in memory, with one drive; it gives a session with the drive.
func newCluster(t *testing.T) *fuseclient.Client {
	net := memnet.New()
	startMeta(t, net)
	startChunks(t, net)
	mc, err := metaclient.New(metaclient.Config{Servers: []string{metaAddr}, Network: net.Host("admin")})
	if err != nil {
		t.Fatal(err)
	}
	defer mc.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	join := &meta.RegisterCall{
		Cluster: hex.EncodeToString(clusterID[:]),
		Server:  meta.ServerInfo{ID: 1, Address: chunkAddr, Host: "chunk"},
	}
	if err := mc.Leader(ctx, 0, meta.CallRegister, join, new(meta.MapReply)); err != nil {
		t.Fatal(err)
	}
	if err := mc.Leader(ctx, 0, meta.CallCreate, &meta.DriveCall{Name: "demo"}, new(meta.DriveInfo)); err != nil {
		t.Fatal(err)
	}
	return openSession(t, fuseclient.Config{Servers: []string{metaAddr}, Network: net.Host("client"), Drive: "demo"})
}

func startMeta(t *testing.T, net *memnet.Net) {
	host := net.Host("meta")
	ln, err := host.Listen(metaAddr)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	mux, err := rpc.NewMux(rpc.MuxConfig{Network: host, Cluster: clusterID, Server: 1, Advertise: metaAddr, Log: log}, ln)
	if err != nil {
		t.Fatal(err)
	}
	gs := grpc.NewServer(rpc.ServerOptions()...)
	srv, err := metaserver.Open(metaserver.Config{
		ID: 1, Cluster: clusterID, Dir: t.TempDir(), Addr: metaAddr, Peers: []consensus.Peer{{ID: 1, Addr: metaAddr}},
		Groups: 1, Policy: metaserver.Policy{Copies: 1, Quorum: 1, MinCopies: 1},
		Network: host, Mux: mux, Version: "test", Log: log,
	}, gs)
	if err != nil {
		t.Fatal(err)
	}
	go gs.Serve(mux.GRPC())
	go mux.Serve()
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		gs.Stop()
		if err := mux.Close(); err != nil {
			t.Error(err)
		}
	})
}

func startChunks(t *testing.T, net *memnet.Net) {
	ln, err := net.Host("chunk").Listen(chunkAddr)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := chunkserver.New(memstore.New(clusterID), chunkserver.Config{Cluster: clusterID})
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
