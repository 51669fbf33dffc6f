package metaclient

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"agentdrive/internal/errs"
	"agentdrive/internal/rpc"
	"agentdrive/internal/rpc/memnet"
	"agentdrive/internal/rpc/rpcerr"
	"agentdrive/metaserver/meta"
)

// fakes are metadata servers that answer what a test says.
type fakes struct {
	t   *testing.T
	ctx context.Context
	net *memnet.Net
}

func newFakes(t *testing.T) *fakes {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return &fakes{t, ctx, memnet.New()}
}

// fake is one of them. Its answers count.
type fake struct {
	calls atomic.Int64 // of Drives
	hangs atomic.Bool  // answers nothing
	lead  func() error // nil: it leads
}

func (f *fakes) serve(host string, s *fake) {
	f.t.Helper()
	ln, err := f.net.Host(host).Listen(host + ":1")
	if err != nil {
		f.t.Fatal(err)
	}
	answer := func(fn func() (any, error)) rpc.UnaryHandler {
		return func(ctx context.Context, _ []byte) ([]byte, error) {
			if s.hangs.Load() {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			r, err := fn()
			if err != nil {
				return nil, err
			}
			return json.Marshal(r)
		}
	}
	gs := grpc.NewServer(rpc.ServerOptions()...)
	rpc.RegisterUnary(gs, rpc.ErrorCodec{ToWire: rpcerr.ToStatus}, meta.AdminService, map[string]rpc.UnaryHandler{
		meta.CallHello: answer(func() (any, error) { return &meta.HelloReply{Version: host}, nil }),
		meta.CallMap: answer(func() (any, error) {
			return &meta.MapReply{Version: 1, MetaServers: []meta.ServerInfo{{ID: 1, Address: "a:1"}, {ID: 2, Address: "b:1"}}}, nil
		}),
		meta.CallDrives: answer(func() (any, error) {
			s.calls.Add(1)
			if err := s.lead(); err != nil {
				return nil, err
			}
			return &meta.DrivesReply{Drives: []meta.DriveInfo{{Name: host}}}, nil
		}),
	})
	go gs.Serve(ln)
	f.t.Cleanup(gs.Stop)
}

func leads() error { return nil }

func follows(hint string) func() error {
	return func() error { return errs.E("group", errs.NotLeader, "", nil).WithHint(hint) }
}

func (f *fakes) client(servers ...string) *Client {
	f.t.Helper()
	c, err := New(Config{Servers: servers, Network: f.net.Host("client")})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	return c
}

// leader asks for the drives; a fake's drive has its name.
func (f *fakes) leader(c *Client) string {
	f.t.Helper()
	var r meta.DrivesReply
	if err := c.Leader(f.ctx, 0, meta.CallDrives, &meta.Empty{}, &r); err != nil {
		f.t.Fatal(err)
	}
	return r.Drives[0].Name
}

func TestLeaderFollowsHints(t *testing.T) {
	f := newFakes(t)
	a, b := &fake{lead: follows("b:1")}, &fake{lead: leads}
	f.serve("a", a)
	f.serve("b", b)
	c := f.client("a:1") // b is known by the hint alone
	for range 2 {
		if got := f.leader(c); got != "b" {
			t.Errorf("%q answered", got)
		}
	}
	if n := a.calls.Load(); n != 1 {
		t.Errorf("the follower was asked %d times, want once: the leader is remembered", n)
	}
}

// Followers name a dead leader until they have another.
func TestLeaderIgnoresHintsToTheDead(t *testing.T) {
	f := newFakes(t)
	a, b := &fake{lead: follows("dead:1")}, &fake{lead: leads}
	f.serve("a", a)
	f.serve("b", b)
	f.net.RefuseDials("dead", true)
	if got := f.leader(f.client("dead:1", "a:1", "b:1")); got != "b" {
		t.Errorf("%q answered", got)
	}
	if n := a.calls.Load(); n > 2 {
		t.Errorf("the follower was asked %d times", n)
	}
}

// A process that was stopped takes connections and never answers.
func TestAServerThatHangs(t *testing.T) {
	f := newFakes(t)
	a, b := &fake{lead: leads}, &fake{lead: leads}
	a.hangs.Store(true)
	f.serve("a", a)
	f.serve("b", b)
	c := f.client("a:1", "b:1")
	var r meta.HelloReply
	if err := c.Any(f.ctx, meta.CallHello, &meta.Empty{}, &r); err != nil || r.Version != "b" {
		t.Errorf("Any: %+v, %v", r, err)
	}
	if got := f.leader(c); got != "b" {
		t.Errorf("%q answered", got)
	}
}

func TestAllServersHang(t *testing.T) {
	f := newFakes(t)
	a := &fake{lead: leads}
	a.hangs.Store(true)
	f.serve("a", a)
	c := f.client("a:1")
	ctx, cancel := context.WithTimeout(f.ctx, 50*time.Millisecond)
	defer cancel()
	if err := c.Any(ctx, meta.CallHello, &meta.Empty{}, new(meta.HelloReply)); !errs.Is(err, errs.Unavailable) || errs.HintOf(err) == "" {
		t.Errorf("Any: %v", err)
	}
	if err := c.Leader(ctx, 0, meta.CallDrives, &meta.Empty{}, new(meta.DrivesReply)); !errs.Is(err, errs.Unavailable) || errs.HintOf(err) == "" {
		t.Errorf("Leader: %v", err)
	}
}

// An answer that is no leadership matter is given to the caller at once.
func TestRefusalsAreNotRepeated(t *testing.T) {
	f := newFakes(t)
	a := &fake{lead: func() error { return errs.E("drive.create", errs.Exist, "", nil).WithHint("take another") }}
	f.serve("a", a)
	c := f.client("a:1")
	err := c.Leader(f.ctx, 0, meta.CallDrives, &meta.Empty{}, new(meta.DrivesReply))
	if !errs.Is(err, errs.Exist) || errs.HintOf(err) != "take another" || a.calls.Load() != 1 {
		t.Errorf("%d calls, %v", a.calls.Load(), err)
	}
}

func TestMapTeachesServers(t *testing.T) {
	f := newFakes(t)
	f.serve("a", &fake{lead: leads})
	c := f.client("a:1")
	for range 2 {
		if _, err := c.Map(f.ctx); err != nil {
			t.Fatal(err)
		}
	}
	if s := c.Servers(); len(s) != 2 || s[1] != "b:1" {
		t.Errorf("servers %v", s)
	}
}

// A failure that arrives late does not erase what another call has learned.
func TestLateFailure(t *testing.T) {
	f := newFakes(t)
	c := f.client("a:1", "b:1")
	c.remember(0, "b:1")
	c.unanswered(0, "a:1")
	if got := c.presumed(0); got != "b:1" {
		t.Errorf("presumed leader %q", got)
	}
	c.unanswered(0, "b:1")
	if got := c.believed("b:1"); got != "" {
		t.Errorf("a hint to %q is believed right after it failed", got)
	}
}

// A call that is still under way when the client closes opens no connection
// that nobody closes.
func TestClosed(t *testing.T) {
	f := newFakes(t)
	f.serve("a", &fake{lead: leads})
	c := f.client("a:1")
	for range 2 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.At(f.ctx, "a:1", meta.CallHello, &meta.Empty{}, new(meta.HelloReply)); !errs.Is(err, errs.Canceled) {
		t.Errorf("call after Close: %v", err)
	}
}

func TestNoServers(t *testing.T) {
	if _, err := New(Config{}); !errs.Is(err, errs.Usage) || errs.HintOf(err) == "" {
		t.Errorf("got %v", err)
	}
}

func TestCluster(t *testing.T) {
	id, err := Cluster("000102030405060708090a0b0c0d0e0f")
	if err != nil || id[15] != 15 {
		t.Errorf("%v, %v", id, err)
	}
	for _, bad := range []string{"", "00", "zz0102030405060708090a0b0c0d0e0f", "000102030405060708090a0b0c0d0e0f00"} {
		if _, err := Cluster(bad); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
