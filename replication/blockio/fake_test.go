package blockio

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"agentdrive/chunkserver/chunk"
	"agentdrive/chunkserver/chunk/memstore"
	"agentdrive/chunkserver/chunktest"
	"agentdrive/internal/errs"
)

// node is a memstore with a switch for each way to fail.
type node struct {
	chunk.Store
	mem *memstore.Store

	mu    sync.Mutex // guards the fields below
	err   error      // every call fails with it
	hung  bool       // calls end with their context only
	delay time.Duration
	calls int
}

func (n *node) set(f func(n *node)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(n)
}

func (n *node) called() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.calls
}

func (n *node) enter(ctx context.Context) error {
	n.mu.Lock()
	n.calls++
	err, hung, delay := n.err, n.hung, n.delay
	n.mu.Unlock()
	if hung {
		<-ctx.Done()
		return chunk.Ended("fake", ctx)
	}
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return chunk.Ended("fake", ctx)
		}
	}
	return err
}

func (n *node) Put(ctx context.Context, g chunk.Grant, b chunk.Block) error {
	if err := n.enter(ctx); err != nil {
		return err
	}
	return n.Store.Put(ctx, g, b)
}

func (n *node) Get(ctx context.Context, g chunk.Grant, id chunk.BlockID, off, length uint32) ([]byte, error) {
	if err := n.enter(ctx); err != nil {
		return nil, err
	}
	return n.Store.Get(ctx, g, id, off, length)
}

// cluster is Stores over nodes 1, 2, ...
type cluster []*node

func newCluster(n int) cluster {
	c := make(cluster, n)
	for i := range c {
		m := memstore.New(chunktest.Cluster)
		c[i] = &node{Store: m, mem: m}
	}
	return c
}

func (c cluster) Store(id chunk.ServerID) (chunk.Store, error) {
	if id < 1 || int(id) > len(c) {
		return nil, errs.E("fake.store", errs.Unavailable, "unknown server", nil)
	}
	return c[id-1], nil
}

func (c cluster) node(id chunk.ServerID) *node { return c[id-1] }

func (c cluster) has(t *testing.T, id chunk.ServerID, b chunk.Block) bool {
	t.Helper()
	has, err := c.node(id).mem.Has(t.Context(), chunktest.Grant(), []chunk.BlockID{b.ID})
	if err != nil {
		t.Fatal(err)
	}
	return has[0]
}

func down() error { return errs.E("fake", errs.Unavailable, "connection refused", nil) }

// record collects callbacks.
type record struct {
	mu      sync.Mutex
	late    []Late
	waiting []Waiting
	corrupt []Corrupt
}

func (r *record) onLate(l Late) { r.mu.Lock(); defer r.mu.Unlock(); r.late = append(r.late, l) }
func (r *record) onWaiting(w Waiting) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = append(r.waiting, w)
}
func (r *record) onCorrupt(c Corrupt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.corrupt = append(r.corrupt, c)
}

func three() Placement {
	return Placement{PG: 5, Epoch: 9, Members: []chunk.ServerID{1, 2, 3}, Quorum: 2, MinCopies: 2}
}

// news is what the callbacks told so far.
func (r *record) news() (late []Late, waiting []Waiting, corrupt []Corrupt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.late), slices.Clone(r.waiting), slices.Clone(r.corrupt)
}
