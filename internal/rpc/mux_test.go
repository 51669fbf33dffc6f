package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"agentdrive/internal/errs"
	"agentdrive/internal/rpc"
	"agentdrive/internal/rpc/memnet"
)

func cluster(b byte) rpc.ClusterID { return rpc.ClusterID{0: b, 15: b} }

// logLines collects log records and lets a test wait for one.
type logLines struct {
	mu    sync.Mutex // guards the fields below
	text  bytes.Buffer
	wrote chan struct{}
}

func newLogLines() *logLines { return &logLines{wrote: make(chan struct{})} }

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.wrote)
	l.wrote = make(chan struct{})
	return l.text.Write(p)
}

// await blocks until a line holds all of parts.
func (l *logLines) await(t *testing.T, parts ...string) {
	t.Helper()
	for {
		l.mu.Lock()
		text, wrote := l.text.String(), l.wrote
		l.mu.Unlock()
		for line := range strings.Lines(text) {
			found := true
			for _, p := range parts {
				found = found && strings.Contains(line, p)
			}
			if found {
				return
			}
		}
		select {
		case <-wrote:
		case <-time.After(10 * time.Second): // a hang detector
			t.Fatalf("no line with %q in\n%s", parts, text)
		}
	}
}

// muxServer is a Mux that serves on host "m<id>" of a memnet.
type muxServer struct {
	*rpc.Mux
	addr string
	log  *logLines
}

func startMux(t *testing.T, n *memnet.Net, id uint32, change func(*rpc.MuxConfig)) muxServer {
	t.Helper()
	host := fmt.Sprintf("m%d", id)
	lis, err := n.Host(host).Listen(host + ":7000")
	if err != nil {
		t.Fatal(err)
	}
	log := newLogLines()
	cfg := rpc.MuxConfig{
		Network: n.Host(host), Cluster: cluster(1), Server: id,
		Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&cfg)
	}
	m, err := rpc.NewMux(cfg, lis)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- m.Serve() }()
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return muxServer{m, host + ":7000", log}
}

func dial(t *testing.T, n rpc.Network, addr string) net.Conn {
	t.Helper()
	conn, err := n.Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// exchange checks that what one end writes the other reads.
func exchange(t *testing.T, a, b net.Conn) {
	t.Helper()
	for _, c := range [][2]net.Conn{{a, b}, {b, a}} {
		if _, err := c[0].Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 4)
		if _, err := io.ReadFull(c[1], got); err != nil || string(got) != "ping" {
			t.Fatalf("got %q, %v", got, err)
		}
	}
}

func accept(t *testing.T, lis net.Listener) net.Conn {
	t.Helper()
	conn, err := lis.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestMuxRaft(t *testing.T) {
	n := memnet.New()
	a, b := startMux(t, n, 1, nil), startMux(t, n, 2, nil)
	from := a.Raft(7)
	if from.Addr().String() != a.addr {
		t.Errorf("Addr is %s", from.Addr())
	}
	// Nobody has registered the group there yet.
	if _, err := from.Dial(raft.ServerAddress(b.addr), time.Minute); !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), b.addr) {
		t.Fatalf("Dial of an unknown group: %v", err)
	}
	b.log.await(t, "connection refused", "peer=m1:", "server 1 asks for group 7")

	to, other := b.Raft(7), b.Raft(8)
	client, err := from.Dial(raft.ServerAddress(b.addr), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	exchange(t, client, accept(t, to))

	// A closed group can be registered again.
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := to.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
	if _, err := from.Dial(raft.ServerAddress(b.addr), time.Minute); !errs.Is(err, errs.Unavailable) {
		t.Fatalf("Dial of a closed group: %v", err)
	}
	to = b.Raft(7)
	to2, err := from.Dial(raft.ServerAddress(b.addr), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer to2.Close()
	exchange(t, to2, accept(t, to))

	func() {
		defer func() {
			if recover() == nil {
				t.Error("registering a group twice does not panic")
			}
		}()
		b.Raft(8)
	}()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after the Mux closed: %v", err)
	}
	if _, err := b.Raft(9).Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept of a group registered after Close: %v", err)
	}
}

