package cluster_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"agentdrive/cmd/internal/cluster"
	"agentdrive/internal/errs"
)

func TestUpDownUp(t *testing.T) {
	data := t.TempDir()
	d := cluster.Dir(data)
	ctx := context.Background()
	startUp(t, data, "3")
	st := ask(t, d)
	if len(st.Servers) != 6 || !st.Ready || st.Nodes != 3 {
		t.Fatalf("state %+v", st)
	}
	config, err := cluster.Load(d)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range st.Servers {
		if !alive(v.Pid) || v.Pid != d.Pid(config.Servers[i]) {
			t.Fatalf("server %+v, pid file %d", v, d.Pid(config.Servers[i]))
		}
	}
	_, err = cluster.Open(ctx, options(data, 3))
	wantKind(t, err, errs.Locked)

	if ran, err := cluster.Down(ctx, d); err != nil || !ran {
		t.Fatal(ran, err)
	}
	for _, v := range st.Servers {
		if alive(v.Pid) {
			t.Errorf("%s-%d is still there", v.Role, v.ID)
		}
	}
	if ran, err := cluster.Down(ctx, d); err != nil || ran {
		t.Fatal("second down:", ran, err)
	}
	if names, _ := os.ReadDir(d.Run()); len(names) != 0 {
		t.Errorf("left in run/: %v", names)
	}

	startUp(t, data, "0") // 0: as created
	again, err := cluster.Load(d)
	if err != nil || again.Cluster != config.Cluster || again.Servers[5] != config.Servers[5] {
		t.Fatalf("cluster changed: %+v, %v", again, err)
	}
	if _, err := cluster.Down(ctx, d); err != nil {
		t.Fatal(err)
	}
}

// A kill -9 of the supervisor takes all servers with it; the next one starts
// at once on the same data.
func TestKilledSupervisorLeavesNoOrphan(t *testing.T) {
	data := t.TempDir()
	d := cluster.Dir(data)
	u := startUp(t, data, "3")
	st := ask(t, d)
	u.kill9(t)
	startUp(t, data, "3")
	for _, v := range st.Servers {
		if alive(v.Pid) {
			t.Errorf("%s-%d (%d) outlived its supervisor", v.Role, v.ID, v.Pid)
		}
	}
	if _, err := cluster.Down(context.Background(), d); err != nil {
		t.Fatal(err)
	}
}

// Down after a kill -9 waits for the last servers and cleans up.
func TestDownAfterKill(t *testing.T) {
	data := t.TempDir()
	d := cluster.Dir(data)
	u := startUp(t, data, "3")
	st := ask(t, d)
	u.kill9(t)
	if _, err := cluster.Down(context.Background(), d); err != nil {
		t.Fatal(err)
	}
	for _, v := range st.Servers {
		if alive(v.Pid) {
			t.Errorf("%s-%d is still there", v.Role, v.ID)
		}
	}
}

// A supervisor that does not react (here: stopped) is killed when the
// caller's patience ends.
func TestDownKillsStuckSupervisor(t *testing.T) {
	data := t.TempDir()
	u := startUp(t, data, "3")
	if err := u.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if ran, err := cluster.Down(ctx, cluster.Dir(data)); err != nil || !ran {
		t.Fatal(ran, err)
	}
}

func TestRespawn(t *testing.T) {
	data := t.TempDir()
	d := cluster.Dir(data)
	startUp(t, data, "3")
	victim := ask(t, d).Servers[4]
	if err := syscall.Kill(victim.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "server started again", func() bool {
		v := ask(t, d).Servers[4]
		return v.Pid != 0 && v.Pid != victim.Pid && v.Restarts == 1 && strings.Contains(v.Last, "killed")
	})
	for i, v := range ask(t, d).Servers {
		if i != 4 && v.Restarts != 0 {
			t.Errorf("%+v was restarted too", v)
		}
	}
}

func TestNoRespawn(t *testing.T) {
	data := t.TempDir()
	d := cluster.Dir(data)
	u := startUp(t, data, "3", "norespawn")
	for _, v := range ask(t, d).Servers {
		if err := syscall.Kill(v.Pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all servers seen dead", func() bool {
		for _, v := range ask(t, d).Servers {
			if v.Pid != 0 {
				return false
			}
		}
		return true
	})
	if err := u.Process.Signal(syscall.SIGTERM); err != nil { // still there, and stops in order
		t.Fatal(err)
	}
	<-u.exited
	if u.err != nil {
		t.Fatal(u.err)
	}
}

func TestRefusedServerFailsTheStart(t *testing.T) {
	data := t.TempDir()
	dir := filepath.Join(data, "metaserver-2")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, refuseFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := cluster.Open(context.Background(), options(data, 3))
	if err != nil {
		t.Fatal(err)
	}
	err = s.Run(context.Background(), func() { t.Error("ready") })
	wantKind(t, err, errs.Refused)
	for _, want := range []string{"metaserver-2", "belongs to another cluster"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

func TestEmbedded(t *testing.T) {
	data := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := cluster.Open(ctx, options(data, 0))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(ctx, cancel); err != nil { // stops as soon as it serves
		t.Fatal(err)
	}
	s, err = cluster.Open(context.Background(), options(data, 1))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = cluster.Open(context.Background(), options(data, 3))
	wantKind(t, err, errs.Refused)
}

func TestEmbeddedServerFails(t *testing.T) {
	opt := options(t.TempDir(), 1)
	opt.Run = func(ctx context.Context, c cluster.ServerConfig) error {
		if c.Role == cluster.Chunkserver {
			return errs.E("fake", errs.Corrupt, "segment 7", errTest)
		}
		<-ctx.Done()
		return nil
	}
	s, err := cluster.Open(context.Background(), opt)
	if err != nil {
		t.Fatal(err)
	}
	wantKind(t, s.Run(context.Background(), func() {}), errs.Corrupt)
}

func TestStartThatNeverServes(t *testing.T) {
	opt := options(t.TempDir(), 1)
	opt.ReadyTimeout = 50 * time.Millisecond
	opt.Up = func(ctx context.Context, _ cluster.Config) error {
		<-ctx.Done()
		return errs.E("fake", errs.Timeout, "nobody leads", ctx.Err())
	}
	s, err := cluster.Open(context.Background(), opt)
	if err != nil {
		t.Fatal(err)
	}
	wantKind(t, s.Run(context.Background(), func() { t.Error("ready") }), errs.Timeout)
}
