package blockio

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"agentdrive/chunkserver/chunk"
	"agentdrive/chunkserver/chunktest"
	"agentdrive/internal/errs"
)

// writing runs f with a writer over three nodes, in a bubble where time passes
// only while everybody waits.
func writing(t *testing.T, cfg WriterConfig, f func(t *testing.T, w *Writer, c cluster, r *record)) {
	synctest.Test(t, func(t *testing.T) {
		c, r := newCluster(3), &record{}
		cfg.Stores, cfg.OnLate, cfg.OnWaiting = c, r.onLate, r.onWaiting
		w, err := NewWriter(cfg)
		if err != nil {
			t.Fatal(err)
		}
		f(t, w, c, r)
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
}

func mustPut(t *testing.T, w *Writer, b chunk.Block) Ack {
	t.Helper()
	a, err := w.Put(t.Context(), chunktest.Grant(), three(), b)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Acked) < 2 || len(a.Acked)+len(a.Pending)+len(a.Failed) != 3 || a.PG != 5 || a.Epoch != 9 {
		t.Fatalf("ack %+v", a)
	}
	return a
}

func TestPutAll(t *testing.T) {
	writing(t, WriterConfig{}, func(t *testing.T, w *Writer, c cluster, r *record) {
		b := chunktest.Block(1, 100000)
		a := mustPut(t, w, b)
		synctest.Wait()
		if late, waiting, _ := r.news(); len(a.Pending) != len(late) || len(waiting) != 0 {
			t.Errorf("ack %+v, late %+v, waiting %+v", a, late, waiting)
		}
		for id := range chunk.ServerID(3) {
			chunktest.WantBlock(t, c.node(id+1).mem, b)
		}
	})
}

// The third member is not waited for; its outcome is told.
func TestLate(t *testing.T) {
	for name, slow := range map[string]func(n *node){
		"slow": func(n *node) { n.delay = time.Second },
		"fail": func(n *node) { n.delay, n.err = time.Second, errs.E("fake", errs.IO, "", nil) },
		"hung": func(n *node) { n.hung = true },
	} {
		t.Run(name, func(t *testing.T) {
			writing(t, WriterConfig{}, func(t *testing.T, w *Writer, c cluster, r *record) {
				c.node(2).set(slow)
				b := chunktest.Block(1, 1000)
				began := time.Now()
				a := mustPut(t, w, b)
				if time.Since(began) != 0 || !slices.Equal(a.Pending, []chunk.ServerID{2}) {
					t.Errorf("ack %+v after %v", a, time.Since(began))
				}
				time.Sleep(time.Minute) // virtual: past SendLimit
				late, _, _ := r.news()
				if len(late) != 1 || late[0].Member != 2 || late[0].Block != b.ID || late[0].PG != 5 || late[0].Epoch != 9 {
					t.Fatalf("late %+v", late)
				}
				if (late[0].Err == nil) != (name == "slow") || c.has(t, 2, b) != (name == "slow") {
					t.Errorf("late %+v, stored %v", late[0], c.has(t, 2, b))
				}
			})
		})
	}
}

// With one of three gone writes go on at once, and the member is probed now
// and then, not on every write.
func TestOneGone(t *testing.T) {
	writing(t, WriterConfig{}, func(t *testing.T, w *Writer, c cluster, r *record) {
		c.node(3).set(func(n *node) { n.err = down() })
		began := time.Now()
		for i := range uint64(100) {
			mustPut(t, w, chunktest.Block(i, 1000))
			synctest.Wait()
		}
		if time.Since(began) != 0 || c.node(3).called() != 1 {
			t.Errorf("100 puts took %v and tried the dead member %d times", time.Since(began), c.node(3).called())
		}
		for i := range uint64(600) {
			a := mustPut(t, w, chunktest.Block(1000+i, 1000))
			time.Sleep(100 * time.Millisecond)
			if len(a.Acked) != 2 || slices.Contains(a.Acked, 3) {
				t.Fatalf("ack %+v", a)
			}
		}
		if n := c.node(3).called(); n < 8 || n > 25 { // a minute with pauses up to 5 s
			t.Errorf("%d probes in a minute", n)
		}
		c.node(3).set(func(n *node) { n.err = nil })
		time.Sleep(5 * time.Second)
		mustPut(t, w, chunktest.Block(5000, 1000)) // the probe
		synctest.Wait()
		b := chunktest.Block(5001, 1000)
		mustPut(t, w, b)
		synctest.Wait()
		if !c.has(t, 3, b) {
			t.Error("the member that returned gets no blocks")
		}
		if _, waiting, _ := r.news(); len(waiting) != 0 {
			t.Errorf("waiting told with two members up: %+v", waiting)
		}
	})
}

// One probe at a time; once it succeeds the member gets everything.
func TestProbe(t *testing.T) {
	writing(t, WriterConfig{}, func(t *testing.T, w *Writer, c cluster, r *record) {
		c.node(3).set(func(n *node) { n.err = down() })
		mustPut(t, w, chunktest.Block(0, 10))
		synctest.Wait()
		c.node(3).set(func(n *node) { n.err, n.delay = nil, time.Second })
		time.Sleep(time.Second)
		for round, want := range []int{2, 2 + 10} { // the failure, the probe; then all
			for i := range uint64(10) {
				mustPut(t, w, chunktest.Block(uint64(round+1)*100+i, 10))
			}
			synctest.Wait()
			if n := c.node(3).called(); n != want {
				t.Errorf("round %d: %d calls, want %d", round, n, want)
			}
			time.Sleep(2 * time.Second)
		}
	})
}

// With two of three gone a write waits, says so, and ends when one returns.
func TestTwoGone(t *testing.T) {
	writing(t, WriterConfig{}, func(t *testing.T, w *Writer, c cluster, r *record) {
		for _, id := range []chunk.ServerID{1, 2} {
			c.node(id).set(func(n *node) { n.err = down() })
		}
		b := chunktest.Block(1, 1000)
		done := make(chan Ack)
		go func() {
			a, err := w.Put(t.Context(), chunktest.Grant(), three(), b)
			if err != nil {
				t.Error(err)
			}
			done <- a
		}()
		time.Sleep(30 * time.Second)
		select {
		case a := <-done:
			t.Fatalf("acknowledged with one copy: %+v", a)
		default:
		}
		_, waiting, _ := r.news()
		if n := len(waiting); n < 2 || waiting[0].Need != 2 || waiting[n-1].Durable != 1 || waiting[n-1].Attempt != n || !errs.Is(waiting[n-1].Err, errs.Unavailable) {
			t.Errorf("waiting %+v", waiting)
		}
		c.node(2).set(func(n *node) { n.err = nil })
		began := time.Now()
		a := <-done
		if took := time.Since(began); took > 6*time.Second || !slices.Contains(a.Acked, 2) {
			t.Errorf("ack %+v after %v", a, took)
		}
	})
}

func TestContextEnds(t *testing.T) {
	writing(t, WriterConfig{}, func(t *testing.T, w *Writer, c cluster, r *record) {
		c.node(1).set(func(n *node) { n.err = down() })
		c.node(2).set(func(n *node) { n.hung = true })
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := w.Put(ctx, chunktest.Grant(), three(), chunktest.Block(1, 1000))
		if !errs.Is(err, errs.Timeout) || errs.HintOf(err) == "" {
			t.Errorf("%v", err)
		}
		synctest.Wait()
		if late, _, _ := r.news(); len(late) != 0 {
			t.Errorf("late news of a write that failed: %+v", late)
		}
	})
}

// What a hung member holds is bounded, and it is left out beyond that.
func TestHungIsBounded(t *testing.T) {
	writing(t, WriterConfig{MaxPending: 5000, SendLimit: time.Hour}, func(t *testing.T, w *Writer, c cluster, r *record) {
		c.node(1).set(func(n *node) { n.hung = true })
		for i := range uint64(50) {
			a := mustPut(t, w, chunktest.Block(i, 1000))
			if i >= 5 && !slices.Equal(a.Failed, []chunk.ServerID{1}) {
				t.Fatalf("put %d: %+v", i, a)
			}
		}
		if n := c.node(1).called(); n != 5 {
			t.Errorf("%d blocks under way to the hung member, want 5", n)
		}
	})
}

// Refusals are final when they leave too few members.
func TestRefused(t *testing.T) {
	for _, kind := range []errs.Kind{errs.NoSpace, errs.Refused, errs.Exist} {
		t.Run(kind.String(), func(t *testing.T) {
			writing(t, WriterConfig{}, func(t *testing.T, w *Writer, c cluster, r *record) {
				refuse := func(n *node) { n.err = errs.E("fake", kind, "", nil) }
				c.node(1).set(refuse)
				mustPut(t, w, chunktest.Block(1, 1000)) // one of three may
				synctest.Wait()
				c.node(2).set(refuse)
				_, err := w.Put(t.Context(), chunktest.Grant(), three(), chunktest.Block(2, 1000))
				chunktest.WantKind(t, err, kind)
				synctest.Wait()
				if n := c.node(1).called(); n != 2 {
					t.Errorf("a member that refuses is treated as down: %d calls", n)
				}
			})
		})
	}
}

func TestPutInvalid(t *testing.T) {
	writing(t, WriterConfig{}, func(t *testing.T, w *Writer, c cluster, r *record) {
		b := chunktest.Block(1, 1000)
		for name, p := range map[string]Placement{
			"no quorum":        {Members: []chunk.ServerID{1}},
			"quorum too large": {Members: []chunk.ServerID{1}, Quorum: 2},
			"copies too many":  {Members: []chunk.ServerID{1}, Quorum: 1, MinCopies: 2},
			"member twice":     {Members: []chunk.ServerID{1, 1}, Quorum: 1},
		} {
			if _, err := w.Put(t.Context(), chunktest.Grant(), p, b); !errs.Is(err, errs.Invalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		b.Sums = []uint32{b.Sums[0] + 1}
		_, err := w.Put(t.Context(), chunktest.Grant(), three(), b)
		chunktest.WantKind(t, err, errs.Corrupt)
		if n := c.node(1).called(); n != 0 {
			t.Errorf("%d calls for what is invalid", n)
		}
	})
}

// Close ends what is under way; one-copy drives need one member.
func TestClose(t *testing.T) {
	writing(t, WriterConfig{}, func(t *testing.T, w *Writer, c cluster, r *record) {
		c.node(1).set(func(n *node) { n.hung = true })
		mustPut(t, w, chunktest.Block(1, 10))
		single := Placement{PG: 1, Epoch: 1, Members: []chunk.ServerID{1}, Quorum: 1, MinCopies: 1}
		done := make(chan error)
		go func() {
			_, err := w.Put(t.Context(), chunktest.Grant(), single, chunktest.Block(2, 10))
			done <- err
		}()
		synctest.Wait()
		go func() {
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}()
		chunktest.WantKind(t, <-done, errs.Unavailable)
		synctest.Wait()
		if late, _, _ := r.news(); len(late) != 1 || !errs.Is(late[0].Err, errs.Canceled) {
			t.Errorf("late %+v", late)
		}
		_, err := w.Put(t.Context(), chunktest.Grant(), single, chunktest.Block(3, 10))
		chunktest.WantKind(t, err, errs.Unavailable)
	})
}
