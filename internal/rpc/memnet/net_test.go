package memnet

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"agentdrive/internal/errs"
)

// The contract of rpc.Network is tested by package rpc's conformance suite;
// here are the controls.

// join returns a connection from host a to host b.
func join(t *testing.T, n *Net, a, b string) (client, server net.Conn) {
	t.Helper()
	lis, err := n.Host(b).Listen(b + ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lis.Close() })
	client, err = n.Host(a).Dial(t.Context(), lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = lis.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

func write(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("got %q, %v; want %q", got, err, want)
	}
}

// expectSilence checks that nothing can be read now. What has arrived is
// readable at once, so a deadline that is all but over suffices.
func expectSilence(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	defer c.SetReadDeadline(time.Time{})
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d bytes, %v; want silence", n, err)
	}
}

func TestPartition(t *testing.T) {
	n := New()
	ab, ba := join(t, n, "a", "b")
	ac, ca := join(t, n, "a", "c")
	n.PartitionOneWay("a", "b")
	write(t, ab, "1")
	write(t, ba, "2")
	expect(t, ab, "2") // the other way is open
	expectSilence(t, ba)
	write(t, ac, "x")
	expect(t, ca, "x") // other links are open
	n.Partition("a", "b")
	write(t, ba, "3")
	expectSilence(t, ab)
	n.Heal("a", "b")
	expect(t, ba, "1")
	expect(t, ab, "3")

	// What was on its way when the partition began waits too, and so does the
	// end of the stream.
	write(t, ab, "4")
	n.Partition("b", "a")
	ab.Close()
	expectSilence(t, ba)
	write(t, ba, "5") // the reset cannot come back yet
	n.HealAll()
	if got, err := io.ReadAll(ba); err != nil || string(got) != "4" {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := ba.Write([]byte("6")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write to a closed peer: %v", err)
	}
}

// TestPartitionWakesWriter: a writer that waits for room sees that the reader
// closed as soon as the link heals.
func TestPartitionWakesWriter(t *testing.T) {
	n := New()
	ab, ba := join(t, n, "a", "b")
	n.Partition("a", "b")
	ended := make(chan error, 1)
	go func() {
		_, err := ab.Write(make([]byte, 2*maxBuffered))
		ended <- err
	}()
	ba.Close()
	n.Heal("a", "b")
	if err := <-ended; !errors.Is(err, syscall.EPIPE) {
		t.Errorf("ended with %v", err)
	}
}

func TestDialPartition(t *testing.T) {
	n := New()
	lis, err := n.Host("b").Listen("b:1")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	for _, cut := range []func(){func() { n.PartitionOneWay("a", "b") }, func() { n.PartitionOneWay("b", "a") }} {
		cut()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		if _, err := n.Host("a").Dial(ctx, "b:1"); !errs.Is(err, errs.Timeout) {
			t.Errorf("Dial over a partition: %v", err)
		}
		cancel()
		dialed := make(chan error, 1)
		go func() {
			c, err := n.Host("a").Dial(t.Context(), "b:1")
			if err == nil {
				c.Close()
			}
			dialed <- err
		}()
		n.Heal("a", "b")
		if err := <-dialed; err != nil {
			t.Errorf("Dial after Heal: %v", err)
		}
	}
	if c, err := n.Host("b").Dial(t.Context(), ":1"); err != nil {
		t.Errorf("a host cannot reach itself: %v", err)
	} else {
		c.Close()
	}
}

func TestRefuseDials(t *testing.T) {
	n := New()
	ab, ba := join(t, n, "a", "b")
	addr := ba.LocalAddr().String()
	n.RefuseDials("b", true)
	if _, err := n.Host("a").Dial(t.Context(), addr); !errs.Is(err, errs.Unavailable) || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Dial of a refusing host: %v", err)
	}
	write(t, ab, "still here")
	expect(t, ba, "still here")
	n.RefuseDials("b", false)
	c, err := n.Host("a").Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestCut(t *testing.T) {
	n := New()
	ab, ba := join(t, n, "a", "b")
	ab2, _ := join(t, n, "b", "a")
	ac, ca := join(t, n, "a", "c")
	write(t, ab, "lost")
	waits := make(chan error, 1)
	go func() {
		_, err := ab.Read(make([]byte, 1))
		waits <- err
	}()
	if got := n.Cut("a", "b"); got != 2 {
		t.Errorf("cut %d connections, want 2", got)
	}
	if err := <-waits; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a waiting read ended with %v", err)
	}
	for _, c := range []net.Conn{ba, ab2} {
		if k, err := c.Read(make([]byte, 9)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read %d, %v", k, err)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write: %v", err)
		}
	}
	write(t, ac, "x")
	expect(t, ca, "x")
	if got := n.CutHost("c"); got != 1 {
		t.Errorf("cut %d connections of c, want 1", got)
	}
	if got := n.CutHost("a"); got != 0 {
		t.Errorf("cut %d connections again", got)
	}
}

// TestDelay checks lower bounds only: a busy machine may be late, never early.
func TestDelay(t *testing.T) {
	n := New()
	ab, ba := join(t, n, "a", "b")
	const delay = 20 * time.Millisecond
	n.SetDelay("a", "b", delay)
	begin := time.Now()
	write(t, ab, "1")
	n.SetDelay("a", "b", 0)
	write(t, ab, "2") // sent with less delay, must not overtake
	expect(t, ba, "12")
	if took := time.Since(begin); took < delay {
		t.Errorf("arrived after %v", took)
	}
	n.SetDelay("a", "b", delay)
	begin = time.Now()
	ab.Close()
	if _, err := ba.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read %v", err)
	}
	if took := time.Since(begin); took < delay {
		t.Errorf("the end arrived after %v", took)
	}
	// A dial takes a round trip.
	lis, err := n.Host("b").Listen("b:9")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	n.SetDelay("b", "a", delay)
	begin = time.Now()
	c, err := n.Host("a").Dial(t.Context(), "b:9")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if took := time.Since(begin); took < 2*delay {
		t.Errorf("dialed in %v", took)
	}
	n.SetDelay("b", "a", time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := n.Host("a").Dial(ctx, "b:9"); !errs.Is(err, errs.Timeout) {
		t.Errorf("Dial with too little time: %v", err)
	}
}

// TestBandwidth: two connections of a link share what it carries.
func TestBandwidth(t *testing.T) {
	n := New()
	ab1, ba1 := join(t, n, "a", "b")
	ab2, ba2 := join(t, n, "a", "b")
	n.SetBandwidth("a", "b", 2_000_000)
	begin := time.Now()
	data := strings.Repeat("x", 50_000)
	write(t, ab1, data)
	write(t, ab2, data)
	expect(t, ba1, data)
	expect(t, ba2, data)
	if took := time.Since(begin); took < 50*time.Millisecond {
		t.Errorf("100 kB at 2 MB/s took %v", took)
	}
}

func TestListener(t *testing.T) {
	n := New()
	h := n.Host("a")
	if _, err := h.Listen("b:1"); !errs.Is(err, errs.Unavailable) {
		t.Errorf("Listen on another host: %v", err)
	}
	lis, err := h.Listen("unix:/s")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Host("b").Dial(t.Context(), "unix:/s"); !errs.Is(err, errs.Unavailable) {
		t.Errorf("a unix socket was reached from another host: %v", err)
	}
	c, err := h.Dial(t.Context(), "unix:/s")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	lis.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection nobody accepted, after Close: %v", err)
	}
	if err := lis.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
	for _, bad := range []string{"", "a:1", "a/b"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("host name %q is accepted", bad)
				}
			}()
			n.Host(bad)
		}()
	}
}
