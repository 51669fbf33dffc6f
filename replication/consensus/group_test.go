package consensus

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"agentdrive/internal/errs"
)

func TestSingle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg, _ := singleConfig(dir)
	g, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	term := waitLeading(t, g)
	var futures []*Future
	for range 100 {
		futures = append(futures, g.Propose([]byte("add k")))
	}
	last := uint64(0)
	for i, f := range futures {
		val, index, err := f.Result()
		if err != nil || index <= last || val[7] != byte(i+1) {
			t.Fatalf("entry %d: %v %d %v", i, val, index, err)
		}
		last = index
	}
	ri, rt, err := g.Confirm(deadline(t))
	if err != nil || ri < last || rt != term {
		t.Fatalf("confirm: %d %d %v", ri, rt, err)
	}
	if err := g.WaitApplied(deadline(t), ri); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); !errs.Is(err, errs.Locked) {
		t.Fatalf("second open: %v", err)
	}
	shutdown(t, g)
	if _, _, err := g.Propose([]byte("add k")).Result(); !errs.Is(err, errs.Unavailable) {
		t.Fatalf("propose after shutdown: %v", err)
	}
	if _, _, err := g.Confirm(deadline(t)); !errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.NotLeader) {
		t.Fatalf("confirm after shutdown: %v", err)
	}
	g = openSingle(t, dir)
	if n := counter(t, g, "k"); n != 100 {
		t.Fatalf("counter %d after a restart", n)
	}
}

