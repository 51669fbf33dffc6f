package engine

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"agentdrive/chunkserver/chunk"
	"agentdrive/chunkserver/chunktest"
	"agentdrive/internal/disk"
	"agentdrive/internal/errs"
)

var (
	crashSeed = flag.Uint64("engine.seed", 1, "first seed of the crash tests")
	crashRuns = flag.Int("engine.runs", 80, "cuts of the crash tests")
)

var errPower = errors.New("power failed")

// cutter fails every call from the n-th changing one on. n = 0 only counts.
type cutter struct {
	n    int64
	seen atomic.Int64
}

func (c *cutter) hook(op disk.Op, _ string) error {
	if op.Changes() {
		c.seen.Add(1)
	}
	if c.n > 0 && c.seen.Load() >= c.n {
		return errPower
	}
	return nil
}

// state of a block in the model
type fate uint8

const (
	absent fate = iota
	present
	unsure // an operation on it failed
)

// world is a store with the model of what it must hold.
type world struct {
	t      *testing.T
	label  string
	fs     *disk.Mem
	s      *Store
	rng    *rand.Rand
	model  map[chunk.BlockID]fate
	blocks map[chunk.BlockID]chunk.Block
	next   uint64
}

func newWorld(t *testing.T, seed uint64) *world {
	return &world{t: t, fs: disk.NewMem(), rng: rand.New(rand.NewPCG(seed, 2)),
		model: map[chunk.BlockID]fate{}, blocks: map[chunk.BlockID]chunk.Block{}, next: seed << 32}
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s: %s", w.label, fmt.Sprintf(format, args...))
}

// known returns the ids of a fate in a fixed order.
func (w *world) known(f fate) []chunk.BlockID {
	ids := slices.SortedFunc(maps.Keys(w.model), func(a, b chunk.BlockID) int { return bytes.Compare(a[:], b[:]) })
	return slices.DeleteFunc(ids, func(id chunk.BlockID) bool { return w.model[id] != f })
}

// step does one random operation and notes its outcome.
func (w *world) step() error {
	ctx, g := w.t.Context(), chunktest.Grant()
	live := w.known(present)
	switch k := w.rng.IntN(20); {
	case k < 4:
		return w.together(live)
	case k < 11 || len(live) == 0:
		b := w.newBlock()
		return w.note([]chunk.BlockID{b.ID}, present, w.s.Put(ctx, g, b))
	case k < 12: // a block that was deleted comes back by a late retry
		gone := w.known(absent)
		if len(gone) == 0 {
			return nil
		}
		b := w.blocks[gone[w.rng.IntN(len(gone))]]
		return w.note([]chunk.BlockID{b.ID}, present, w.s.Put(ctx, g, b))
	case k < 17:
		w.rng.Shuffle(len(live), func(i, j int) { live[i], live[j] = live[j], live[i] })
		ids := live[:1+w.rng.IntN(min(len(live), 8))]
		return w.note(ids, absent, w.s.Delete(ctx, g, ids))
	case k < 19:
		_, err := w.s.maintain(ctx)
		return err
	default:
		if err := w.s.Close(); err != nil {
			return err
		}
		return w.open()
	}
}

func (w *world) newBlock() chunk.Block {
	b := chunktest.Block(w.next, 1+w.rng.IntN(1<<uint(1+w.rng.IntN(16))))
	w.next++
	w.blocks[b.ID] = b
	return b
}

// together lets several puts and deletes share one batch.
func (w *world) together(live []chunk.BlockID) error {
	var reqs []*request
	for range 2 + w.rng.IntN(5) {
		if len(live) > 0 && w.rng.IntN(3) == 0 {
			r := newRequest(reqDelete)
			r.ids, live = live[:1], live[1:]
			reqs = append(reqs, r)
			continue
		}
		r := newRequest(reqPut)
		r.block = w.newBlock()
		reqs = append(reqs, r)
	}
	pushTogether(w.s, reqs)
	var all []error
	for _, r := range reqs {
		ids, f := r.ids, absent
		if r.kind == reqPut {
			ids, f = []chunk.BlockID{r.block.ID}, present
		}
		all = append(all, w.note(ids, f, <-r.done))
	}
	return errors.Join(all...)
}

// pushTogether queues requests so that the committer finds them all at once.
func pushTogether(s *Store, reqs []*request) {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	s.queue.list = append(s.queue.list, reqs...)
	select {
	case s.queue.wake <- struct{}{}:
	default:
	}
}

func (w *world) note(ids []chunk.BlockID, f fate, err error) error {
	if err != nil {
		f = unsure
	}
	for _, id := range ids {
		w.model[id] = f
	}
	return err
}

func (w *world) open() (err error) {
	w.s, err = Open(smallConfig(w.fs))
	return err
}

// check compares the store with the model; what was unsure is sure afterwards.
func (w *world) check() {
	w.t.Helper()
	if d := w.s.Damage(); len(d) > 0 {
		w.fatalf("damage reported: %+v", d)
	}
	ctx, g := w.t.Context(), chunktest.Grant()
	count := 0
	for id, f := range w.model {
		b := w.blocks[id]
		got, err := w.s.Get(ctx, g, id, 0, uint32(len(b.Data)))
		switch {
		case err == nil && !bytes.Equal(got, b.Data):
			w.fatalf("block %s: wrong content", id)
		case err != nil && !errs.Is(err, errs.NotExist):
			w.fatalf("block %s: %v", id, err)
		case err == nil && f == absent:
			w.fatalf("deleted block %s is back", id)
		case err != nil && f == present:
			w.fatalf("acknowledged block %s is gone", id)
		}
		w.model[id] = absent
		if err == nil {
			count++
			w.model[id] = present
		}
	}
	if st, err := w.s.Status(ctx); err != nil || st.Blocks != uint64(count) {
		w.fatalf("status %+v, %v; want %d blocks", st, err, count)
	}
	w.checkCounters()
}

