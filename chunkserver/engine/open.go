package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"

	"github.com/tidwall/btree"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
)

// Open opens the store in cfg.Dir, creating it if the directory is empty.
// Kinds: errs.Locked (another process has it), errs.Mismatch (another
// cluster's or server's), errs.Version (newer format), errs.Corrupt (no
// identity). Damaged records do not keep a store from opening; see
// Store.Damage.
func Open(cfg Config) (*Store, error) {
	const op = "engine.open"
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := makeDir(cfg); err != nil {
		return nil, errs.E(op, errs.Other, "", err)
	}
	lock, err := cfg.FS.Lock(path.Join(cfg.Dir, "LOCK"))
	if err != nil {
		return nil, errs.E(op, errs.Other, "", err)
	}
	s := &Store{cfg: cfg, lock: lock, nextNum: 1,
		queue:  queue{wake: make(chan struct{}, 1)},
		index:  btree.NewBTreeGOptions(lessItem, btree.Options{NoLocks: true}),
		owners: owners{byValue: map[chunk.Owner]uint32{}},
		segs:   map[uint32]*segment{}, stale: map[chunk.BlockID]uint32{},
		poke: make(chan struct{}, 1),
	}
	if err := s.recover(); err != nil {
		return nil, errs.E(op, errs.Other, "", errors.Join(err, s.closeFiles()))
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	if !cfg.manual {
		s.wg.Go(func() { s.maintenance(ctx) })
	}
	s.wg.Go(s.committer)
	return s, nil
}

// makeDir creates the directory durably.
func makeDir(cfg Config) error {
	// The parent always: a process that died here may have made the directory
	// without syncing its name.
	dir := path.Clean(cfg.Dir)
	parents := []string{path.Dir(dir)}
	for dir = path.Dir(dir); dir != path.Dir(dir); dir = path.Dir(dir) {
		_, err := cfg.FS.Stat(dir)
		if err == nil {
			break
		}
		if !errs.Is(err, errs.NotExist) {
			return err
		}
		parents = append(parents, path.Dir(dir))
	}
	if err := cfg.FS.MkdirAll(cfg.Dir, 0o755); err != nil {
		return err
	}
	for _, dir := range parents {
		if err := cfg.FS.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// recover builds the index from the segments.
func (s *Store) recover() error {
	names, err := s.cfg.FS.ReadDir(s.cfg.Dir)
	if err != nil {
		return err
	}
	var nums []uint32
	for _, name := range names {
		if num, ok := parseSegmentName(name); ok {
			nums = append(nums, num)
			s.nextNum = max(s.nextNum, num+1)
		}
	}
	if err := checkIdentity(s.cfg.FS, s.cfg.Dir, identity{s.cfg.Cluster, s.cfg.Server}, len(nums)); err != nil {
		return err
	}
	var data []*segment
	for _, num := range nums {
		g, state, err := s.openSegment(num)
		if err != nil {
			return err
		}
		switch state {
		case stateFree:
			s.pool = append(s.pool, g)
		case stateData:
			data = append(data, g)
			s.segs[num] = g
		}
	}
	slices.SortFunc(data, func(a, b *segment) int { return cmp.Compare(a.seq, b.seq) })
	for i, g := range data {
		s.nextSeq = max(s.nextSeq, g.seq)
		if err := s.recoverSegment(g, i == len(data)-1); err != nil {
			return err
		}
	}
	return nil
}

// stateNone is what openSegment answers for a file that takes no part.
const stateNone = 0

// openSegment opens a segment file and reads its header.
func (s *Store) openSegment(num uint32) (g *segment, state uint8, err error) {
	g = &segment{num: num, name: segmentName(num)}
	name := g.path(s.cfg.Dir)
	f, err := s.cfg.FS.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, stateNone, err
	}
	defer func() {
		if state == stateNone || err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	g.file = f
	size, err := f.Size()
	if err != nil {
		return nil, stateNone, err
	}
	hs, zero, err := g.headers()
	if err != nil {
		return nil, stateNone, err
	}
	switch {
	case len(hs) == 0 && zero: // power failed while it was created
		return nil, stateNone, s.cfg.FS.Remove(name)
	case len(hs) == 0:
		d := Damage{File: g.name, Lost: true,
			Err: errs.E("segment.open", errs.Corrupt, fmt.Sprintf("%s: offset 0: both copies of the header are damaged", g.name), nil)}
		s.report(d)
		return nil, stateNone, nil
	}
	h := hs[0]
	g.size, g.nonce, g.seq = h.size, h.nonce, h.seq
	s.nextSeq = max(s.nextSeq, h.seq)
	// Two valid copies differ only after a cut between free and data: the
	// segment holds nothing that anybody was told about.
	if h.state == stateFree || len(hs) == 2 && hs[0] != hs[1] {
		if g.size != s.cfg.SegmentBytes || size < g.size {
			return nil, stateNone, s.cfg.FS.Remove(name)
		}
		if len(hs) == 1 || hs[0] != hs[1] {
			return g, stateFree, g.writeHeader(stateFree)
		}
		return g, stateFree, nil
	}
	if size < g.size {
		s.report(Damage{File: g.name, Offset: size, Lost: true,
			Err: errs.E("segment.open", errs.Corrupt, fmt.Sprintf("%s: offset %d: the file should have %d bytes", g.name, size, g.size), nil)})
		g.damaged, g.keep = true, true
	}
	return g, stateData, nil
}

// headers returns the valid copies of the header; zero says that the whole
// header region is.
func (g *segment) headers() (hs []header, zero bool, err error) {
	b := make([]byte, dataStart)
	if err := readFull(g.file, b, 0); err != nil {
		return nil, false, err
	}
	for _, off := range []int{0, page} {
		h, err := decodeHeader(b[off:][:sector])
		if errs.Is(err, errs.Version) {
			return nil, false, errs.E("segment.open", errs.Other, g.name, err)
		}
		if err == nil {
			hs = append(hs, h)
		}
	}
	return hs, allZero(b), nil
}

// recoverSegment adds a segment's records to the index and, where it was left
// without a footer, cuts the torn tail and seals it. A damaged segment is left
// untouched.
func (s *Store) recoverSegment(g *segment, last bool) error {
	l, err := g.load(last)
	if err != nil {
		return err
	}
	g.end, g.entries = l.end, l.entries
	if l.badFoot != nil {
		s.report(*l.badFoot) // and written again below
	}
	for _, d := range l.damage {
		s.report(d)
		g.damaged, g.keep = true, g.keep || d.Lost || d.ID == chunk.BlockID{}
	}
	for _, off := range l.cut {
		if _, err := g.file.WriteAt(make([]byte, sector), off); err != nil {
			return err
		}
	}
	if len(l.cut) > 0 {
		if err := g.file.Sync(); err != nil {
			return err
		}
	}
	if len(l.entries) == 0 && !g.damaged {
		delete(s.segs, g.num)
		if g.size != s.cfg.SegmentBytes {
			return errors.Join(g.file.Close(), s.cfg.FS.Remove(g.path(s.cfg.Dir)))
		}
		if err := g.writeHeader(stateFree); err != nil {
			return err
		}
		s.pool = append(s.pool, g)
		return nil
	}
	if !l.footer && !g.damaged {
		if err := g.seal(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range g.entries {
		s.apply(g, e)
	}
	g.sealed = true
	if !g.damaged {
		g.entries = nil
	}
	return nil
}

// Close completes what was asked, seals the active segment and closes the
// files. Later calls answer errs.Unavailable.
//
// A second call does nothing.
func (s *Store) Close() error {
	var err error
	s.closeOnce.Do(func() { err = s.close() })
	return err
}

func (s *Store) close() error {
	s.queue.close()
	s.stop()
	s.wg.Wait()
	var err error
	if s.failure() == nil && s.active != nil && len(s.active.entries) > 0 {
		err = s.sealActive()
	}
	return errors.Join(err, s.closeFiles())
}

func (s *Store) closeFiles() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []error
	for _, g := range s.segs {
		all = append(all, g.file.Close())
	}
	for _, g := range s.pool {
		all = append(all, g.file.Close())
	}
	s.segs, s.pool = nil, nil
	return errors.Join(append(all, s.lock.Close())...)
}
