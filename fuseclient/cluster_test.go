package fuseclient_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc"

	"agentdrive/fuseclient"
	"agentdrive/fuseclient/core"
	"agentdrive/internal/rpc"
	"agentdrive/internal/rpc/memnet"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/metaclient"
	"agentdrive/metaserver/server"
	"agentdrive/replication/consensus"
)

// clusterID is the cluster of these tests.
var clusterID = [16]byte{1, 2, 3}

// testCluster is metadata servers in this process, on a network in memory.
type testCluster struct {
	t      testing.TB
	net    *memnet.Net
	dir    string
	groups uint32
	copies int
	peers  []consensus.Peer
	nodes  []*node
	log    *slog.Logger
}

type node struct {
	srv *server.Server
	gs  *grpc.Server
	mux *rpc.Mux
}

func newCluster(t testing.TB, n int, groups uint32) *testCluster {
	c := &testCluster{t: t, net: memnet.New(), dir: t.TempDir(), groups: groups, copies: 1}
	c.log = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	for i := 1; i <= n; i++ {
		c.peers = append(c.peers, consensus.Peer{ID: uint32(i), Addr: fmt.Sprintf("m%d:1", i)})
	}
	c.nodes = make([]*node, n)
	for i := range c.nodes {
		c.start(i)
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			c.stop(i)
		}
	})
	return c
}

// testWriter sends log lines to the test's log.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

func (c *testCluster) start(i int) {
	c.t.Helper()
	name := fmt.Sprintf("m%d", i+1)
	host := c.net.Host(name)
	ln, err := host.Listen(c.peers[i].Addr)
	if err != nil {
		c.t.Fatal(err)
	}
	nd := &node{}
	log := c.log.With("server", i+1)
	if nd.mux, err = rpc.NewMux(rpc.MuxConfig{Network: host, Cluster: clusterID, Server: uint32(i + 1), Advertise: c.peers[i].Addr, Log: log}, ln); err != nil {
		c.t.Fatal(err)
	}
	nd.gs = grpc.NewServer(rpc.ServerOptions()...)
	nd.srv, err = server.Open(server.Config{
		ID: uint32(i + 1), Cluster: clusterID, Dir: c.dir + "/" + name, Addr: c.peers[i].Addr, Peers: c.peers,
		Groups: c.groups, Policy: server.Policy{Copies: c.copies, Quorum: 1, MinCopies: 1},
		Network: host, Mux: nd.mux, Version: "test", Log: log,
	}, nd.gs)
	if err != nil {
		c.t.Fatal(err)
	}
	go nd.gs.Serve(nd.mux.GRPC())
	go nd.mux.Serve()
	c.nodes[i] = nd
}

// stop ends a server in order.
func (c *testCluster) stop(i int) {
	c.t.Helper()
	nd := c.nodes[i]
	if nd == nil {
		return
	}
	c.nodes[i] = nil
	if err := nd.srv.Close(); err != nil {
		c.t.Errorf("close of server %d: %v", i+1, err)
	}
	nd.gs.Stop()
	if err := nd.mux.Close(); err != nil {
		c.t.Errorf("close of mux %d: %v", i+1, err)
	}
}

func (c *testCluster) servers() (list []string) {
	for _, p := range c.peers {
		list = append(list, p.Addr)
	}
	return list
}

func (c *testCluster) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	c.t.Cleanup(cancel)
	return ctx
}

// admin returns a client on a host of its own.
func (c *testCluster) admin() *metaclient.Client {
	c.t.Helper()
	mc, err := metaclient.New(metaclient.Config{Servers: c.servers(), Network: c.net.Host("admin")})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { mc.Close() })
	return mc
}

// createDrive waits for the cluster to form and makes a drive.
func (c *testCluster) createDrive(name string, group uint32) meta.DriveInfo {
	c.t.Helper()
	var info meta.DriveInfo
	mc := c.admin()
	if err := mc.Leader(c.ctx(), 0, meta.CallCreate, &meta.DriveCall{Name: name, Group: group}, &info); err != nil {
		c.t.Fatal(err)
	}
	return info
}

// open opens a session from a host of that name.
func (c *testCluster) open(host, drive, path string) *fuseclient.Client {
	c.t.Helper()
	return c.openWith(host, drive, func(cfg *fuseclient.Config) { cfg.Path = path })
}

func (c *testCluster) openWith(host, drive string, change func(*fuseclient.Config)) *fuseclient.Client {
	c.t.Helper()
	cfg := fuseclient.Config{
		Servers: c.servers(), Network: c.net.Host(host), Drive: drive, CreatePath: true,
		Log: slog.New(slog.NewTextHandler(testWriter{c.t}, nil)).With("client", host),
	}
	change(&cfg)
	cl, err := fuseclient.Open(c.ctx(), cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := cl.Close(ctx); err != nil {
			c.t.Logf("close of client %s: %v", host, err)
		}
	})
	return cl
}

