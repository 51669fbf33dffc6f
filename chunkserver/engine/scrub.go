package engine

import (
	"context"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
)

// ScrubReport is the outcome of one Scrub call.
type ScrubReport struct {
	Checked int64    // bytes of blocks read and verified
	Bad     []Damage // found by this call, known before or not
	Wrapped bool     // the end of the store was reached; the next call starts over
}

// scrubCursor is the next entry to verify: entry number next of the segment
// with sequence seq, or the first segment after it.
type scrubCursor struct {
	seq  uint64
	next int
}

// Scrub verifies about n bytes of stored blocks, going on where the last call
// ended, in log order. Damage is reported in the answer and by Damage; an
// error is only the end of ctx. The active segment is left to the call after
// it is sealed. One call at a time works, others wait.
func (s *Store) Scrub(ctx context.Context, n int64) (ScrubReport, error) {
	s.scrubMu.Lock()
	defer s.scrubMu.Unlock()
	var r ScrubReport
	for {
		g, seq := s.nextSealed(s.cursor.seq)
		if g == nil {
			s.cursor = scrubCursor{}
			r.Wrapped = true
			return r, nil
		}
		if seq != s.cursor.seq {
			s.cursor = scrubCursor{seq: seq}
		}
		entries, err := s.entriesForScrub(g)
		if err != nil {
			r.Bad = append(r.Bad, Damage{File: g.name, Offset: g.size - page, Err: err})
		}
		for ; s.cursor.next < len(entries); s.cursor.next++ {
			if err := chunk.Ended("chunk.scrub", ctx); err != nil {
				return r, err
			}
			if r.Checked >= n {
				return r, nil
			}
			s.scrubOne(g, entries[s.cursor.next], &r)
		}
		s.cursor = scrubCursor{seq: seq + 1}
	}
}

func (s *Store) scrubOne(g *segment, e entry, r *ScrubReport) {
	it, ok := s.find(e.id)
	if e.kind != kindBlock || !ok || it.at != (location{g.num, e.off}) {
		return
	}
	_, still, err := s.readBlock(it)
	if !still {
		return
	}
	r.Checked += recordSize(e.length)
	if err != nil {
		r.Bad = append(r.Bad, Damage{File: g.name, Offset: int64(e.off) * sector, ID: e.id, Err: err})
	}
}

// entriesForScrub is entriesOf for a segment that may be recycled meanwhile.
func (s *Store) entriesForScrub(g *segment) ([]entry, error) {
	s.mu.RLock()
	if s.segs[g.num] != g {
		s.mu.RUnlock()
		return nil, nil
	}
	g.readers.Add(1)
	s.mu.RUnlock()
	defer s.unpin(g)
	entries, err := s.entriesOf(g)
	if err != nil && !errs.Is(err, errs.Corrupt) {
		s.report(Damage{File: g.name, Offset: g.size - page, Err: err})
	}
	return entries, err
}

// nextSealed is the sealed segment with the lowest sequence >= from.
func (s *Store) nextSealed(from uint64) (best *segment, seq uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, g := range s.segs {
		if g.sealed && g.seq >= from && (best == nil || g.seq < seq) {
			best, seq = g, g.seq
		}
	}
	return best, seq
}
