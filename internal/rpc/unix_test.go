package rpc_test

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"agentdrive/internal/errs"
	"agentdrive/internal/rpc"
)

// stale leaves the socket file of a server that died.
func stale(t *testing.T, path string) {
	t.Helper()
	lis, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	lis.SetUnlinkOnClose(false)
	lis.Close()
}

func TestUnixStale(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	stale(t, path)
	lis, err := rpc.TCP{}.Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode of the socket is %v, %v", fi.Mode(), err)
	}
	conn, err := rpc.TCP{}.Dial(t.Context(), lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// TestUnixRace starts many servers on one stale socket: one gets it and keeps
// it.
func TestUnixRace(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	for range 20 {
		stale(t, path)
		var won atomic.Int32
		var winner net.Listener
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				lis, err := rpc.TCP{}.Listen("unix:" + path)
				if err == nil {
					won.Add(1)
					winner = lis
				} else if !errs.Is(err, errs.Busy) {
					t.Errorf("a loser got %v", err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d servers listen on one socket", won.Load())
		}
		conn, err := rpc.TCP{}.Dial(t.Context(), "unix:"+path)
		if err != nil {
			t.Fatalf("the winner's socket is gone: %v", err)
		}
		conn.Close()
		winner.Close()
	}
}

func TestUnixInTheWay(t *testing.T) {
	dir := socketDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (rpc.TCP{}).Listen("unix:" + file); !errs.Is(err, errs.Busy) {
		t.Errorf("Listen on a file: %v", err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "precious" {
		t.Errorf("the file holds %q, %v", got, err)
	}
	if _, err := (rpc.TCP{}).Listen("unix:" + filepath.Join(dir, "no/such/dir")); !errs.Is(err, errs.NotExist) {
		t.Errorf("Listen in a missing directory: %v", err)
	}
	lis, err := rpc.TCP{UnixMode: 0o666}.Listen("unix:" + filepath.Join(dir, "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	if fi, err := os.Stat(filepath.Join(dir, "open")); err != nil || fi.Mode() != fs.ModeSocket|0o666 {
		t.Errorf("mode is %v, %v", fi.Mode(), err)
	}
}
