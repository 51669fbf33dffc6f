package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"agentdrive/internal/errs"
	"agentdrive/internal/rpc"
	"agentdrive/internal/rpc/memnet"
)

// The conformance suite of rpc.Network: every implementation runs all of it.

type subject struct {
	server, client rpc.Network
	addr           string // to listen on
	unused         string // nobody listens there
}

func subjects() map[string]func(t *testing.T) subject {
	return map[string]func(t *testing.T) subject{
		"tcp": func(t *testing.T) subject {
			lis, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			unused := lis.Addr().String()
			lis.Close()
			return subject{rpc.TCP{}, rpc.TCP{}, "127.0.0.1:0", unused}
		},
		"unix": func(t *testing.T) subject {
			dir := socketDir(t)
			return subject{rpc.TCP{}, rpc.TCP{}, "unix:" + filepath.Join(dir, "a"), "unix:" + filepath.Join(dir, "none")}
		},
		"memnet": func(*testing.T) subject {
			n := memnet.New()
			return subject{n.Host("a"), n.Host("b"), "a:0", "a:1"}
		},
		"memnet slow": func(*testing.T) subject {
			n := memnet.New()
			n.SetDelay("a", "b", 2*time.Millisecond)
			n.SetDelay("b", "a", time.Millisecond)
			n.SetBandwidth("a", "b", 64<<20)
			return subject{n.Host("a"), n.Host("b"), "a:0", "a:1"}
		},
		"memnet unix": func(*testing.T) subject {
			h := memnet.New().Host("a")
			return subject{h, h, "unix:/run/a", "unix:/run/none"}
		},
	}
}

// socketDir is a temporary directory with a path short enough for a socket.
func socketDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "ad")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestNetwork(t *testing.T) {
	tests := map[string]func(*testing.T, subject){
		"echo": testEcho, "bulk": testBulk, "half read then close": testCloseAfterWrite,
		"deadlines": testDeadlines, "close unblocks": testCloseUnblocks, "errors": testErrors,
		"write after close": testWriteAfterPeerClosed, "many": testManyConns,
	}
	for name, mk := range subjects() {
		for test, f := range tests {
			t.Run(name+"/"+test, func(t *testing.T) { f(t, mk(t)) })
		}
	}
}

func listen(t *testing.T, s subject) net.Listener {
	t.Helper()
	lis, err := s.server.Listen(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lis.Close() })
	return lis
}

// connect returns both ends of a connection.
func connect(t *testing.T, s subject, lis net.Listener) (client, server net.Conn) {
	t.Helper()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := lis.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	client, err := s.client.Dial(t.Context(), lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server = <-accepted
	if server == nil {
		t.FailNow()
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

func testEcho(t *testing.T, s subject) {
	client, server := connect(t, s, listen(t, s))
	go io.Copy(server, server)
	for _, msg := range []string{"a", "hello", "x"} {
		if _, err := client.Write([]byte(msg)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(msg))
		if _, err := io.ReadFull(client, got); err != nil || string(got) != msg {
			t.Fatalf("%q came back as %q: %v", msg, got, err)
		}
	}
	if client.RemoteAddr() == nil || server.RemoteAddr() == nil || client.LocalAddr() == nil {
		t.Error("an address is nil")
	}
}

// testBulk sends more than any buffer holds, both ways at once.
func testBulk(t *testing.T, s subject) {
	client, server := connect(t, s, listen(t, s))
	rng := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 3<<20)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	var wg sync.WaitGroup
	for _, c := range []net.Conn{client, server} {
		wg.Go(func() {
			if _, err := c.Write(data); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			got := make([]byte, len(data))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) {
				t.Errorf("received differs from sent: %v", err)
			}
		})
	}
	wg.Wait()
}

func testCloseAfterWrite(t *testing.T, s subject) {
	client, server := connect(t, s, listen(t, s))
	if _, err := client.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(server); err != nil || string(got) != "last words" {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read of a closed connection: %v", err)
	}
	if _, err := client.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write of a closed connection: %v", err)
	}
}

func testWriteAfterPeerClosed(t *testing.T, s subject) {
	client, server := connect(t, s, listen(t, s))
	server.Close()
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("Read after the peer closed: %v", err)
	}
	// The first write may be on its way before the reset comes back.
	buf := make([]byte, 64<<10)
	for range 1000 {
		if _, err := client.Write(buf); err != nil {
			return
		}
	}
	t.Error("writes to a closed peer never fail")
}

