package server

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"

	"agentdrive/internal/errs"
	"agentdrive/internal/rpc"
	"agentdrive/internal/rpc/memnet"
	"agentdrive/metaserver/core"
	"agentdrive/metaserver/meta"
	"agentdrive/replication/consensus"
)

func TestCloseWithStreamsOpen(t *testing.T) {
	w := newWorld(t)
	se := w.open(w.drive("demo"))
	for range 2 {
		if err := w.srv.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for err := error(nil); err == nil; { // it may say that it does not lead any more
		_, err = se.s.Recv()
	}
	if w.ctx.Err() != nil {
		t.Error("the stream of a closed server goes on")
	}
	err := w.mc.At(w.ctx, metaAddr, meta.CallCreate, &meta.DriveCall{Name: "late"}, new(meta.DriveInfo))
	if !errs.Is(err, errs.Unavailable) {
		t.Errorf("a call of a closed server: %v", err)
	}
}

// A group that cannot open gives back its place in the mux, and those opened
// before it are closed: the same process can try again.
func TestOpenFailsHalfWay(t *testing.T) {
	dir := t.TempDir()
	blocker := filepath.Join(dir, "group-1")
	if err := os.WriteFile(blocker, []byte("in the way"), 0o600); err != nil {
		t.Fatal(err)
	}
	host := memnet.New().Host("m1")
	ln, err := host.Listen(metaAddr)
	if err != nil {
		t.Fatal(err)
	}
	mux, err := rpc.NewMux(rpc.MuxConfig{Network: host, Cluster: testCluster, Server: 1, Advertise: metaAddr}, ln)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mux.Close() })
	open := func() (*Server, error) {
		return Open(Config{
			ID: 1, Cluster: testCluster, Dir: dir, Addr: metaAddr, Peers: []consensus.Peer{{ID: 1, Addr: metaAddr}},
			Network: host, Mux: mux,
		}, grpc.NewServer(rpc.ServerOptions()...))
	}
	if _, err := open(); err == nil || !strings.Contains(err.Error(), "group 1") {
		t.Fatalf("open with a file in the way: %v", err)
	}
	if err := os.Remove(blocker); err != nil {
		t.Fatal(err)
	}
	s, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestHostileAdminCalls(t *testing.T) {
	w := newWorld(t)
	huge := strings.Repeat("x", 2<<20)
	hex := w.srv.clusterHex()
	for _, c := range []struct {
		method string
		call   any
		kind   errs.Kind
	}{
		{meta.CallCreate, &meta.DriveCall{Name: huge}, errs.NameTooLong},
		{meta.CallCreate, &meta.DriveCall{Name: "a/b"}, errs.Invalid},
		{meta.CallCreate, nil, errs.Invalid}, // JSON null: no name
		{meta.CallCreate, &meta.DriveCall{Name: "a", Group: 99}, errs.Invalid},
		{meta.CallCreate, []int{1}, errs.Invalid},
		{meta.CallDelete, &meta.DriveCall{Name: huge}, errs.NotExist},
		{meta.CallFindDrive, nil, errs.NotExist},
		{meta.CallInitDrive, &meta.GroupDriveCall{Group: 1, Drive: 9, Name: huge}, errs.NameTooLong},
		{meta.CallDropDrive, &meta.GroupDriveCall{Group: 1 << 31, Drive: 9}, errs.Invalid},
		{meta.CallGroup, &meta.GroupCall{Group: 1<<32 - 1}, errs.Invalid},
		{meta.CallRegister, &meta.RegisterCall{Cluster: "other", Server: meta.ServerInfo{ID: 9, Address: "x:1"}}, errs.Mismatch},
		{meta.CallRegister, &meta.RegisterCall{Cluster: hex, Server: meta.ServerInfo{ID: 9, Address: huge}}, errs.NameTooLong},
		{meta.CallRegister, &meta.RegisterCall{Cluster: hex}, errs.Invalid},
		{"NoSuchCall", &meta.Empty{}, errs.Unsupported},
	} {
		err := w.mc.At(w.ctx, metaAddr, c.method, c.call, new(map[string]any))
		if !errs.Is(err, c.kind) {
			msg := "nil"
			if err != nil {
				msg = err.Error()
			}
			t.Errorf("%s: kind %v, want %v: %.200s", c.method, errs.KindOf(err), c.kind, msg)
		}
	}
	w.drive("fine")
}

func TestGreetingOfAnotherCluster(t *testing.T) {
	w := newWorld(t)
	s, err := w.mc.OpenStream(w.ctx, [16]byte{9}, 1, metaAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Recv(); !errs.Is(err, errs.Mismatch) || errs.HintOf(err) == "" {
		t.Errorf("got %v", err)
	}
}

// floodStream is a client that always has another message.
type floodStream struct {
	rpc.FrameStream
	ctx   context.Context
	calls atomic.Int64
	limit int64 // beyond it the client hangs up
	full  chan struct{}
	check func(call int64)
}

func (f *floodStream) Recv() ([]byte, error) {
	n := f.calls.Add(1)
	f.check(n)
	if n == maxUnstepped+1 {
		close(f.full)
	}
	if n > f.limit {
		return nil, io.EOF
	}
	one := meta.EncodeFrame(nil, &meta.Renew{Seq: uint64(n)})
	return meta.EncodeBatch(nil, [][]byte{one, one}), nil
}

func (f *floodStream) Context() context.Context { return f.ctx }

// A client that sends faster than the core steps is not read from; nothing of
// it is lost.
func TestReceiveWaitsForTheCore(t *testing.T) {
	h := &host{mail: newMailbox[core.Event](), ctx: context.Background()}
	st := &clientStream{id: 1, room: make(chan struct{}, maxUnstepped)}
	var stepped atomic.Int64 // messages
	fs := &floodStream{ctx: context.Background(), limit: 50, full: make(chan struct{})}
	fs.check = func(call int64) {
		// The message of this call is the one behind those that wait.
		if waiting := call - 1 - stepped.Load(); waiting > maxUnstepped {
			t.Errorf("%d messages wait", waiting)
		}
	}
	done := make(chan error, 1)
	go func() {
		done <- h.receive(fs, st)
		h.mail.close()
	}()
	<-fs.full
	frames := 0
	for list := h.mail.take(); list != nil; list = h.mail.take() {
		for _, ev := range list {
			frames++
			if e, ok := ev.(batchEnd); ok {
				stepped.Add(1)
				<-e.room
			}
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if frames != 100 {
		t.Errorf("%d frames arrived, want 100", frames)
	}
}

// One that waits for room ends with its stream and with the server.
func TestReceiveEndsWhileItWaits(t *testing.T) {
	for _, which := range []string{"stream", "server"} {
		hctx, hstop := context.WithCancel(context.Background())
		sctx, sstop := context.WithCancel(context.Background())
		h := &host{mail: newMailbox[core.Event](), ctx: hctx}
		fs := &floodStream{ctx: sctx, limit: 50, full: make(chan struct{}), check: func(int64) {}}
		done := make(chan error, 1)
		go func() { done <- h.receive(fs, &clientStream{id: 1, room: make(chan struct{}, maxUnstepped)}) }()
		<-fs.full
		if which == "stream" {
			sstop()
		} else {
			hstop()
		}
		<-done
		hstop()
		sstop()
	}
}
