package consensus

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"agentdrive/internal/errs"
)

// TestConfirmNeedsTheCluster: once another leader was elected, the old one
// must never confirm again, whatever its own clocks and timeouts say, also
// when only Raft's links are cut and terms can still be asked.
func TestConfirmNeedsTheCluster(t *testing.T) {
	for _, cutTerms := range []bool{true, false} {
		c := newCluster(t)
		old, _ := c.propose("add k")
		c.isolate(old.cfg.ID, cutTerms)
		if _, _, err := old.Confirm(deadline(t)); cutTerms && err == nil {
			t.Fatal("confirmed alone")
		}
		f := old.Propose([]byte("add k")) // appended there alone, or refused
		var others []uint32
		for id := uint32(1); id <= 3; id++ {
			if id != old.cfg.ID {
				others = append(others, id)
			}
		}
		c.leader(others...)
		if _, _, err := old.Confirm(deadline(t)); !errs.Is(err, errs.NotLeader) && !errs.Is(err, errs.Unavailable) {
			t.Fatalf("deposed leader: %v", err)
		}
		_, index := c.propose("add k")
		if _, _, err := f.Result(); !errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.NotLeader) {
			t.Fatalf("entry of the deposed leader: %v", err)
		}
		c.heal(old.cfg.ID)
		if err := old.WaitApplied(deadline(t), index); err != nil {
			t.Fatal(err)
		}
		if n := counter(t, old, "k"); n < 2 {
			t.Fatalf("counter %d after healing", n)
		}
	}
}

func TestMajorityHas(t *testing.T) {
	c := newCluster(t)
	l := c.leader(1, 2, 3)
	term, _ := l.IsLeading()
	answers := map[string]struct {
		two, three uint64 // 0: error
		ok         bool
		kind       errs.Kind // of the error; Other: none
	}{
		"both":            {term, term, true, errs.Other},
		"one":             {0, term, true, errs.Other},
		"none":            {0, 0, false, errs.Unavailable},
		"one newer":       {term + 1, 0, false, errs.Other},
		"older, error":    {term - 1, 0, false, errs.Unavailable},
		"older, mine":     {term - 1, term, true, errs.Other},
		"older and older": {term - 1, term - 1, false, errs.Unavailable},
	}
	for name, a := range answers {
		first := l.cfg.ID%3 + 1
		c.setScript(func(_ context.Context, p Peer) (uint64, error) {
			n := a.three
			if p.ID == first {
				n = a.two
			}
			if n == 0 {
				return 0, errCut
			}
			return n, nil
		})
		ok, err := l.majorityHas(term)
		if ok != a.ok || (a.kind == errs.Other) != (err == nil) || err != nil && !errs.Is(err, a.kind) {
			t.Errorf("%s: %v %v", name, ok, err)
		}
	}
}

// TestConfirmRounds: requests during a round share the next one, never the
// one under way.
func TestConfirmRounds(t *testing.T) {
	c := newCluster(t)
	l := c.leader(1, 2, 3)
	term, _ := l.IsLeading()
	var asked atomic.Int64
	gate := make(chan struct{})
	entered := make(chan struct{}, 16)
	c.setScript(func(ctx context.Context, _ Peer) (uint64, error) {
		asked.Add(1)
		entered <- struct{}{}
		select {
		case <-gate:
			return term, nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	})
	first := l.confirm.join()
	<-entered
	<-entered
	var shared []*round
	for range 10 {
		shared = append(shared, l.confirm.join())
	}
	for _, r := range shared {
		if r == first {
			t.Fatal("a request joined the round under way")
		}
		if r != shared[0] {
			t.Fatal("waiting requests do not share a round")
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := l.Confirm(ctx); !errs.Is(err, errs.Canceled) {
		t.Fatal(err)
	}
	close(gate)
	<-first.done
	<-shared[0].done
	// A round asks two and ends with the first answer: two rounds are three or
	// four questions, and one may be left from the round that found the leader.
	if n := asked.Load(); first.err != nil || shared[0].err != nil || n < 3 || n > 5 {
		t.Fatalf("%v %v, %d questions", first.err, shared[0].err, asked.Load())
	}
}

// chaos is the state of TestReadsUnderChaos.
type chaos struct {
	c     *cluster
	stop  chan struct{}
	wg    sync.WaitGroup
	tries atomic.Uint64
	acked atomic.Uint64 // highest counter value acknowledged
	reads atomic.Uint64
}

// run repeats step with a seeded source until the end.
func (x *chaos) run(seed uint64, step func(r *rand.Rand, g *Group)) {
	x.wg.Go(func() {
		r := rand.New(rand.NewPCG(seed, 5))
		for {
			select {
			case <-x.stop:
				return
			default:
			}
			x.c.mu.Lock()
			g := x.c.groups[uint32(1+r.IntN(3))]
			x.c.mu.Unlock()
			if g != nil {
				step(r, g)
			}
		}
	})
}

func (x *chaos) write(_ *rand.Rand, g *Group) {
	if _, ok := g.IsLeading(); !ok {
		return
	}
	x.tries.Add(1)
	val, _, err := g.Propose([]byte("add k")).Result()
	if err != nil {
		return
	}
	n := binary.BigEndian.Uint64(val)
	for old := x.acked.Load(); n > old && !x.acked.CompareAndSwap(old, n); old = x.acked.Load() {
	}
}

func (x *chaos) read(_ *rand.Rand, g *Group) {
	want := x.acked.Load()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	ri, _, err := g.Confirm(ctx)
	if err != nil || g.WaitApplied(ctx, ri) != nil {
		return
	}
	v, err := g.View()
	if err != nil {
		return // stopped meanwhile
	}
	defer v.Release()
	val, _, err := v.Get([]byte("k"))
	if err != nil {
		x.c.t.Error(err)
		return
	}
	got := uint64(0)
	if len(val) >= 8 {
		got = binary.BigEndian.Uint64(val)
	}
	if got < want {
		x.c.t.Errorf("server %d read %d, %d was acknowledged before", g.cfg.ID, got, want)
	}
	x.reads.Add(1)
}

// TestReadsUnderChaos: while leaders are cut off and servers restart, no read
// that was confirmed anywhere misses what was acknowledged before it began.
func TestReadsUnderChaos(t *testing.T) {
	const seed = 11
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	c := newCluster(t)
	x := &chaos{c: c, stop: make(chan struct{})}
	c.leader(1, 2, 3)
	for i := range uint64(2) {
		x.run(seed+i, x.write)
		x.run(seed+10+i, x.read)
	}
	for round := range 5 {
		victim := c.leader(1, 2, 3).cfg.ID
		var others []uint32
		for id := uint32(1); id <= 3; id++ {
			if id != victim {
				others = append(others, id)
			}
		}
		if round%2 == 0 {
			c.isolate(victim, r.IntN(2) == 0)
			c.leader(others...)
			c.heal(victim)
		} else {
			c.stop(victim)
			c.leader(others...)
			c.start(victim)
		}
		before := x.reads.Load()
		eventually(t, "reads go on", func() bool { return x.reads.Load() > before+20 })
	}
	close(x.stop)
	x.wg.Wait()
	l := c.leader(1, 2, 3)
	n := counter(t, l, "k")
	if n < x.acked.Load() || n > x.tries.Load() {
		t.Fatalf("counter %d, acknowledged %d of %d", n, x.acked.Load(), x.tries.Load())
	}
	t.Logf("%d of %d writes acknowledged up to, %d reads", x.acked.Load(), x.tries.Load(), x.reads.Load())
}