func testDeadlines(t *testing.T, s subject) {
	client, server := connect(t, s, listen(t, s))
	timedOut := func(what string, err error) {
		t.Helper()
		var ne net.Error
		if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
			t.Errorf("%s: %v", what, err)
		}
	}
	one := make([]byte, 1)
	client.SetReadDeadline(time.Now().Add(-time.Second))
	_, err := client.Read(one)
	timedOut("read past its deadline", err)
	client.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	_, err = client.Read(one)
	timedOut("read until its deadline", err)

	client.SetReadDeadline(time.Time{}) // lifted: works again
	if _, err := server.Write([]byte("y")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(client, one); err != nil {
		t.Errorf("read after the deadline was lifted: %v", err)
	}
	// A deadline set from elsewhere ends a read that waits.
	got := make(chan error, 1)
	go func() {
		_, err := client.Read(make([]byte, 1))
		got <- err
	}()
	client.SetDeadline(time.Now().Add(time.Millisecond))
	timedOut("read that waited", <-got)
	client.SetDeadline(time.Time{})

	client.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	for err = nil; err == nil; { // nobody reads: the buffers fill up
		_, err = client.Write(make([]byte, 64<<10))
	}
	timedOut("write into full buffers", err)
}

func testCloseUnblocks(t *testing.T, s subject) {
	lis := listen(t, s)
	client, _ := connect(t, s, lis)
	got := make(chan error, 3)
	go func() {
		_, err := client.Read(make([]byte, 1))
		got <- err
	}()
	go func() {
		var err error
		for err == nil {
			_, err = client.Write(make([]byte, 64<<10))
		}
		got <- err
	}()
	go func() {
		_, err := lis.Accept()
		got <- err
	}()
	client.Close()
	lis.Close()
	for range 3 {
		if err := <-got; !errors.Is(err, net.ErrClosed) {
			t.Errorf("ended with %v", err)
		}
	}
}

func testErrors(t *testing.T, s subject) {
	lis := listen(t, s)
	addr := lis.Addr().String()
	if _, err := s.server.Listen(addr); !errs.Is(err, errs.Busy) || !bytes.Contains([]byte(errs.HintOf(err)), []byte("--listen")) {
		t.Errorf("second Listen: %v, hint %q", err, errs.HintOf(err))
	}
	if _, err := s.client.Dial(t.Context(), s.unused); !errs.Is(err, errs.Unavailable) || !bytes.Contains([]byte(err.Error()), []byte(s.unused)) {
		t.Errorf("Dial of nobody: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.client.Dial(ctx, addr); !errs.Is(err, errs.Canceled) {
		t.Errorf("Dial canceled: %v", err)
	}
	ctx, cancel = context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if _, err := s.client.Dial(ctx, addr); !errs.Is(err, errs.Timeout) {
		t.Errorf("Dial past its deadline: %v", err)
	}
	for _, bad := range []string{"", "host", "unix:relative", "a:b:c", "unix:/" + string(make([]byte, 200))} {
		if _, err := s.client.Dial(t.Context(), bad); !errs.Is(err, errs.Usage) {
			t.Errorf("Dial of %.20q: %v", bad, err)
		}
		if _, err := s.server.Listen(bad); !errs.Is(err, errs.Usage) {
			t.Errorf("Listen on %.20q: %v", bad, err)
		}
	}
	lis.Close()
	if _, err := s.client.Dial(t.Context(), addr); !errs.Is(err, errs.Unavailable) {
		t.Errorf("Dial after Close: %v", err)
	}
	again, err := s.server.Listen(addr)
	if err != nil {
		t.Fatalf("Listen after Close: %v", err)
	}
	again.Close()
}

func testManyConns(t *testing.T, s subject) {
	lis := listen(t, s)
	const conns = 50
	go func() {
		for range conns {
			c, err := lis.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	var wg sync.WaitGroup
	for i := range conns {
		wg.Go(func() {
			c, err := s.client.Dial(t.Context(), lis.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			want, got := []byte{byte(i)}, make([]byte, 1)
			c.Write(want)
			if _, err := io.ReadFull(c, got); err != nil || got[0] != want[0] {
				t.Errorf("connection %d echoed %v: %v", i, got, err)
			}
		})
	}
	wg.Wait()
}

func TestSplitAddr(t *testing.T) {
	for addr, want := range map[string][2]string{
		"h:1": {"tcp", "h:1"}, "[::1]:80": {"tcp", "[::1]:80"}, ":0": {"tcp", ":0"}, "unix:/a/b": {"unix", "/a/b"},
	} {
		network, address, err := rpc.SplitAddr(addr)
		if err != nil || network != want[0] || address != want[1] {
			t.Errorf("SplitAddr(%q) = %q, %q, %v", addr, network, address, err)
		}
		if got := rpc.Addr(addr); got.Network() != want[0] || got.String() != addr {
			t.Errorf("Addr(%q) is %s, %s", addr, got.Network(), got)
		}
	}
}