// checkCounters recomputes live and stale records from the files.
func (w *world) checkCounters() {
	w.t.Helper()
	s := w.s
	stale := map[chunk.BlockID]uint32{}
	for num, g := range s.segs {
		entries, err := s.entriesOf(g)
		if !g.sealed {
			entries, err = g.entries, nil
		}
		if err != nil {
			w.fatalf("%v", err)
		}
		live := int64(0)
		for _, e := range entries {
			if e.kind != kindBlock {
				continue
			}
			if it, ok := s.find(e.id); ok && it.at == (location{num, e.off}) {
				live += recordSize(e.length)
			} else {
				stale[e.id]++
			}
		}
		if live != g.live {
			w.fatalf("%s: live %d, recomputed %d", g.name, g.live, live)
		}
	}
	if !maps.Equal(stale, s.stale) {
		w.fatalf("stale records %v, recomputed %v", s.stale, stale)
	}
}

// run does n steps or stops at the first error.
func (w *world) run(n int) error {
	for range n {
		if err := w.step(); err != nil {
			return err
		}
	}
	return nil
}

// crash replaces the filesystem by what a power cut leaves of it.
func (w *world) crash() {
	clone := w.fs.CrashClone(w.rng)
	w.fs.SetHook(func(disk.Op, string) error { return errPower })
	if w.s != nil {
		_ = w.s.Close() // reports the failed power
	}
	w.fs, w.s = clone, nil
}

const crashSteps = 60

// TestCrash cuts the power at calls spread over a run of random operations,
// cuts it again during recovery, and once more while work goes on.
func TestCrash(t *testing.T) {
	count := func(seed uint64) int64 {
		w, c := newWorld(t, seed), &cutter{}
		w.fs.SetHook(c.hook)
		if err := errors.Join(w.open(), w.run(crashSteps), w.s.Close()); err != nil {
			t.Fatalf("seed %d without cuts: %v", seed, err)
		}
		return c.seen.Load()
	}
	const perSeed = 40
	for i := range *crashRuns {
		seed := *crashSeed + uint64(i/perSeed)
		total := count(seed)
		crashOnce(t, seed, 1+total*int64(i%perSeed)/perSeed)
	}
}

func crashOnce(t *testing.T, seed uint64, at int64) {
	w := newWorld(t, seed)
	w.label = fmt.Sprintf("seed %d, cut at call %d", seed, at)
	w.fs.SetHook((&cutter{n: at}).hook)
	if err := w.open(); err == nil {
		if err = w.run(crashSteps); err != nil && !errors.Is(err, errPower) {
			w.fatalf("%v", err)
		}
	}
	w.crash()
	again := &cutter{n: 1 + w.rng.Int64N(12)}
	w.fs.SetHook(again.hook)
	if err := w.open(); err != nil {
		if !errors.Is(err, errPower) {
			w.fatalf("open: %v", err)
		}
		w.label += fmt.Sprintf(", again at call %d of recovery", again.n)
		w.crash()
		if err := w.open(); err != nil {
			w.fatalf("open: %v", err)
		}
	}
	w.fs.SetHook(nil)
	w.check()
	w.fs.SetHook((&cutter{n: 1 + w.rng.Int64N(100)}).hook)
	if err := w.run(crashSteps); err != nil && !errors.Is(err, errPower) {
		w.fatalf("after recovery: %v", err)
	}
	w.label += ", and a second time"
	w.crash()
	if err := w.open(); err != nil {
		w.fatalf("open: %v", err)
	}
	w.check()
	if err := w.run(10); err != nil {
		w.fatalf("after two crashes: %v", err)
	}
	w.check()
	if err := w.s.Close(); err != nil {
		w.fatalf("close: %v", err)
	}
}

// TestFailedCall fails single calls without a power cut: the store refuses
// what it cannot do, and after a restart holds what it acknowledged.
func TestFailedCall(t *testing.T) {
	boom := errors.New("boom")
	for i := range *crashRuns / 2 {
		seed := *crashSeed + uint64(i)
		w := newWorld(t, seed)
		n := 1 + w.rng.Int64N(150)
		w.label = fmt.Sprintf("seed %d, call %d fails", seed, n)
		var seen atomic.Int64
		w.fs.SetHook(func(op disk.Op, _ string) error {
			if op.Changes() && seen.Add(1) == n {
				return boom
			}
			return nil
		})
		if err := w.open(); err != nil {
			if !errors.Is(err, boom) {
				w.fatalf("open: %v", err)
			}
			if err := w.open(); err != nil {
				w.fatalf("second open: %v", err)
			}
		}
		for range crashSteps {
			err := w.step()
			if err != nil && !errs.Is(err, errs.IO) {
				w.fatalf("%v", err)
			}
			if w.s == nil || w.s.queue.isClosed() { // a restart failed
				if err := w.open(); err != nil {
					w.fatalf("open: %v", err)
				}
			}
		}
		w.fs.SetHook(nil)
		_ = w.s.Close() // may have been closed by a step that failed
		if err := w.open(); err != nil {
			w.fatalf("open: %v", err)
		}
		w.check()
		if err := w.s.Close(); err != nil {
			w.fatalf("close: %v", err)
		}
	}
}
