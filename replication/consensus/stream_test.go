package consensus

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// tcpLayer is a raft.StreamLayer over loopback.
type tcpLayer struct{ net.Listener }

func (tcpLayer) Dial(a raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", string(a), timeout)
}

// TestStreamLayer runs three members over the library's network transport.
func TestStreamLayer(t *testing.T) {
	var layers []tcpLayer
	var peers []Peer
	for id := uint32(1); id <= 3; id++ {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, tcpLayer{l})
		peers = append(peers, Peer{id, l.Addr().String()})
	}
	groups := map[uint32]*Group{}
	ready := make(chan struct{})
	ask := scripted(func(_ context.Context, p Peer) (uint64, error) {
		<-ready
		return groups[p.ID].CurrentTerm(), nil
	})
	for i, p := range peers {
		g, err := Open(Config{
			Group: 1, ID: p.ID, Addr: p.Addr, Dir: t.TempDir(), Bootstrap: peers,
			Stream: layers[i], Terms: ask, Applier: &counters{}, Tuning: fastTuning(), Log: quiet(),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { shutdown(t, g) })
		groups[p.ID] = g
	}
	close(ready)
	var l *Group
	eventually(t, "a leader", func() bool {
		for _, g := range groups {
			if _, _, err := g.Confirm(deadline(t)); err == nil {
				l = g
				return true
			}
		}
		return false
	})
	_, index, err := l.Propose([]byte("add k")).Result()
	if err != nil {
		t.Skipf("leadership moved in the middle of the test: %v", err)
	}
	for _, g := range groups {
		if err := g.WaitApplied(deadline(t), index); err != nil {
			t.Fatal(err)
		}
		if n := counter(t, g, "k"); n != 1 {
			t.Fatalf("counter %d on server %d", n, g.cfg.ID)
		}
	}
}