func TestMuxMismatch(t *testing.T) {
	n := memnet.New()
	a := startMux(t, n, 1, nil)
	b := startMux(t, n, 2, func(c *rpc.MuxConfig) { c.Cluster = cluster(9) })
	b.Raft(0)
	_, err := a.Raft(0).Dial(raft.ServerAddress(b.addr), time.Minute)
	if !errs.Is(err, errs.Mismatch) || !strings.Contains(err.Error(), b.addr) || errs.HintOf(err) == "" {
		t.Errorf("Dial of another cluster: %v, hint %q", err, errs.HintOf(err))
	}
	b.log.await(t, "connection refused", "peer=m1:", cluster(1).String(), cluster(9).String())

	// A later version of the preamble.
	conn := dial(t, n.Host("x"), a.addr)
	p := rpc.AppendPreamble(nil, rpc.Preamble{Cluster: cluster(1)})
	p[4]++
	if _, err := conn.Write(p); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); err != nil || !bytes.Equal(answer, []byte{1}) {
		t.Errorf("answer is %v, %v", answer, err)
	}
	a.log.await(t, "peer=x:", "version 2")
}

func TestMuxGRPCBytes(t *testing.T) {
	n := memnet.New()
	m := startMux(t, n, 1, nil)
	conn := dial(t, n.Host("x"), m.addr)
	preface := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	for i := range preface { // byte by byte: the peek must not lose any
		if _, err := conn.Write([]byte(preface[i : i+1])); err != nil {
			t.Fatal(err)
		}
	}
	server := accept(t, m.GRPC())
	got := make([]byte, len(preface))
	if _, err := io.ReadFull(server, got); err != nil || string(got) != preface {
		t.Fatalf("got %q, %v", got, err)
	}
	exchange(t, conn, server)
	if err := m.GRPC().Close(); err != nil {
		t.Fatal(err)
	}
	late := dial(t, n.Host("x"), m.addr)
	io.WriteString(late, preface)
	if _, err := late.Read(make([]byte, 1)); err == nil {
		t.Error("a connection to closed gRPC stays open")
	}
}

// TestMuxHostile: garbage, silence and half preambles are closed and named,
// and hold up nobody.
func TestMuxHostile(t *testing.T) {
	n := memnet.New()
	m := startMux(t, n, 1, func(c *rpc.MuxConfig) { c.HelloTimeout = time.Second })
	layer := m.Raft(1)
	whole := rpc.AppendPreamble(nil, rpc.Preamble{Group: 1, Cluster: cluster(1), Sender: 3})
	cases := map[string][]byte{
		"silent": nil, "garbage": []byte("GET / HTTP/1.1\r\n\r\n"), "tls": {0x16, 3, 1, 0, 200},
		"half": whole[:9], "magic only": whole[:4], "one byte": whole[:1], "zeros": make([]byte, 100),
	}
	conns := map[string]net.Conn{}
	for name, send := range cases {
		conns[name] = dial(t, n.Host(strings.ReplaceAll(name, " ", "-")), m.addr)
		if _, err := conns[name].Write(send); err != nil {
			t.Fatal(err)
		}
	}
	// An honest peer gets through while all of them hang.
	honest := dial(t, n.Host("honest"), m.addr)
	if _, err := honest.Write(append(whole, "and more"...)); err != nil {
		t.Fatal(err)
	}
	server := accept(t, layer)
	got := make([]byte, 8)
	if _, err := io.ReadFull(server, got); err != nil || string(got) != "and more" {
		t.Fatalf("what follows the preamble is %q, %v", got, err)
	}
	for name, conn := range conns {
		if b, err := io.ReadAll(conn); err != nil || len(b) > 0 {
			t.Errorf("%s: read %v, %v; want the end", name, b, err)
		}
		m.log.await(t, "connection refused", "peer="+strings.ReplaceAll(name, " ", "-")+":")
	}
}

func TestMuxMaxPending(t *testing.T) {
	n := memnet.New()
	m := startMux(t, n, 1, func(c *rpc.MuxConfig) { c.MaxPending, c.HelloTimeout = 3, time.Hour })
	var silent []net.Conn
	for range 5 {
		silent = append(silent, dial(t, n.Host("x"), m.addr))
	}
	for _, c := range silent[:2] { // the oldest have to go
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the oldest silent connection: %v", err)
		}
	}
	m.log.await(t, "too many silent connections", "limit=3")
	io.WriteString(silent[4], "PRI * ")
	accept(t, m.GRPC())
	// Close does not wait for the silent ones: the test would hang.
}

