package server

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc"

	"agentdrive/chunkserver/chunk"
	"agentdrive/chunkserver/chunk/memstore"
	chunkserver "agentdrive/chunkserver/server"
	"agentdrive/internal/clock"
	"agentdrive/internal/rpc"
	"agentdrive/internal/rpc/memnet"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/metaclient"
	"agentdrive/replication/consensus"
)

var testCluster = [16]byte{7}

const metaAddr = "m1:1"

// world is a metadata server and three chunk servers in this process, on a
// network in memory. Its clock stands, so that the server's own chores sleep:
// the test does their passes.
type world struct {
	t      *testing.T
	ctx    context.Context
	net    *memnet.Net
	clock  *clock.Fake
	srv    *Server
	mc     *metaclient.Client
	stores map[chunk.ServerID]*memstore.Store
	chores *maintainer // of group 1
	lastID byte
}

type testLog struct{ t *testing.T }

func (w testLog) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, net: memnet.New(), clock: clock.NewFake(time.Unix(1e9, 0)), stores: map[chunk.ServerID]*memstore.Store{}}
	var cancel context.CancelFunc
	w.ctx, cancel = context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	w.startMeta()
	var err error
	w.mc, err = metaclient.New(metaclient.Config{Servers: []string{metaAddr}, Network: w.net.Host("admin")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.mc.Close() })
	for g := range uint32(2) { // an entry that changes nothing waits for the leader
		w.call(g, meta.CallEndSession, &meta.EndSessionCall{Group: g, Session: 1}, &meta.Empty{})
	}
	w.pass(newMaintainer(w.srv, w.srv.hosts[0])) // forms the cluster
	for id := chunk.ServerID(1); id <= 3; id++ {
		w.startChunk(id)
	}
	w.chores = newMaintainer(w.srv, w.srv.hosts[1])
	return w
}