func TestConfigRefusals(t *testing.T) {
	good, _ := singleConfig(t.TempDir())
	for name, breakIt := range map[string]func(*Config){
		"id":                func(c *Config) { c.ID = 0 },
		"dir":               func(c *Config) { c.Dir = "" },
		"applier":           func(c *Config) { c.Applier = nil },
		"transport":         func(c *Config) { c.Transport = nil },
		"bootstrap without": func(c *Config) { c.Bootstrap = []Peer{{2, "x"}} },
		"bootstrap twice":   func(c *Config) { c.Bootstrap = []Peer{{1, "x"}, {1, "x"}} },
	} {
		cfg := good
		breakIt(&cfg)
		if _, err := Open(cfg); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	shutdown(t, openSingle(t, dir))
	cfg, _ := singleConfig(dir)
	cfg.Group = 2
	if _, err := Open(cfg); !errs.Is(err, errs.Mismatch) || errs.HintOf(err) == "" {
		t.Fatal(err)
	}
}

func TestEntryTooLong(t *testing.T) {
	t.Parallel()
	g := openSingle(t, t.TempDir())
	if _, _, err := g.Propose(make([]byte, MaxEntry+1)).Result(); !errs.Is(err, errs.Invalid) {
		t.Fatal(err)
	}
	mustPropose(t, g, "add k %s", strings.Repeat("x", MaxEntry-100))
}

func TestWaitAppliedEnds(t *testing.T) {
	t.Parallel()
	g := openSingle(t, t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := g.WaitApplied(ctx, 1<<40); !errs.Is(err, errs.Canceled) {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- g.WaitApplied(deadline(t), 1<<40) }()
	shutdown(t, g)
	if err := <-done; !errs.Is(err, errs.Unavailable) {
		t.Fatal(err)
	}
}

func TestFailingStateStopsTheGroup(t *testing.T) {
	t.Parallel()
	g := openSingle(t, t.TempDir())
	mustPropose(t, g, "add k")
	if _, _, err := g.Propose([]byte("huge k")).Result(); !errs.Is(err, errs.Unavailable) {
		t.Fatalf("unappliable entry: %v", err)
	}
	select {
	case <-g.Failed():
	case <-time.After(patience):
		t.Fatal("group goes on")
	}
	if !errs.Is(g.Err(), errs.Invalid) {
		t.Fatal(g.Err())
	}
	if n := counter(t, g, "k"); n != 1 {
		t.Fatalf("counter %d", n)
	}
}

func TestFailover(t *testing.T) {
	c := newCluster(t)
	l, index := c.propose("add k")
	for i := range 19 {
		l, index = c.propose("add k %d", i)
	}
	dead := l.cfg.ID
	for _, g := range c.groups {
		if g == l || g.WaitApplied(deadline(t), index) != nil {
			continue
		}
		if _, _, err := g.Propose([]byte("add other")).Result(); err == nil {
			t.Skip("leadership moved in the middle of the test")
		} else if hint := errs.HintOf(err); !errs.Is(err, errs.NotLeader) || hint != string(addr(dead)) && hint != "" {
			t.Fatalf("follower: %v, hint %q", err, hint)
		}
		if _, _, err := g.Confirm(deadline(t)); !errs.Is(err, errs.NotLeader) {
			t.Fatalf("follower confirms: %v", err)
		}
	}
	c.stop(dead)
	l2 := c.leader(1, 2, 3)
	ri, _, err := l2.Confirm(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := l2.WaitApplied(deadline(t), ri); err != nil {
		t.Fatal(err)
	}
	if n := counter(t, l2, "k"); n < 20 {
		t.Fatalf("counter %d on the new leader", n)
	}
	l2, index = c.propose("add k")
	back := c.start(dead)
	if err := back.WaitApplied(deadline(t), index); err != nil {
		t.Fatal(err)
	}
	if n, want := counter(t, back, "k"), counter(t, l2, "k"); n != want {
		t.Fatalf("counter %d on the returned server, %d on the leader", n, want)
	}
	st, err := l2.Stats()
	if err != nil || len(st.Voters) != 3 || st.Applied < index || st.Group != 7 || st.LastIndex < index {
		t.Fatalf("stats %+v %v", st, err)
	}
}

// TestFarBehindFollowerGetsSnapshot also restarts that follower twice: its
// own log begins behind the snapshot.
func TestFarBehindFollowerGetsSnapshot(t *testing.T) {
	c := newCluster(t)
	l, _ := c.propose("add k")
	behind := l.cfg.ID%3 + 1
	c.stop(behind)
	pad := strings.Repeat("x", 64<<10)
	n, last := 1, uint64(0)
	for first := uint64(0); first < 60; n++ { // until the log was cut
		l, last = c.propose("add k%d %s", n%100, pad)
		st, err := l.Stats()
		if err != nil {
			t.Fatal(err)
		}
		first = st.FirstIndex
		if st.FirstIndex > st.Durable+1 {
			t.Fatalf("log begins at %d, the state is durable to %d", st.FirstIndex, st.Durable)
		}
	}
	g := c.start(behind)
	if err := g.WaitApplied(deadline(t), last); err != nil {
		t.Fatal(err)
	}
	if c.appliers[behind].restores.Load() == 0 {
		t.Fatal("no snapshot was installed")
	}
	for range 2 {
		_, last = c.propose("add k")
		if err := g.WaitApplied(deadline(t), last); err != nil {
			t.Fatal(err)
		}
		c.stop(behind)
		g = c.start(behind)
	}
	l, last = c.propose("add k")
	for _, m := range []*Group{l, g} {
		if err := m.WaitApplied(deadline(t), last); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"k", "k5"} {
		if got, want := counter(t, g, key), counter(t, l, key); got != want || got == 0 {
			t.Fatalf("%s = %d, %d on the leader", key, got, want)
		}
	}
	if len(g.voters()) != 3 {
		t.Fatalf("membership after a snapshot: %v", g.voters())
	}
}

func TestTransferAndLeadershipEvents(t *testing.T) {
	c := newCluster(t)
	l := c.leader(1, 2, 3)
	if err := l.TransferLeadership(deadline(t)); err != nil && !errs.Is(err, errs.NotLeader) {
		t.Fatal(err)
	}
	timeout := time.After(patience)
	var got []Leadership
	for len(got) < 2 {
		select {
		case e := <-l.Leadership():
			got = append(got, e)
		case <-timeout:
			t.Fatalf("events %v", got)
		}
	}
	if !got[0].Leading || got[1].Leading || got[0].Term != got[1].Term || got[0].Term == 0 {
		t.Fatalf("events %v", got)
	}
}

func TestMembership(t *testing.T) {
	c := newCluster(t)
	l := c.leader(1, 2, 3)
	gone := l.cfg.ID%3 + 1
	if err := l.RemoveServer(deadline(t), gone); err != nil {
		t.Fatal(err)
	}
	if n := len(l.voters()); n != 2 {
		t.Fatalf("%d voters", n)
	}
	if err := l.AddVoter(deadline(t), Peer{gone, fmt.Sprintf("s%d", gone)}); err != nil {
		t.Fatal(err)
	}
	if n := len(l.voters()); n != 3 {
		t.Fatalf("%d voters", n)
	}
}
