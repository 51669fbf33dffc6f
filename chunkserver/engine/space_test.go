package engine

import (
	"strings"
	"testing"

	"agentdrive/chunkserver/chunk"
	"agentdrive/chunkserver/chunktest"
	"agentdrive/internal/disk"
	"agentdrive/internal/errs"
)

func maintainAll(t *testing.T, s *Store) {
	t.Helper()
	for range 1000 {
		again, err := s.maintain(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !again {
			return
		}
	}
	t.Fatal("maintenance does not come to rest")
}

// fillUp puts blocks until the store refuses, and returns them.
func fillUp(t *testing.T, s *Store, seed uint64) (blocks []chunk.Block) {
	t.Helper()
	for i := range uint64(10000) {
		b := chunktest.Block(seed+i, 20000)
		err := s.Put(t.Context(), chunktest.Grant(), b)
		if errs.Is(err, errs.NoSpace) {
			wantHint(t, err, errs.NoSpace)
			return blocks
		}
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, b)
	}
	t.Fatal("never full")
	return nil
}

// A full store refuses puts before the disk does, still deletes and compacts,
// and then takes puts again; the reserve stays free throughout.
func TestNoSpace(t *testing.T) {
	fs := disk.NewMem()
	const segments, reserve = 12, 100 << 10
	fs.SetCapacity(segments*minSegment + reserve + 8192)
	cfg := smallConfig(fs)
	cfg.Reserve = reserve
	s := mustOpen(t, cfg)
	blocks := fillUp(t, s, 0)
	if min := (segments - spareSegments) * 8; len(blocks) < min {
		t.Errorf("full with %d blocks, want at least %d", len(blocks), min)
	}
	st, err := s.Status(t.Context())
	if err != nil || !st.ReadOnly && st.Free >= minSegment {
		t.Errorf("status of a full store: %+v, %v", st, err)
	}
	for _, b := range blocks {
		chunktest.WantBlock(t, s, b)
	}
	for round := range uint64(3) {
		for i, b := range blocks { // one id a call: the least efficient tombstones
			if i%4 == 0 {
				continue
			}
			if err := s.Delete(t.Context(), chunktest.Grant(), []chunk.BlockID{b.ID}); err != nil {
				t.Fatalf("delete in a full store: %v", err)
			}
			if i%64 == 0 {
				maintainAll(t, s)
			}
		}
		maintainAll(t, s)
		var kept []chunk.Block
		for i, b := range blocks {
			if i%4 == 0 {
				chunktest.WantBlock(t, s, b)
				kept = append(kept, b)
			}
		}
		more := fillUp(t, s, (round+1)<<20)
		if len(more) < len(blocks)/3 {
			t.Errorf("round %d: room for %d blocks after deleting most of %d", round, len(more), len(blocks))
		}
		blocks = append(kept, more...)
	}
	if u, _ := fs.Usage("/store"); u.Free < reserve {
		t.Errorf("%d bytes left, reserve is %d", u.Free, reserve)
	}
}

// Everything deleted: all segments but the spares' worth come free, and no
// tombstone stays needed.
func TestCompactToNothing(t *testing.T) {
	fs := disk.NewMem()
	s := mustOpenOnce(t, smallConfig(fs))
	for round := range uint64(5) {
		var ids []chunk.BlockID
		for i := range uint64(60) {
			b := chunktest.Block(round<<20+i, 15000)
			chunktest.MustPut(t, s, b)
			ids = append(ids, b.ID)
		}
		if err := s.Delete(t.Context(), chunktest.Grant(), ids); err != nil {
			t.Fatal(err)
		}
	}
	s = reopen(t, s, fs) // seals
	maintainAll(t, s)
	s = reopen(t, s, fs)
	maintainAll(t, s)
	if len(s.segs) > 1 || s.index.Len() != 0 {
		t.Errorf("%d segments and %d blocks left", len(s.segs), s.index.Len())
	}
	if len(s.pool) > 2*spareSegments+1 {
		t.Errorf("%d free segments are hoarded", len(s.pool))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A tombstone outlives the compaction of its segment as long as an older
// record of its block is on disk.
func TestTombstoneKept(t *testing.T) {
	fs := disk.NewMem()
	s := mustOpenOnce(t, smallConfig(fs))
	victim := chunktest.Block(1, 1000)
	chunktest.MustPut(t, s, victim)
	var keep []chunk.Block
	for i := range uint64(8) { // fill most of the first segment with live blocks
		b := chunktest.Block(10+i, 18000)
		chunktest.MustPut(t, s, b)
		keep = append(keep, b)
	}
	s = reopen(t, s, fs) // the tombstone goes to a second segment
	if err := s.Delete(t.Context(), chunktest.Grant(), []chunk.BlockID{victim.ID}); err != nil {
		t.Fatal(err)
	}
	for range 3 { // each round rewrites the tombstone's segment
		s = reopen(t, s, fs)
		maintainAll(t, s)
		_, err := s.Get(t.Context(), chunktest.Grant(), victim.ID, 0, 1)
		chunktest.WantKind(t, err, errs.NotExist)
	}
	for _, b := range keep {
		chunktest.WantBlock(t, s, b)
	}
	if len(s.stale) != 1 {
		t.Errorf("stale records %v, want the victim's", s.stale)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A failed sync stops changes, not reads.
func TestFailStop(t *testing.T) {
	fs := disk.NewMem()
	s := mustOpenOnce(t, smallConfig(fs))
	b := chunktest.Block(1, 1000)
	chunktest.MustPut(t, s, b)
	fs.SetHook(func(op disk.Op, name string) error {
		if op == disk.OpSync && strings.Contains(name, "seg-") {
			return errs.E("", errs.IO, "bad sector", nil)
		}
		return nil
	})
	wantHint(t, s.Put(t.Context(), chunktest.Grant(), chunktest.Block(2, 10)), errs.IO)
	fs.SetHook(nil)
	wantHint(t, s.Put(t.Context(), chunktest.Grant(), chunktest.Block(3, 10)), errs.IO)
	wantHint(t, s.Delete(t.Context(), chunktest.Grant(), []chunk.BlockID{b.ID}), errs.IO)
	chunktest.WantBlock(t, s, b)
	if st, err := s.Status(t.Context()); err != nil || !st.ReadOnly {
		t.Errorf("status %+v, %v", st, err)
	}
	s = reopen(t, s, fs)
	chunktest.WantBlock(t, s, b)
	chunktest.MustPut(t, s, chunktest.Block(3, 10))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
