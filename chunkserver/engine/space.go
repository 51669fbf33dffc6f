package engine

import (
	"errors"
	"fmt"
	"os"
	"path"

	"agentdrive/internal/disk"
	"agentdrive/internal/errs"
)

// obtainable is the number of segments that are free or could be created
// without touching the reserve. Caller holds mu.
func (s *Store) obtainable(u disk.Usage) int64 {
	return int64(len(s.pool)) + max(0, u.Free-s.cfg.reserve(u.Total))/s.cfg.SegmentBytes
}

// space returns obtainable and the number of free segments.
func (s *Store) space() (obtainable, free int64, err error) {
	u, err := s.cfg.FS.Usage(s.cfg.Dir)
	if err != nil {
		return 0, 0, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.obtainable(u), int64(len(s.pool)), nil
}

// putsAllowed refuses puts into the active segment while space is low: what
// remains is for deletes and compaction.
func (s *Store) putsAllowed() error {
	s.mu.RLock()
	low := s.low
	s.mu.RUnlock()
	if !low {
		return nil
	}
	n, _, err := s.space()
	if err != nil {
		return err
	}
	if n < spareSegments {
		return s.errNoSpace()
	}
	s.setLow(false)
	return nil
}

func (s *Store) setLow(low bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if low && !s.low {
		s.cfg.Log.Warn("out of space: puts are refused", "dir", s.cfg.Dir)
	}
	s.low = low
}

func (s *Store) errNoSpace() error {
	s.setLow(true)
	return errs.E("chunk.put", errs.NoSpace, fmt.Sprintf("%s: no room left beside the reserve", s.cfg.Dir), nil).
		WithHint("delete data, or add a chunk server or a larger disk")
}

// takeFree hands out a free segment, creating one if need be; for a put only
// while the spares stay obtainable.
func (s *Store) takeFree(put bool) (*segment, error) {
	n, _, err := s.space()
	if err != nil {
		return nil, err
	}
	if put && n <= spareSegments || n == 0 {
		return nil, s.errNoSpace()
	}
	if g := s.popFree(); g != nil { // without waiting for a segment being filled
		return g, nil
	}
	s.fillMu.Lock()
	defer s.fillMu.Unlock()
	if g := s.popFree(); g != nil { // filled while we waited
		return g, nil
	}
	g, err := s.create()
	if errs.Is(err, errs.NoSpace) {
		return nil, errors.Join(s.errNoSpace(), err)
	}
	return g, err
}

// popFree takes a free segment, or returns nil.
func (s *Store) popFree() *segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := len(s.pool) - 1
	if k < 0 {
		return nil
	}
	g := s.pool[k]
	s.pool = s.pool[:k]
	return g
}

func (s *Store) giveFree(g *segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pool = append(s.pool, g)
}

// fillStep is the length of one write of zeros.
const fillStep = 1 << 20

// create makes a free segment: zeros on stable storage first, so that the
// header never promises space that is not there. A failure leaves no file.
// Caller holds fillMu.
func (s *Store) create() (g *segment, err error) {
	num := s.nextNum
	s.nextNum++ // a failed attempt may leave its file
	name := path.Join(s.cfg.Dir, segmentName(num))
	f, err := s.cfg.FS.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	g = &segment{num: num, name: segmentName(num), file: f, size: s.cfg.SegmentBytes}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), s.cfg.FS.Remove(name))
		}
	}()
	zeros := make([]byte, min(fillStep, g.size))
	for off := int64(0); off < g.size; off += fillStep {
		if _, err := f.WriteAt(zeros[:min(fillStep, g.size-off)], off); err != nil {
			return nil, err
		}
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	if err := g.writeHeader(stateFree); err != nil {
		return nil, err
	}
	return g, s.cfg.FS.SyncDir(s.cfg.Dir)
}

// refill creates free segments ahead of need, and gives back those that
// nobody will need soon.
func (s *Store) refill() error {
	s.fillMu.Lock()
	defer s.fillMu.Unlock()
	n, free, err := s.space()
	for ; err == nil && free <= spareSegments && free < n; free++ {
		var g *segment
		if g, err = s.create(); err == nil {
			s.giveFree(g)
		}
	}
	for ; err == nil && free > 2*spareSegments+1; free-- {
		err = s.shrink()
	}
	return err
}

// shrink removes one free segment. Caller holds fillMu.
func (s *Store) shrink() error {
	g := s.popFree()
	if g == nil {
		return nil
	}
	return errors.Join(g.file.Close(), s.cfg.FS.Remove(g.path(s.cfg.Dir)), s.cfg.FS.SyncDir(s.cfg.Dir))
}
