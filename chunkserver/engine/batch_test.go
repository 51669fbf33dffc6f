package engine

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"agentdrive/chunkserver/chunk"
	"agentdrive/chunkserver/chunktest"
	"agentdrive/internal/disk"
	"agentdrive/internal/errs"
)

func putReq(b chunk.Block) *request {
	r := newRequest(reqPut)
	r.block = b
	return r
}

func deleteReq(ids ...chunk.BlockID) *request {
	r := newRequest(reqDelete)
	r.ids = ids
	return r
}

// Requests of one batch see each other.
func TestOneBatch(t *testing.T) {
	a, b, c := chunktest.Block(1, 5000), chunktest.Block(2, 5000), chunktest.Block(3, 200<<10)
	fake := chunktest.Block(9, 100)
	fake.ID = a.ID
	cases := []struct {
		name string
		reqs []*request
		want []errs.Kind // Other: nil
		left []chunk.Block
	}{
		{"same block twice", []*request{putReq(a), putReq(a)}, []errs.Kind{0, 0}, []chunk.Block{a}},
		{"other content", []*request{putReq(a), putReq(fake)}, []errs.Kind{0, errs.Exist}, []chunk.Block{a}},
		{"put and delete", []*request{putReq(a), deleteReq(a.ID)}, []errs.Kind{0, 0}, nil},
		{"delete of b twice", []*request{deleteReq(b.ID), deleteReq(b.ID, b.ID)}, []errs.Kind{0, 0}, nil},
		{"put, delete, put", []*request{putReq(a), deleteReq(a.ID), putReq(a)}, []errs.Kind{0, 0, 0}, []chunk.Block{a}},
		{"delete, put", []*request{deleteReq(b.ID), putReq(b)}, []errs.Kind{0, 0}, []chunk.Block{b}},
		{"two segments", []*request{putReq(a), putReq(c), putReq(b)}, []errs.Kind{0, errs.Invalid, 0}, []chunk.Block{a, b}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			fs := disk.NewMem()
			s := mustOpenOnce(t, smallConfig(fs))
			if tc.name == "two segments" {
				tc.want[1] = 0
				tc.reqs[1] = putReq(chunktest.Block(3, 160<<10))
				tc.reqs = append(tc.reqs, putReq(chunktest.Block(4, 160<<10)))
				tc.want = append(tc.want, 0)
				tc.left = []chunk.Block{a, b, chunktest.Block(3, 160<<10), chunktest.Block(4, 160<<10)}
			} else if tc.reqs[0].kind == reqDelete {
				chunktest.MustPut(t, s, b)
			}
			pushTogether(s, tc.reqs)
			for i, r := range tc.reqs {
				if err := <-r.done; errs.KindOf(err) != tc.want[i] || (err == nil) != (tc.want[i] == 0) {
					t.Errorf("request %d: %v, want kind %v", i, err, tc.want[i])
				}
			}
			for range 2 { // also after a restart
				st, err := s.Status(t.Context())
				if err != nil || st.Blocks != uint64(len(tc.left)) {
					t.Errorf("status %+v, %v; want %d blocks", st, err, len(tc.left))
				}
				for _, b := range tc.left {
					chunktest.WantBlock(t, s, b)
				}
				s = reopen(t, s, fs)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Puts that race share syncs.
func TestGroupSync(t *testing.T) {
	fs := disk.NewMem()
	cfg := testConfig(fs, "/store")
	cfg.manual = true
	s := mustOpen(t, cfg)
	chunktest.MustPut(t, s, chunktest.Block(0, 10)) // activates a segment
	var syncs atomic.Int64
	begun, gate := make(chan struct{}), make(chan struct{})
	fs.SetHook(func(op disk.Op, name string) error {
		if op == disk.OpSync && syncs.Add(1) == 1 {
			close(begun)
			<-gate
		}
		return nil
	})
	defer fs.SetHook(nil)
	var wg sync.WaitGroup
	const n = 50
	wg.Go(func() {
		if err := s.Put(t.Context(), chunktest.Grant(), chunktest.Block(99, 1000)); err != nil {
			t.Error(err)
		}
	})
	<-begun
	for i := range uint64(n) {
		wg.Go(func() {
			if err := s.Put(t.Context(), chunktest.Grant(), chunktest.Block(100+i, 1000)); err != nil {
				t.Error(err)
			}
		})
	}
	for queued := 0; queued < n; { // all wait behind the first sync
		s.queue.mu.Lock()
		queued = len(s.queue.list)
		s.queue.mu.Unlock()
		runtime.Gosched()
	}
	close(gate)
	wg.Wait()
	if got := syncs.Load(); got != 2 {
		t.Errorf("%d puts behind another took %d syncs, want 1", n, got-1)
	}
}

// Compaction must not bring back what is deleted, nor lose what is put, while
// it moves blocks.
func TestCompactionRaces(t *testing.T) {
	s := mustOpenOnce(t, smallConfig(disk.NewMem()))
	b := chunktest.Block(1, 1000)
	chunktest.MustPut(t, s, b)
	it, _ := s.find(b.ID)
	move := func() *request {
		r := newRequest(reqMove)
		r.block, r.from = b, it.at
		return r
	}
	reqs := []*request{deleteReq(b.ID), move()}
	pushTogether(s, reqs)
	for _, r := range reqs {
		if err := <-r.done; err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.Get(t.Context(), chunktest.Grant(), b.ID, 0, 1)
	chunktest.WantKind(t, err, errs.NotExist)
	reqs = []*request{putReq(b), move()} // b lives elsewhere now: an old location moves nothing
	pushTogether(s, reqs)
	for _, r := range reqs {
		if err := <-r.done; err != nil {
			t.Fatal(err)
		}
	}
	forget := newRequest(reqForget)
	forget.ids = []chunk.BlockID{b.ID}
	pushTogether(s, []*request{forget})
	if err := <-forget.done; err != nil {
		t.Fatal(err)
	}
	chunktest.WantBlock(t, s, b) // a tombstone written again does not kill a newer put
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A put that finds, when its turn comes, what another one stored.
func TestDuplicateInQueue(t *testing.T) {
	s := mustOpen(t, smallConfig(disk.NewMem()))
	b, fake := chunktest.Block(1, 1000), chunktest.Block(2, 1000)
	fake.ID = b.ID
	chunktest.MustPut(t, s, b)
	end := s.active.end
	same, other := putReq(b), putReq(fake)
	pushTogether(s, []*request{same, other})
	if err := <-same.done; err != nil {
		t.Errorf("the same block: %v", err)
	}
	chunktest.WantKind(t, <-other.done, errs.Exist)
	if s.active.end != end {
		t.Error("a duplicate was written")
	}
}

// A segment is not recycled under a reader.
func TestPinnedSegment(t *testing.T) {
	fs := disk.NewMem()
	s := mustOpenOnce(t, smallConfig(fs))
	b := chunktest.Block(1, 1000)
	chunktest.MustPut(t, s, b)
	s = reopen(t, s, fs) // seals
	_, g, err := s.pin("test", b.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), chunktest.Grant(), []chunk.BlockID{b.ID}); err != nil {
		t.Fatal(err)
	}
	maintainAll(t, s)
	if s.segs[g.num] != g {
		t.Error("recycled while pinned")
	}
	s.unpin(g)
	maintainAll(t, s)
	if s.segs[g.num] == g {
		t.Error("not recycled after the pin went")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A withdrawn request is not done; one that was begun is waited for.
func TestWithdraw(t *testing.T) {
	r := putReq(chunktest.Block(1, 10))
	if !r.state.CompareAndSwap(stateQueued, stateWithdrawn) || r.take() {
		t.Error("a withdrawn request can be taken")
	}
	s := mustOpenOnce(t, smallConfig(disk.NewMem()))
	pushTogether(s, []*request{r, putReq(chunktest.Block(2, 10))})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s.index.Len() != 1 {
		t.Errorf("%d blocks, want 1", s.index.Len())
	}
}

// TestConcurrentCrash cuts the power under concurrent work with maintenance in
// the background. Not replayable call by call, but whatever the schedule, the
// promises hold.
func TestConcurrentCrash(t *testing.T) {
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 5))
		w := newWorld(t, seed)
		cfg := smallConfig(w.fs)
		cfg.manual = false
		s := mustOpenOnce(t, cfg)
		w.fs.SetHook((&cutter{n: 20 + rng.Int64N(400)}).hook)
		var mu sync.Mutex // guards the model
		var wg sync.WaitGroup
		for k := range uint64(6) {
			rng := rand.New(rand.NewPCG(seed, k))
			wg.Go(func() { churn(t, s, w, &mu, rng, k) })
		}
		wg.Wait()
		w.s = s
		w.crash()
		if err := w.open(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		w.label = "concurrent"
		w.check()
		if err := w.s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// churn puts and deletes its own blocks until the power fails.
func churn(t *testing.T, s *Store, w *world, mu *sync.Mutex, rng *rand.Rand, k uint64) {
	var mine []chunk.BlockID
	for i := range uint64(300) {
		var err error
		if len(mine) > 0 && rng.IntN(3) > 0 {
			id := mine[0]
			mine = mine[1:]
			err = s.Delete(t.Context(), chunktest.Grant(), []chunk.BlockID{id})
			mu.Lock()
			_ = w.note([]chunk.BlockID{id}, absent, err)
			mu.Unlock()
		} else {
			b := chunktest.Block(w.next+k<<20+i, 1+rng.IntN(60<<10))
			err = s.Put(t.Context(), chunktest.Grant(), b)
			mu.Lock()
			w.blocks[b.ID] = b
			_ = w.note([]chunk.BlockID{b.ID}, present, err)
			mu.Unlock()
			mine = append(mine, b.ID)
		}
		if err != nil {
			if !errors.Is(err, errPower) {
				t.Error(err)
			}
			return
		}
	}
}
