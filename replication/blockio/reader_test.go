package blockio

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"agentdrive/chunkserver/chunk"
	"agentdrive/chunkserver/chunktest"
	"agentdrive/internal/errs"
)

func all() []chunk.ServerID { return []chunk.ServerID{1, 2, 3} }

// reading runs f with a reader over three nodes that have the block; node 1 is
// the nearest, then 2.
func reading(t *testing.T, f func(t *testing.T, r *Reader, c cluster, b chunk.Block, rec *record)) {
	synctest.Test(t, func(t *testing.T) {
		c, rec := newCluster(3), &record{}
		b := chunktest.Block(1, 100000)
		for _, n := range c {
			chunktest.MustPut(t, n.mem, b)
		}
		r, err := NewReader(ReaderConfig{Stores: c, OnCorrupt: rec.onCorrupt,
			Distance: func(id chunk.ServerID) int { return int(id) }})
		if err != nil {
			t.Fatal(err)
		}
		f(t, r, c, b, rec)
	})
}

func wantRead(t *testing.T, r *Reader, b chunk.Block) {
	t.Helper()
	got, err := r.Get(t.Context(), chunktest.Grant(), all(), b.ID, 10, 70000)
	if err != nil || !bytes.Equal(got, b.Data[10:70010]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestNearestFirst(t *testing.T) {
	reading(t, func(t *testing.T, r *Reader, c cluster, b chunk.Block, _ *record) {
		for range 10 {
			wantRead(t, r, b)
		}
		if c[0].called() != 10 || c[1].called()+c[2].called() != 0 {
			t.Errorf("calls %d, %d, %d", c[0].called(), c[1].called(), c[2].called())
		}
	})
}

// A member that fails is passed over at once, and left out for a while; when
// it is well again it comes first again.
func TestFailover(t *testing.T) {
	reading(t, func(t *testing.T, r *Reader, c cluster, b chunk.Block, _ *record) {
		c[0].set(func(n *node) { n.err = down() })
		began := time.Now()
		for range 10 {
			wantRead(t, r, b)
		}
		if time.Since(began) != 0 || c[0].called() != 1 {
			t.Errorf("took %v, %d calls to the dead member", time.Since(began), c[0].called())
		}
		c[0].set(func(n *node) { n.err = nil })
		time.Sleep(time.Second)
		before := c[1].called()
		wantRead(t, r, b)
		wantRead(t, r, b)
		if c[1].called() != before {
			t.Error("the nearest member is still left out")
		}
	})
}

// A silent member costs one hedge delay, then it is asked last.
func TestHedge(t *testing.T) {
	for name, slow := range map[string]func(n *node){
		"hung": func(n *node) { n.hung = true },
		"slow": func(n *node) { n.delay = time.Minute },
	} {
		t.Run(name, func(t *testing.T) {
			reading(t, func(t *testing.T, r *Reader, c cluster, b chunk.Block, _ *record) {
				c[0].set(func(n *node) { n.delay = 10 * time.Millisecond })
				for range 50 { // its latency is known now
					wantRead(t, r, b)
				}
				c[0].set(slow)
				began := time.Now()
				wantRead(t, r, b)
				if took := time.Since(began); took < 10*time.Millisecond || took > 20*time.Millisecond {
					t.Errorf("hedged after %v, usual latency is 10 ms", took)
				}
				began = time.Now()
				for range 10 {
					wantRead(t, r, b)
				}
				if took := time.Since(began); took != 0 {
					t.Errorf("ten reads around the silent member took %v", took)
				}
				synctest.Wait()
				if _, calls := r.members.load(1); calls != 0 {
					t.Errorf("%d calls still under way", calls)
				}
			})
		})
	}
}

// A corrupt copy is reported and another one read.
func TestCorrupt(t *testing.T) {
	reading(t, func(t *testing.T, r *Reader, c cluster, b chunk.Block, rec *record) {
		c[0].mem.Rot(b.ID, 100)
		wantRead(t, r, b)
		if _, _, bad := rec.news(); len(bad) != 1 || bad[0].Member != 1 || bad[0].Block != b.ID || !errs.Is(bad[0].Err, errs.Corrupt) {
			t.Errorf("reported %+v", bad)
		}
		c[1].mem.Rot(b.ID, 100)
		c[2].mem.Rot(b.ID, 100)
		_, err := r.Get(t.Context(), chunktest.Grant(), all(), b.ID, 0, 1000)
		chunktest.WantKind(t, err, errs.Corrupt)
		if _, _, bad := rec.news(); len(bad) != 4 {
			t.Errorf("%d reports, want 4", len(bad))
		}
	})
}

// Absence needs the word of every member.
func TestAbsence(t *testing.T) {
	kind := func(k errs.Kind) func(n *node) {
		return func(n *node) { n.err = errs.E("fake", k, "", nil) }
	}
	for _, tc := range []struct {
		name  string
		third func(n *node)
		want  errs.Kind
	}{
		{"all say so", kind(errs.NotExist), errs.NotExist},
		{"one is down", kind(errs.Unavailable), errs.Unavailable},
		{"one has a failing disk", kind(errs.IO), errs.Unavailable},
		{"one is damaged", kind(errs.Corrupt), errs.Corrupt},
		{"one refuses", kind(errs.Refused), errs.Refused},
		{"bad range", kind(errs.Invalid), errs.Invalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reading(t, func(t *testing.T, r *Reader, c cluster, b chunk.Block, _ *record) {
				c[0].set(kind(errs.NotExist))
				c[1].set(tc.third)
				c[2].set(kind(errs.NotExist))
				_, err := r.Get(t.Context(), chunktest.Grant(), all(), b.ID, 0, 10)
				chunktest.WantKind(t, err, tc.want)
			})
		})
	}
	reading(t, func(t *testing.T, r *Reader, c cluster, b chunk.Block, _ *record) {
		c[0].set(kind(errs.NotExist)) // a member that missed the write
		c[1].set(kind(errs.NotExist))
		wantRead(t, r, b)
		_, err := r.Get(t.Context(), chunktest.Grant(), nil, b.ID, 0, 10)
		chunktest.WantKind(t, err, errs.Invalid)
	})
}

func TestReadContext(t *testing.T) {
	reading(t, func(t *testing.T, r *Reader, c cluster, b chunk.Block, _ *record) {
		for _, n := range c {
			n.set(func(n *node) { n.hung = true })
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := r.Get(ctx, chunktest.Grant(), all(), b.ID, 0, 10)
		chunktest.WantKind(t, err, errs.Timeout)
		for i, n := range c {
			if n.called() != 1 {
				t.Errorf("member %d was asked %d times", i+1, n.called())
			}
		}
	})
}

// Equally near members share the load.
func TestLeastLoaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(3)
		b := chunktest.Block(1, 1000)
		for _, n := range c {
			chunktest.MustPut(t, n.mem, b)
			n.set(func(n *node) { n.delay = 50 * time.Millisecond })
		}
		r, err := NewReader(ReaderConfig{Stores: c})
		if err != nil {
			t.Fatal(err)
		}
		for range 9 {
			go func() {
				if _, err := r.Get(t.Context(), chunktest.Grant(), all(), b.ID, 0, 10); err != nil {
					t.Error(err)
				}
			}()
			synctest.Wait()
		}
		for i, n := range c {
			if n.called() != 3 {
				t.Errorf("member %d got %d of 9 reads", i+1, n.called())
			}
		}
		time.Sleep(time.Second)
	})
}
