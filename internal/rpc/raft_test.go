package rpc_test

import (
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"agentdrive/internal/rpc/memnet"
)

// listFSM is a state machine that keeps what was applied.
type listFSM struct {
	mu      sync.Mutex // guards entries and changed
	entries []string
	changed chan struct{} // closed and replaced at every entry
}

func newListFSM() *listFSM { return &listFSM{changed: make(chan struct{})} }

func (f *listFSM) Apply(l *raft.Log) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.entries = append(f.entries, string(l.Data))
	close(f.changed)
	f.changed = make(chan struct{})
	return nil
}

func (f *listFSM) Snapshot() (raft.FSMSnapshot, error) { return nil, fmt.Errorf("not in this test") }
func (f *listFSM) Restore(io.ReadCloser) error         { return fmt.Errorf("not in this test") }

// await blocks until entry was applied.
func (f *listFSM) await(t *testing.T, entry string) {
	t.Helper()
	for {
		f.mu.Lock()
		for _, e := range f.entries {
			if e == entry {
				f.mu.Unlock()
				return
			}
		}
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-time.After(30 * time.Second): // a hang detector
			t.Fatalf("%q is never applied", entry)
		}
	}
}

// raftNode is one server of the test cluster.
type raftNode struct {
	host string
	raft *raft.Raft
	fsm  *listFSM
}

func startRaftNode(t *testing.T, n *memnet.Net, id uint32, group uint32) raftNode {
	t.Helper()
	m := startMux(t, n, id, nil)
	trans := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: m.Raft(group), MaxPool: 3, Timeout: 2 * time.Second, Logger: hclog.NewNullLogger(),
	})
	cfg := raft.DefaultConfig()
	cfg.LocalID = raft.ServerID(fmt.Sprint(id))
	cfg.HeartbeatTimeout, cfg.ElectionTimeout = 200*time.Millisecond, 200*time.Millisecond
	cfg.LeaderLeaseTimeout, cfg.CommitTimeout = 100*time.Millisecond, 5*time.Millisecond
	cfg.Logger = hclog.NewNullLogger()
	node := raftNode{host: fmt.Sprintf("m%d", id), fsm: newListFSM()}
	store := raft.NewInmemStore()
	r, err := raft.NewRaft(cfg, node.fsm, store, store, raft.NewInmemSnapshotStore(), trans)
	if err != nil {
		t.Fatal(err)
	}
	node.raft = r
	t.Cleanup(func() {
		if err := r.Shutdown().Error(); err != nil {
			t.Error(err)
		}
		if err := trans.Close(); err != nil {
			t.Error(err)
		}
	})
	return node
}

// leaderOf waits until one of nodes leads and has committed entry.
func leaderOf(t *testing.T, nodes []raftNode, entry string) raftNode {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second) // a hang detector
	for time.Now().Before(deadline) {
		for _, n := range nodes {
			if n.raft.State() == raft.Leader && n.raft.Apply([]byte(entry), time.Second).Error() == nil {
				return n
			}
		}
		observeAny(nodes)
	}
	t.Fatalf("nobody leads")
	return raftNode{}
}

// observeAny blocks until some node reports a change of state or leader.
func observeAny(nodes []raftNode) {
	ch := make(chan raft.Observation, 16)
	for _, n := range nodes {
		o := raft.NewObserver(ch, false, nil)
		n.raft.RegisterObserver(o)
		defer n.raft.DeregisterObserver(o)
	}
	for _, n := range nodes {
		if n.raft.State() == raft.Leader {
			return // before we listened
		}
	}
	select {
	case <-ch:
	case <-time.After(time.Second): // look again
	}
}

// TestRaftOverMux: three servers elect a leader, survive its partition and the
// loss of their connections.
func TestRaftOverMux(t *testing.T) {
	n := memnet.New()
	const group = 5
	var nodes []raftNode
	var servers []raft.Server
	for id := uint32(1); id <= 3; id++ {
		nodes = append(nodes, startRaftNode(t, n, id, group))
		servers = append(servers, raft.Server{ID: raft.ServerID(fmt.Sprint(id)), Address: raft.ServerAddress(fmt.Sprintf("m%d:7000", id))})
	}
	if err := nodes[0].raft.BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
		t.Fatal(err)
	}
	old := leaderOf(t, nodes, "one")
	for _, node := range nodes {
		node.fsm.await(t, "one")
	}

	n.Isolate(old.host, "m1", "m2", "m3")
	var rest []raftNode
	for _, node := range nodes {
		if node.host != old.host {
			rest = append(rest, node)
		}
	}
	leaderOf(t, rest, "two")
	for _, node := range rest {
		node.fsm.await(t, "two")
	}
	if err := old.raft.Apply([]byte("lost"), 100*time.Millisecond).Error(); err == nil {
		t.Error("a leader without a majority committed an entry")
	}

	n.HealAll()
	old.fsm.await(t, "two")
	leaderOf(t, nodes, "three")
	for _, node := range nodes {
		node.fsm.await(t, "three")
	}

	// Connections that break are made again.
	if n.CutHost("m1")+n.CutHost("m2") == 0 {
		t.Error("no connection to cut")
	}
	leaderOf(t, nodes, "four")
	for _, node := range nodes {
		node.fsm.await(t, "four")
		node.fsm.mu.Lock()
		for _, e := range node.fsm.entries {
			if e == "lost" {
				t.Errorf("%s applied an entry that was refused", node.host)
			}
		}
		node.fsm.mu.Unlock()
	}
}