func (w *world) startMeta() {
	host := w.net.Host("m1")
	ln, err := host.Listen(metaAddr)
	if err != nil {
		w.t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(testLog{w.t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	mux, err := rpc.NewMux(rpc.MuxConfig{Network: host, Cluster: testCluster, Server: 1, Advertise: metaAddr, Log: log}, ln)
	if err != nil {
		w.t.Fatal(err)
	}
	gs := grpc.NewServer(rpc.ServerOptions()...)
	w.srv, err = Open(Config{
		ID: 1, Cluster: testCluster, Dir: w.t.TempDir(), Addr: metaAddr, Peers: []consensus.Peer{{ID: 1, Addr: metaAddr}},
		Network: host, Mux: mux, Version: "test", Log: log, Clock: w.clock,
	}, gs)
	if err != nil {
		w.t.Fatal(err)
	}
	go gs.Serve(mux.GRPC())
	go mux.Serve()
	w.t.Cleanup(func() {
		if err := w.srv.Close(); err != nil {
			w.t.Error(err)
		}
		gs.Stop()
		if err := mux.Close(); err != nil {
			w.t.Error(err)
		}
	})
}

func chunkHost(id chunk.ServerID) string { return fmt.Sprintf("c%d", id) }

func (w *world) startChunk(id chunk.ServerID) {
	host := w.net.Host(chunkHost(id))
	ln, err := host.Listen(chunkHost(id) + ":1")
	if err != nil {
		w.t.Fatal(err)
	}
	w.stores[id] = memstore.New(testCluster)
	srv, err := chunkserver.New(w.stores[id], chunkserver.Config{Cluster: testCluster, Dial: host.Dial})
	if err != nil {
		w.t.Fatal(err)
	}
	gs := grpc.NewServer(rpc.ServerOptions()...)
	srv.Register(gs)
	go gs.Serve(ln)
	w.t.Cleanup(func() {
		gs.Stop()
		if err := srv.Close(); err != nil {
			w.t.Error(err)
		}
	})
	w.register(id, chunkHost(id))
}

func (w *world) register(id chunk.ServerID, domain string) {
	w.t.Helper()
	w.call(0, meta.CallRegister, &meta.RegisterCall{Cluster: hex.EncodeToString(testCluster[:]),
		Server: meta.ServerInfo{ID: id, Address: chunkHost(id) + ":1", Host: domain}}, new(meta.MapReply))
}

// down takes a chunk server off the network, or puts it back.
func (w *world) down(id chunk.ServerID, down bool) {
	w.net.RefuseDials(chunkHost(id), down)
	if down {
		w.net.CutHost(chunkHost(id))
	}
}

func (w *world) call(group uint32, method string, call, reply any) {
	w.t.Helper()
	if err := w.mc.Leader(w.ctx, group, method, call, reply); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) pass(m *maintainer) {
	w.t.Helper()
	if err := m.pass(w.ctx); err != nil {
		w.t.Fatal(err)
	}
}

// passUntil does passes until done: a server that was away is found again when
// the connection's back-off is over.
func (w *world) passUntil(what string, done func() bool) {
	w.t.Helper()
	for !done() {
		if w.ctx.Err() != nil {
			w.t.Fatalf("%s: never happened", what)
		}
		w.pass(w.chores)
	}
}

func (w *world) drive(name string) meta.DriveInfo {
	w.t.Helper()
	var d meta.DriveInfo
	w.call(0, meta.CallCreate, &meta.DriveCall{Name: name, Group: 1}, &d)
	return d
}

// session is a client's session, driven by hand.
type session struct {
	w       *world
	s       *metaclient.Stream
	welcome *meta.Welcome
	drive   meta.DriveID
	lastOp  meta.OpID
}

func (w *world) open(d meta.DriveInfo) *session {
	w.t.Helper()
	s, err := w.mc.OpenStream(w.ctx, testCluster, d.Group, "")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(s.Close)
	w.lastID++
	se := &session{w: w, s: s, drive: d.ID}
	se.send(&meta.Open{Nonce: [16]byte{w.lastID}, Capability: meta.Capability{Drive: d.ID, Path: "/"}, Client: meta.ClientInfo{Host: "test", PID: 1}})
	se.welcome = recv[*meta.Welcome](se)
	return se
}

func (se *session) send(f meta.Frame) {
	se.w.t.Helper()
	if err := se.s.Send([][]byte{meta.EncodeFrame(nil, f)}); err != nil {
		se.w.t.Fatal(err)
	}
}

// recv takes the next message, which must begin with an F.
func recv[F meta.Frame](se *session) F {
	se.w.t.Helper()
	frames, err := se.s.Recv()
	if err != nil {
		se.w.t.Fatal(err)
	}
	f, ok := frames[0].(F)
	if !ok {
		se.w.t.Fatalf("received %T %+v", frames[0], frames[0])
	}
	return f
}

// do executes an operation that must succeed.
func (se *session) do(op meta.Op) meta.Result {
	se.w.t.Helper()
	se.lastOp++
	se.send(&meta.OpFrame{ID: se.lastOp, Op: op})
	res, err := recv[*meta.Reply](se).Outcome.Unpack()
	if err != nil {
		se.w.t.Fatalf("%T: %v", op, err)
	}
	return res
}

func (se *session) file(name string) meta.Ino {
	se.w.t.Helper()
	return se.do(&meta.Make{Parent: se.welcome.Root.Ino, Name: name, Mode: meta.ModeRegular | 0o644}).(*meta.EntryResult).Attr.Ino
}

// put stores a block of this session on servers.
func (se *session) put(id chunk.BlockID, servers ...chunk.ServerID) {
	se.w.t.Helper()
	owner := chunk.Owner{Group: 1, Drive: uint64(se.drive), Session: uint64(se.welcome.Session), Epoch: se.welcome.Epoch}
	data := []byte("block " + id.String())
	b := chunk.Block{ID: id, Owner: owner, Data: data, Sums: chunk.Sums(data)}
	for _, s := range servers {
		if err := se.w.stores[s].Put(se.w.ctx, chunk.Grant{Cluster: testCluster, Owner: owner, Rights: chunk.RightWrite}, b); err != nil {
			se.w.t.Fatal(err)
		}
	}
}

// publish puts a block on the servers of has and writes it to a file, missing
// on the others. It returns the block's fact.
func (se *session) publish(ino meta.Ino, id chunk.BlockID, has ...chunk.ServerID) meta.NewBlock {
	se.w.t.Helper()
	m, err := se.w.mc.Map(se.w.ctx)
	if err != nil {
		se.w.t.Fatal(err)
	}
	pg, epoch, members, err := m.Place(id)
	if err != nil {
		se.w.t.Fatal(err)
	}
	se.put(id, has...)
	n := uint32(len("block " + id.String()))
	nb := meta.NewBlock{ID: id, PG: pg, Epoch: epoch, Len: n, Acked: has}
	for _, s := range members {
		found := false
		for _, x := range has {
			found = found || x == s
		}
		if !found {
			nb.Missing = append(nb.Missing, s)
		}
	}
	se.write(ino, nb)
	return nb
}

func (se *session) write(ino meta.Ino, nb meta.NewBlock) {
	se.w.t.Helper()
	se.do(&meta.Write{Ino: ino, Extents: []meta.Extent{{Len: nb.Len, Kind: meta.ExtentBlock, Block: nb.ID}}, Blocks: []meta.NewBlock{nb}})
}

// free overwrites a block's range, so that nothing refers to it.
func (se *session) free(ino meta.Ino, nb meta.NewBlock) {
	se.w.t.Helper()
	se.do(&meta.Write{Ino: ino, Extents: []meta.Extent{{Len: nb.Len, Kind: meta.ExtentInline, Inline: make([]byte, nb.Len)}}})
}

// has tells which servers have a block, as "123".
func (w *world) has(id chunk.BlockID) (list string) {
	w.t.Helper()
	for s := chunk.ServerID(1); s <= 3; s++ {
		ok, err := w.stores[s].Has(w.ctx, chunk.Grant{Cluster: testCluster, Rights: chunk.RightRead}, []chunk.BlockID{id})
		if err != nil {
			w.t.Fatal(err)
		}
		if ok[0] {
			list += fmt.Sprint(s)
		}
	}
	return list
}

// lose deletes a block behind the back of everybody.
func (w *world) lose(id chunk.BlockID, s chunk.ServerID) {
	w.t.Helper()
	if err := w.stores[s].Delete(w.ctx, chunk.Grant{Cluster: testCluster, Rights: chunk.RightDelete}, []chunk.BlockID{id}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) group() *meta.GroupReply {
	w.t.Helper()
	r := new(meta.GroupReply)
	w.call(1, meta.CallGroup, &meta.GroupCall{Group: 1}, r)
	return r
}
