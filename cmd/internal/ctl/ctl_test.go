package ctl_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"agentdrive/cmd/internal/ctl"
	"agentdrive/internal/errs"
)

func serve(t *testing.T, path string, h ctl.Handler) {
	t.Helper()
	s, err := ctl.Listen(path, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
}

func TestCall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	serve(t, path, func(_ context.Context, op string, args json.RawMessage) (any, error) {
		switch op {
		case "echo":
			return args, nil
		case "none":
			return nil, nil
		}
		return nil, errs.E("test", errs.Busy, "two files are open", nil).WithHint("close them")
	})
	ctx := context.Background()
	var got []int
	if err := ctl.Call(ctx, path, "echo", []int{1, 2}, &got); err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	if err := ctl.Call(ctx, path, "none", nil, nil); err != nil {
		t.Fatal(err)
	}
	err := ctl.Call(ctx, path, "fail", nil, nil)
	if !errs.Is(err, errs.Busy) || errs.HintOf(err) != "close them" || !strings.Contains(err.Error(), "two files") {
		t.Fatalf("%v, kind %v, hint %q", err, errs.KindOf(err), errs.HintOf(err))
	}
}

func TestLongPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	if err := ctl.Call(context.Background(), filepath.Join(path, "s.sock"), "x", nil, nil); !errs.Is(err, errs.Unavailable) {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for len(dir) < 150 {
		dir = filepath.Join(dir, strings.Repeat("d", 40))
	}
	mkdirAll(t, dir)
	path = filepath.Join(dir, "s.sock")
	serve(t, path, func(context.Context, string, json.RawMessage) (any, error) { return "yes", nil })
	var got string
	if err := ctl.Call(context.Background(), path, "x", nil, &got); err != nil || got != "yes" {
		t.Fatal(got, err)
	}
}

func TestNobodyListens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	if err := ctl.Call(context.Background(), path, "x", nil, nil); !errs.Is(err, errs.Unavailable) {
		t.Fatal(err)
	}
	s, err := ctl.Listen(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := ctl.Call(context.Background(), path, "x", nil, nil); !errs.Is(err, errs.Unavailable) {
		t.Fatal("after close:", err)
	}
}

// A caller that gives up gets errs.Timeout, and its request's context ends.
func TestCancel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	started, ended := make(chan struct{}), make(chan struct{})
	serve(t, path, func(ctx context.Context, _ string, _ json.RawMessage) (any, error) {
		close(started)
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-started; cancel() }()
	if err := ctl.Call(ctx, path, "x", nil, nil); !errs.Is(err, errs.Timeout) {
		t.Fatal(err)
	}
	<-ended
}

func TestBadRequests(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	serve(t, path, func(context.Context, string, json.RawMessage) (any, error) { return nil, nil })
	for _, c := range []struct {
		name, send string
		reply      bool
	}{
		{"not JSON", "hello\n", true},
		{"cut", `{"op":`, false},
		{"too long", strings.Repeat("x", 1<<20+1) + "\n", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			// The server may hang up while we still send: that is its answer.
			_, _ = conn.Write([]byte(c.send))
			_ = conn.(*net.UnixConn).CloseWrite()
			conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			var got bytes.Buffer
			_, _ = got.ReadFrom(conn)
			if has := strings.Contains(got.String(), "failure"); has != c.reply {
				t.Fatalf("reply %q", got.String())
			}
		})
	}
	if err := ctl.Call(context.Background(), path, "x", nil, nil); err != nil {
		t.Fatal("after bad requests:", err)
	}
}
