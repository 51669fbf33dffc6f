package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
)

// moveBytes bounds the blocks that compaction has in memory at a time.
const moveBytes = 4 << 20

// retryAfter is the pause after maintenance could not do something.
const retryAfter = time.Second

func (s *Store) wakeMaintenance() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// maintenance runs until ctx ends.
func (s *Store) maintenance(ctx context.Context) {
	timer := time.NewTimer(retryAfter)
	defer timer.Stop()
	for {
		again, err := s.maintain(ctx)
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.Warn("maintenance", "dir", s.cfg.Dir, "error", err)
		}
		if again && err == nil {
			continue
		}
		timer.Reset(retryAfter)
		wake := s.poke
		if err != nil {
			wake = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-wake:
		}
	}
}

// maintain does one round: free segments ahead of need, and one segment
// compacted. again says that there may be more to do at once.
func (s *Store) maintain(ctx context.Context) (again bool, err error) {
	if ctx.Err() != nil || s.failure() != nil {
		return false, nil
	}
	refillErr := s.refill() // compaction is what helps against a full disk
	g := s.candidate()
	if g == nil {
		return false, refillErr
	}
	freed, err := s.compact(ctx, g)
	return freed, errors.Join(refillErr, err)
}

// candidate picks the sealed segment with the fewest needed bytes, if that is
// less than half of it.
func (s *Store) candidate() *segment {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var best *segment
	least := int64(0)
	for _, g := range s.segs {
		if !g.sealed || g.keep || g.damaged && g.live > 0 {
			continue
		}
		cost := g.live
		if g.counted == s.freeGen+1 { // else count them: perhaps none is needed
			cost += 16 * int64(g.needed)
		}
		if cost >= g.size/2 {
			continue
		}
		if best == nil || cost < least || cost == least && g.seq < best.seq {
			best, least = g, cost
		}
	}
	return best
}

// compact moves what is needed in g to the active segment and frees g. freed
// is false when it is to be tried again later.
func (s *Store) compact(ctx context.Context, g *segment) (freed bool, err error) {
	entries, err := s.entriesOf(g)
	if err != nil {
		return false, err
	}
	needed := s.neededTombstones(g, entries)
	s.mu.Lock()
	g.needed, g.counted = len(needed), s.freeGen+1
	worth := g.live+16*int64(len(needed)) < g.size/2
	s.mu.Unlock()
	if !worth {
		return true, nil // counted now, so the next round picks another
	}
	if err := s.moveBlocks(ctx, g, entries); err != nil {
		return false, err
	}
	for len(needed) > 0 {
		n := min(len(needed), chunk.MaxPerCall)
		r := newRequest(reqForget)
		r.ids, needed = needed[:n], needed[n:]
		if err := s.submit(context.Background(), "engine.compact", r); err != nil {
			return false, err
		}
	}
	return s.free(g, entries)
}

// entriesOf reads the footer of a sealed segment. If it fails its checks the
// segment is kept as it is.
func (s *Store) entriesOf(g *segment) ([]entry, error) {
	if g.entries != nil {
		return g.entries, nil
	}
	t, ok, err := g.readTrailer()
	if err != nil {
		return nil, err
	}
	var entries []entry
	if !ok {
		err = errs.E("segment.trailer", errs.Corrupt, fmt.Sprintf("%s: offset %d: trailer damaged", g.name, g.size-page), nil)
	} else {
		entries, err = g.readFooter(t)
	}
	if errs.Is(err, errs.Corrupt) {
		s.mu.Lock()
		g.keep = true
		s.mu.Unlock()
		s.report(Damage{File: g.name, Offset: g.size - page, Err: err})
	}
	return entries, err
}

// neededTombstones lists the ids whose tombstones in g still keep an older
// record outside g from coming back.
func (s *Store) neededTombstones(g *segment, entries []entry) []chunk.BlockID {
	here := map[chunk.BlockID]uint32{} // records in g, which go together with it
	for _, e := range entries {
		if e.kind == kindBlock {
			here[e.id]++
		}
	}
	var ids []chunk.BlockID
	seen := map[chunk.BlockID]bool{}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, e := range entries {
		if e.kind != kindTombstone || seen[e.id] {
			continue
		}
		seen[e.id] = true
		if _, live := s.index.Get(item{id: e.id}); !live && s.stale[e.id] > here[e.id] {
			ids = append(ids, e.id)
		}
	}
	return ids
}

// moveBlocks appends the live blocks of g to the active segment, at the
// configured rate.
func (s *Store) moveBlocks(ctx context.Context, g *segment, entries []entry) error {
	var wait []*request
	held := int64(0)
	settle := func() error {
		var first error
		for _, r := range wait {
			if err := <-r.done; first == nil {
				first = err
			}
		}
		wait = wait[:0]
		if first == nil {
			first = s.pace(ctx, held)
		}
		held = 0
		return first
	}
	for _, e := range entries {
		it, ok := s.find(e.id)
		if e.kind != kindBlock || !ok || it.at != (location{g.num, e.off}) {
			continue
		}
		b, ok, err := s.readBlock(it)
		if errs.Is(err, errs.Corrupt) {
			s.mu.Lock()
			g.damaged = true // readRecord has reported it
			s.mu.Unlock()
		}
		if err != nil {
			return errors.Join(err, settle())
		}
		if !ok {
			continue
		}
		r := newRequest(reqMove)
		r.block, r.from = b, it.at
		if !s.queue.push(r) {
			return errors.Join(errClosed("engine.compact"), settle())
		}
		wait = append(wait, r)
		if held += recordSize(e.length); held >= moveBytes {
			if err := settle(); err != nil {
				return err
			}
		}
	}
	return settle()
}

// pace waits as long as n bytes take at the compaction rate.
func (s *Store) pace(ctx context.Context, n int64) error {
	if s.cfg.manual || n == 0 {
		return nil
	}
	t := time.NewTimer(time.Duration(float64(n) / float64(s.cfg.CompactRate) * float64(time.Second)))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return chunk.Ended("engine.compact", ctx)
	}
}

// free makes a segment without needed records durably free. Until its header
// says so its records count as stale copies.
func (s *Store) free(g *segment, entries []entry) (bool, error) {
	s.mu.Lock()
	if g.live != 0 || g.readers.Load() != 0 {
		s.mu.Unlock()
		return false, nil // a block came back by a repair, or is being read
	}
	delete(s.segs, g.num) // nothing in the index leads here: no new readers
	s.mu.Unlock()
	err := g.writeHeader(stateFree)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.segs[g.num] = g // not known to be free: try again later
		return false, err
	}
	for _, e := range entries {
		if e.kind != kindBlock {
			continue
		}
		if s.stale[e.id]--; s.stale[e.id] == 0 {
			delete(s.stale, e.id)
		}
	}
	s.freeGen++
	s.forgetDamage(g.name)
	if g.size == s.cfg.SegmentBytes {
		s.pool = append(s.pool, g)
		return true, nil
	}
	return true, errors.Join(g.file.Close(), s.cfg.FS.Remove(g.path(s.cfg.Dir)))
}

// forgetDamage drops the reports about a file that is empty now. Caller holds
// mu.
func (s *Store) forgetDamage(name string) {
	kept := s.damage[:0]
	for _, d := range s.damage {
		if d.File != name {
			kept = append(kept, d)
		} else if d.Lost {
			s.lost--
		}
	}
	s.damage = kept
}
