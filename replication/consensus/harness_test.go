package consensus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"agentdrive/internal/kv"
	"agentdrive/replication/store"
)

// patience bounds waiting for something that must happen; it decides no
// verdict but "hung".
const patience = 20 * time.Second

// counters is the state machine of the tests: "add KEY PADDING" increments a
// counter and returns its value, so that an entry applied twice or lost is
// seen. "huge KEY" writes more than the store takes.
type counters struct{ restores atomic.Int64 }

func (c *counters) Apply(tx kv.Tx, _, _ uint64, cmd []byte) []byte {
	verb, rest, _ := strings.Cut(string(cmd), " ")
	key, pad, _ := strings.Cut(rest, " ")
	if verb == "huge" {
		tx.Set([]byte(key), make([]byte, store.MaxValue+1))
		return nil
	}
	old, _, err := tx.Get([]byte(key))
	if err != nil {
		return nil
	}
	n := uint64(1)
	if len(old) >= 8 {
		n += binary.BigEndian.Uint64(old)
	}
	val := append(binary.BigEndian.AppendUint64(nil, n), pad...)
	tx.Set([]byte(key), val)
	return val[:8]
}

func (c *counters) Restored(kv.View, uint64) { c.restores.Add(1) }

func counter(t *testing.T, g *Group, key string) uint64 {
	t.Helper()
	v, err := g.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Release()
	val, ok, err := v.Get([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		return 0
	}
	return binary.BigEndian.Uint64(val)
}

func fastTuning() Tuning {
	return Tuning{
		Heartbeat: 150 * time.Millisecond, ConfirmTimeout: 5 * time.Second, SegmentSize: 1 << 20, MemTable: store.MinMemTable,
		TrailingLogs: 8, SnapshotEvery: 8, SnapshotInterval: 20 * time.Millisecond,
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

func singleConfig(dir string) (Config, *counters) {
	c := &counters{}
	_, trans := raft.NewInmemTransport("one")
	return Config{
		Group: 1, ID: 1, Addr: "one", Dir: dir, Bootstrap: []Peer{{1, "one"}},
		Transport: trans, Applier: c, Tuning: fastTuning(), Log: quiet(),
	}, c
}

func openSingle(t *testing.T, dir string) *Group {
	t.Helper()
	cfg, _ := singleConfig(dir)
	g, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shutdown(t, g) })
	waitLeading(t, g)
	return g
}

func shutdown(t *testing.T, g *Group) {
	t.Helper()
	if err := g.Shutdown(); err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

func waitLeading(t *testing.T, g *Group) uint64 {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case l := <-g.Leadership():
			if l.Leading {
				return l.Term
			}
		case <-g.Failed():
			t.Fatalf("group failed: %v", g.Err())
		case <-timeout:
			t.Fatal("no leadership")
		}
	}
}