// do runs a request that must succeed.
func do[R any](t testing.TB, c *fuseclient.Client, op any) R {
	t.Helper()
	res, err := c.Exec(op)
	if err != nil {
		t.Fatalf("%T: %v", op, err)
	}
	r, ok := res.(R)
	if !ok {
		t.Fatalf("%T answered %T", op, res)
	}
	return r
}

func create(t testing.TB, c *fuseclient.Client, dir meta.Ino, name string) meta.Attr {
	t.Helper()
	r := do[*meta.EntryResult](t, c, &meta.Make{Parent: dir, Name: name, Mode: meta.ModeRegular | 0o644})
	return r.Attr
}

func read(t testing.TB, c *fuseclient.Client, ino meta.Ino, off uint64, n uint32) string {
	t.Helper()
	plan := do[*core.FilePlan](t, c, core.ReadFile{Ino: ino, Off: off, Len: n})
	buf := make([]byte, n)
	got, err := c.ReadData(nil, plan, buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:got])
}

func TestTwoSessionsSeeOneDrive(t *testing.T) {
	c := newCluster(t, 1, 1)
	c.createDrive("demo", 0)
	a, b := c.open("a", "demo", "/"), c.open("b", "demo", "/")
	f := create(t, a, a.Root().Ino, "f")
	do[*meta.AttrResult](t, a, core.WriteFile{Ino: f.Ino, Data: []byte("hello")})
	do[*meta.EmptyResult](t, a, core.Fsync{Ino: f.Ino})
	e := do[*meta.EntryResult](t, b, &meta.Lookup{Parent: b.Root().Ino, Name: "f"})
	if e.Attr.Size != 5 {
		t.Fatalf("size %d", e.Attr.Size)
	}
	if got := read(t, b, e.Attr.Ino, 0, 100); got != "hello" {
		t.Fatalf("read %q", got)
	}
	sub := c.open("s", "demo", "/sub/dir")
	create(t, sub, sub.Root().Ino, "inside")
	d := do[*meta.EntryResult](t, a, &meta.Lookup{Parent: a.Root().Ino, Name: "sub"})
	d = do[*meta.EntryResult](t, a, &meta.Lookup{Parent: d.Attr.Ino, Name: "dir"})
	if d.Attr.Ino != sub.Root().Ino {
		t.Fatalf("subtree is rooted at %d, the directory is %d", sub.Root().Ino, d.Attr.Ino)
	}
	do[*meta.EntryResult](t, a, &meta.Lookup{Parent: d.Attr.Ino, Name: "inside"})
}

// Three drive groups on three servers: the loss of one group's leader stops
// nobody for long, and every operation is executed once.
func TestThreeGroupsLoseALeader(t *testing.T) {
	c := newCluster(t, 3, 3)
	var clients []*fuseclient.Client
	for g := uint32(1); g <= 3; g++ {
		name := fmt.Sprintf("d%d", g)
		if info := c.createDrive(name, g); info.Group != g {
			t.Fatalf("drive %s is in group %d", name, info.Group)
		}
		clients = append(clients, c.open("c"+name, name, "/"))
	}
	const files = 60
	done := make(chan error, len(clients))
	started := make(chan bool, len(clients))
	for _, cl := range clients {
		go func() {
			for i := range files {
				if i == files/4 {
					started <- true
				}
				if _, err := cl.Exec(&meta.Make{Parent: cl.Root().Ino, Name: fmt.Sprintf("f%d", i), Mode: meta.ModeRegular | 0o644, Excl: true}); err != nil {
					done <- fmt.Errorf("file %d: %w", i, err)
					return
				}
			}
			done <- nil
		}()
	}
	for range clients {
		<-started
	}
	victim := c.leaderOf(2)
	c.net.CutHost(fmt.Sprintf("m%d", victim+1))
	c.stop(victim)
	for range clients {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	c.start(victim)
	for _, cl := range clients {
		r := do[*meta.DirResult](t, cl, &meta.ReadDir{Dir: cl.Root().Ino, Limit: 1000})
		if len(r.Entries) != files {
			t.Errorf("%d entries, want %d", len(r.Entries), files)
		}
	}
}

// leaderOf returns the index of the server that leads a group.
func (c *testCluster) leaderOf(group uint32) int {
	c.t.Helper()
	mc := c.admin()
	for _, s := range mc.Servers() {
		var r meta.ServerReply
		if err := mc.At(c.ctx(), s, meta.CallServer, &meta.Empty{}, &r); err != nil {
			continue
		}
		for _, g := range r.Groups {
			if g.Group == group && g.Leader != 0 {
				return int(g.Leader) - 1
			}
		}
	}
	c.t.Fatalf("nobody knows the leader of group %d", group)
	return 0
}
