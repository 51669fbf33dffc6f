package consensus

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"agentdrive/internal/errs"
)

// TestConfirmNeedsTheCluster: once another leader was elected, the old one
// must never confirm again, whatever its own clocks and timeouts say, also
// when only Raft's links are cut and terms can still be asked.
func TestConfirmNeedsTheCluster(t *testing.T) {
	for _, cutTerms := range []bool{true, false} {
		c := newCluster(t)
		old := c.leader(1, 2, 3)
		mustPropose(t, old, "add k")
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
		l := c.leader(others...)
		if _, _, err := old.Confirm(deadline(t)); !errs.Is(err, errs.NotLeader) && !errs.Is(err, errs.Unavailable) {
			t.Fatalf("deposed leader: %v", err)
		}
		index := mustPropose(t, l, "add k")
		if _, _, err := f.Result(); !errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.NotLeader) {
			t.Fatalf("entry of the deposed leader: %v", err)
		}
		c.heal(old.cfg.ID)
		if err := old.WaitApplied(deadline(t), index); err != nil {
			t.Fatal(err)
		}
		if n := counter(t, old, "k"); n != 2 {
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
	// A round ends with the first of two answers here; two rounds are three or
	// four questions.
	if n := asked.Load(); first.err != nil || shared[0].err != nil || n < 3 || n > 4 {
		t.Fatalf("%v %v, %d questions", first.err, shared[0].err, asked.Load())
	}
}

// TestConfirmSeesEveryAcknowledgedEntry: writers and readers race; a read
// must contain what was acknowledged before it began.
func TestConfirmSeesEveryAcknowledgedEntry(t *testing.T) {
	c := newCluster(t)
	l := c.leader(1, 2, 3)
	var acked atomic.Uint64
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Add(1)
	go func() {
		defer wg.Done()
		for n := uint64(1); ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, _, err := l.Propose([]byte("add k")).Result(); err != nil {
				t.Errorf("propose: %v", err)
				return
			}
			acked.Store(n)
		}
	}()
	for range 200 {
		want := acked.Load()
		ri, _, err := l.Confirm(deadline(t))
		if err != nil {
			t.Errorf("confirm: %v", err)
			break
		}
		if err := l.WaitApplied(deadline(t), ri); err != nil {
			t.Error(err)
			break
		}
		if got := counter(t, l, "k"); got < want {
			t.Errorf("read %d, %d were acknowledged before", got, want)
			break
		}
	}
	close(stop)
	wg.Wait()
}