func mustPropose(t *testing.T, g *Group, format string, args ...any) (index uint64) {
	t.Helper()
	_, index, err := g.Propose(fmt.Appendf(nil, format, args...)).Result()
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// cluster is three members in one process with links that can be cut.
type cluster struct {
	t    *testing.T
	dirs map[uint32]string

	mu       sync.Mutex // guards the fields below
	groups   map[uint32]*Group
	trans    map[uint32]*raft.InmemTransport
	appliers map[uint32]*counters
	cutTerms map[uint32]bool // AskTerm from and to these fails
	script   scripted        // answers AskTerm instead, if set
}

var errCut = errors.New("link is cut")

func newCluster(t *testing.T) *cluster {
	c := &cluster{
		t: t, dirs: map[uint32]string{}, groups: map[uint32]*Group{}, cutTerms: map[uint32]bool{},
		trans: map[uint32]*raft.InmemTransport{}, appliers: map[uint32]*counters{},
	}
	for id := uint32(1); id <= 3; id++ {
		c.dirs[id] = t.TempDir()
	}
	t.Cleanup(c.close) // before the directories go
	for id := uint32(1); id <= 3; id++ {
		c.start(id)
	}
	return c
}

func addr(id uint32) raft.ServerAddress { return raft.ServerAddress(fmt.Sprintf("s%d", id)) }

func (c *cluster) start(id uint32) *Group {
	c.t.Helper()
	_, trans := raft.NewInmemTransportWithTimeout(addr(id), 500*time.Millisecond)
	app := &counters{}
	c.mu.Lock()
	for other, ot := range c.trans {
		trans.Connect(addr(other), ot)
		ot.Connect(addr(id), trans)
	}
	c.trans[id], c.appliers[id] = trans, app
	c.mu.Unlock()
	tuning := fastTuning()
	tuning.Heartbeat = 300 * time.Millisecond // a loaded machine pauses for 150
	g, err := Open(Config{
		Group: 7, ID: id, Addr: string(addr(id)), Dir: c.dirs[id],
		Bootstrap: []Peer{{1, "s1"}, {2, "s2"}, {3, "s3"}},
		Transport: trans, Terms: terms{c, id}, Applier: app, Tuning: tuning, Log: quiet(),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	c.groups[id] = g
	c.mu.Unlock()
	return g
}

func (c *cluster) stop(id uint32) {
	c.t.Helper()
	c.mu.Lock()
	g, trans := c.groups[id], c.trans[id]
	delete(c.groups, id)
	delete(c.trans, id)
	for _, ot := range c.trans {
		ot.Disconnect(addr(id))
	}
	c.mu.Unlock()
	trans.DisconnectAll()
	shutdown(c.t, g)
}

func (c *cluster) close() {
	c.mu.Lock()
	groups := c.groups
	c.groups = map[uint32]*Group{}
	c.mu.Unlock()
	for _, g := range groups {
		shutdown(c.t, g)
	}
}

// scripted answers AskTerm.
type scripted func(ctx context.Context, p Peer) (uint64, error)

func (s scripted) AskTerm(ctx context.Context, p Peer) (uint64, error) { return s(ctx, p) }

func (c *cluster) setScript(s scripted) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.script = s
}

// isolate cuts Raft's links of id; terms also those of AskTerm.
func (c *cluster) isolate(id uint32, terms bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cutTerms[id] = terms
	for other, ot := range c.trans {
		if other != id {
			ot.Disconnect(addr(id))
		}
	}
	c.trans[id].DisconnectAll()
}

func (c *cluster) heal(id uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.cutTerms, id)
	for other, ot := range c.trans {
		if other != id {
			ot.Connect(addr(id), c.trans[id])
			c.trans[id].Connect(addr(other), ot)
		}
	}
}

// leader waits until one of the members confirms that it leads.
func (c *cluster) leader(among ...uint32) *Group {
	c.t.Helper()
	var found *Group
	eventually(c.t, "a leader", func() bool {
		for _, id := range among {
			c.mu.Lock()
			g := c.groups[id]
			c.mu.Unlock()
			if g == nil {
				continue
			}
			if _, _, err := g.Confirm(deadline(c.t)); err == nil {
				found = g
				return true
			}
		}
		return false
	})
	return found
}

// propose proposes to whoever leads until it is acknowledged. On a loaded
// machine leadership moves; an entry of unknown outcome is then proposed
// again, so counters may count more than the calls, never less.
func (c *cluster) propose(format string, args ...any) (l *Group, index uint64) {
	c.t.Helper()
	eventually(c.t, "an acknowledgement", func() bool {
		l = c.leader(1, 2, 3)
		var err error
		_, index, err = l.Propose(fmt.Appendf(nil, format, args...)).Result()
		return err == nil
	})
	return l, index
}

// terms is TermPeers over the cluster.
type terms struct {
	c    *cluster
	self uint32
}

func (t terms) AskTerm(ctx context.Context, p Peer) (uint64, error) {
	t.c.mu.Lock()
	if script := t.c.script; script != nil {
		t.c.mu.Unlock()
		return script(ctx, p)
	}
	g := t.c.groups[p.ID]
	cut := t.c.cutTerms[p.ID] || t.c.cutTerms[t.self]
	t.c.mu.Unlock()
	if g == nil || cut {
		return 0, errCut
	}
	return g.CurrentTerm(), nil
}

// copyDir copies a group's directory as a power cut leaves it: without the
// memory table logs of the state, whose writes were never synced.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	err := filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a temporary file, renamed meanwhile
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if filepath.Ext(name) == ".mem" {
			return nil
		}
		in, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer func() { _ = in.Close() }()
		out, err := os.Create(filepath.Join(to, rel))
		if err != nil {
			return err
		}
		if _, err := io.Copy(out, in); err != nil {
			return errors.Join(err, out.Close())
		}
		return out.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}
