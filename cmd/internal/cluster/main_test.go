package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"agentdrive/cmd/internal/cluster"
	"agentdrive/cmd/internal/lockfile"
	"agentdrive/internal/errs"
)

// The test binary doubles as the program: `up` runs a supervisor, the roles
// run servers that only lock their directory and listen.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "up":
			os.Exit(upMain(os.Args[2:]))
		case cluster.Metaserver, cluster.Chunkserver:
			os.Exit(roleMain(os.Args[2], os.Args[3]))
		}
	}
	os.Exit(m.Run())
}

// refuseFile in a server's directory makes the fake server refuse to start.
const refuseFile = "refuse"

func roleMain(data, listen string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cluster.WatchParent(cluster.ParentFD, func() { os.Exit(1) })
	if err := runFake(ctx, cluster.ServerConfig{Data: data, Listen: listen}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		if errs.Is(err, errs.Other) {
			return 1
		}
		return 6
	}
	return 0
}

func runFake(ctx context.Context, c cluster.ServerConfig) error {
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(c.Data, refuseFile)); err == nil {
		return errs.E("fake", errs.Mismatch, "this directory belongs to another cluster", nil)
	}
	lock, err := lockfile.Try(filepath.Join(c.Data, "LOCK"))
	if err != nil {
		return err
	}
	defer lock.Close()
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Fprintln(os.Stderr, "listening on", c.Listen)
	<-ctx.Done()
	return nil
}

// options of the supervisor under test. All servers must listen to be ready.
func options(data string, nodes int) cluster.Options {
	return cluster.Options{
		Data: data, Nodes: nodes, RespawnDelay: 100 * time.Millisecond, Log: os.Stderr,
		Run: runFake,
		Args: func(c cluster.ServerConfig) []string {
			return []string{c.Role, c.Data, c.Listen}
		},
		Up: func(ctx context.Context, c cluster.Config) error {
			for _, e := range c.Servers {
				if err := dial(ctx, e.Address); err != nil {
					return err
				}
			}
			return nil
		},
		Hope: func(code int) (errs.Kind, bool) { return errs.Refused, code != 6 },
	}
}

func dial(ctx context.Context, addr string) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// upMain is `up DATA NODES [norespawn]`: prints ready, runs until SIGTERM.
func upMain(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	nodes, err := strconv.Atoi(args[1])
	if err != nil {
		return 2
	}
	opt := options(args[0], nodes)
	opt.NoRespawn = len(args) > 2
	s, err := cluster.Open(ctx, opt)
	if err == nil {
		err = s.Run(ctx, func() { fmt.Println("ready") })
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// up is a supervisor in a process of its own.
type up struct {
	*exec.Cmd
	out    *strings.Builder
	exited chan struct{} // closed when it has ended
	err    error         // how, valid then
}

func startUp(t *testing.T, args ...string) *up {
	t.Helper()
	u := &up{Cmd: exec.Command(os.Args[0], append([]string{"up"}, args...)...), out: &strings.Builder{}, exited: make(chan struct{})}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	u.Stdout, u.Stderr = w, u.out
	u.WaitDelay = time.Second
	if err := u.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go func() {
		u.err = u.Wait()
		close(u.exited)
	}()
	t.Cleanup(func() {
		u.Process.Kill()
		<-u.exited
		r.Close()
	})
	line := make([]byte, 16)
	n, _ := r.Read(line)
	if string(line[:n]) != "ready\n" {
		u.Process.Kill()
		<-u.exited
		t.Fatalf("up said %q, stderr:\n%s", line[:n], u.out)
	}
	return u
}

func (u *up) kill9(t *testing.T) {
	t.Helper()
	if err := u.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-u.exited
}

// eventually waits for a condition of another process, up to a bound that
// only a failing test reaches.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func ask(t *testing.T, d cluster.Dir) cluster.State {
	t.Helper()
	st, err := cluster.Ask(context.Background(), d)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(after, "Z")
}

func wantKind(t *testing.T, err error, kind errs.Kind) {
	t.Helper()
	if !errs.Is(err, kind) {
		t.Fatalf("error is %v (%v), want kind %v", err, errs.KindOf(err), kind)
	}
}

var errTest = errors.New("made by the test")