// TestMuxNotAccepted: a connection that nobody accepts does not stay forever.
func TestMuxNotAccepted(t *testing.T) {
	n := memnet.New()
	m := startMux(t, n, 1, func(c *rpc.MuxConfig) { c.HelloTimeout = 20 * time.Millisecond })
	conn := dial(t, n.Host("x"), m.addr)
	io.WriteString(conn, "PRI * HTTP/2.0")
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("it stays open")
	}
	m.log.await(t, "peer=x:", "nobody accepted")
}

// TestMuxDialSlow: the answer is awaited no longer than the timeout.
func TestMuxDialSlow(t *testing.T) {
	n := memnet.New()
	a := startMux(t, n, 1, nil)
	lis, err := n.Host("deaf").Listen("deaf:1")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	if _, err := a.Raft(0).Dial("deaf:1", 10*time.Millisecond); !errs.Is(err, errs.Timeout) || !strings.Contains(err.Error(), "deaf:1") {
		t.Errorf("Dial of a peer that does not answer: %v", err)
	}
	n.Partition("m1", "m2")
	if _, err := a.Raft(1).Dial("m2:7000", 10*time.Millisecond); !errs.Is(err, errs.Timeout) {
		t.Errorf("Dial over a partition: %v", err)
	}
}

func TestMuxConfig(t *testing.T) {
	lis, err := memnet.New().Host("a").Listen("a:1")
	if err != nil {
		t.Fatal(err)
	}
	good := rpc.MuxConfig{Network: rpc.TCP{}, Cluster: cluster(1)}
	for name, c := range map[string]func() (*rpc.Mux, error){
		"no listener": func() (*rpc.Mux, error) { return rpc.NewMux(good) },
		"no network":  func() (*rpc.Mux, error) { return rpc.NewMux(rpc.MuxConfig{Cluster: cluster(1)}, lis) },
		"no cluster":  func() (*rpc.Mux, error) { return rpc.NewMux(rpc.MuxConfig{Network: rpc.TCP{}}, lis) },
	} {
		if _, err := c(); !errs.Is(err, errs.Usage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// brokenListener fails for good, flakyListener a few times.
type brokenListener struct{ net.Listener }

func (brokenListener) Accept() (net.Conn, error) { return nil, errors.New("broken") }

type flakyListener struct {
	net.Listener
	fail int
}

type temporary struct{ error }

func (temporary) Temporary() bool { return true }

func (l *flakyListener) Accept() (net.Conn, error) {
	if l.fail > 0 {
		l.fail--
		return nil, temporary{errors.New("too many open files")}
	}
	return l.Listener.Accept()
}

func TestMuxListenerFails(t *testing.T) {
	h := memnet.New().Host("a")
	var lis []net.Listener
	for _, addr := range []string{"a:1", "a:2"} {
		l, err := h.Listen(addr)
		if err != nil {
			t.Fatal(err)
		}
		lis = append(lis, l)
	}
	m, err := rpc.NewMux(rpc.MuxConfig{Network: h, Cluster: cluster(1)}, &flakyListener{lis[0], 2}, lis[1])
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- m.Serve() }()
	for _, addr := range []string{"a:1", "a:2"} { // both listeners serve, one after errors
		io.WriteString(dial(t, h, addr), "PRI * ")
		accept(t, m.GRPC())
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve after Close: %v", err)
	}

	ok, err := h.Listen("a:3")
	if err != nil {
		t.Fatal(err)
	}
	l4, err := h.Listen("a:4")
	if err != nil {
		t.Fatal(err)
	}
	m, err = rpc.NewMux(rpc.MuxConfig{Network: h, Cluster: cluster(1)}, ok, brokenListener{l4})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Serve(); !errs.Is(err, errs.Unavailable) {
		t.Errorf("Serve with a broken listener: %v", err)
	}
	if _, err := h.Dial(context.Background(), "a:3"); !errs.Is(err, errs.Unavailable) {
		t.Errorf("the other listener still accepts: %v", err)
	}
}
