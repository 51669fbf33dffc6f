package engine

import (
	"context"
	"fmt"
	"path"
	"slices"
	"sync"

	"github.com/tidwall/btree"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/disk"
	"agentdrive/internal/errs"
)

// Store is an open store. Safe for concurrent use.
type Store struct {
	cfg  Config
	lock disk.File

	fillMu  sync.Mutex // rank 1: creation and removal of segment files
	nextNum uint32     // guarded by fillMu

	scrubMu sync.Mutex // rank 2
	cursor  scrubCursor

	queue queue // rank 3 inside

	// Belongs to the committer goroutine.
	active  *segment // nil until the first record
	nextSeq uint64
	outBuf  []byte // of the last batch, used again

	mu      sync.RWMutex // rank 4, never held during I/O; guards everything below
	index   *btree.BTreeG[item]
	owners  owners
	segs    map[uint32]*segment // data segments by number
	pool    []*segment          // free segments
	stale   map[chunk.BlockID]uint32
	live    uint64 // bytes of live blocks
	damage  []Damage
	lost    int   // entries of damage with Lost set
	failed  error // set once the active segment cannot be trusted
	low     bool  // puts were refused for want of space; asked again each time
	freeGen uint64

	poke chan struct{} // wakes maintenance
	stop context.CancelFunc
	wg   sync.WaitGroup

	closeOnce sync.Once
}

var _ chunk.Store = (*Store)(nil)

// Damage is a place on disk that fails its checks.
type Damage struct {
	File   string // name inside the directory
	Offset int64
	ID     chunk.BlockID // zero if no block is known to be hit
	Lost   bool          // a block of unknown id may have been here
	Err    error         // kind errs.Corrupt or errs.IO
}

// location is where a record lies.
type location struct {
	seg uint32
	off uint32 // sectors
}

// item is one block in the index: 32 bytes, so that a million blocks take
// some 40 MB.
type item struct {
	id     chunk.BlockID
	at     location
	length uint32
	owner  uint32 // in owners
}

func lessItem(a, b item) bool { return string(a.id[:]) < string(b.id[:]) }

// owners gives each distinct owner a small number.
type owners struct {
	byValue map[chunk.Owner]uint32
	list    []ownerUse
	free    []uint32
}

type ownerUse struct {
	owner chunk.Owner
	uses  int
}

func (o *owners) take(owner chunk.Owner) uint32 {
	n, ok := o.byValue[owner]
	if !ok {
		if k := len(o.free); k > 0 {
			n, o.free = o.free[k-1], o.free[:k-1]
		} else {
			n = uint32(len(o.list))
			o.list = append(o.list, ownerUse{})
		}
		o.list[n].owner = owner
		o.byValue[owner] = n
	}
	o.list[n].uses++
	return n
}

func (o *owners) drop(n uint32) {
	u := &o.list[n]
	if u.uses--; u.uses == 0 {
		delete(o.byValue, u.owner)
		o.free = append(o.free, n)
	}
}

// insert makes e the valid record of its block. Caller holds mu.
func (s *Store) insert(g *segment, e entry) {
	it := item{id: e.id, at: location{g.num, e.off}, length: e.length, owner: s.owners.take(e.owner)}
	if old, had := s.index.Set(it); had {
		s.discard(old)
	}
	g.live += recordSize(e.length)
	s.live += uint64(e.length)
}

// remove takes a block out of the index, its record becoming stale. Caller
// holds mu.
func (s *Store) remove(id chunk.BlockID) {
	if old, had := s.index.Delete(item{id: id}); had {
		s.discard(old)
	}
}

// discard accounts for a record that is no longer valid. Caller holds mu.
func (s *Store) discard(old item) {
	s.stale[old.id]++
	s.segs[old.at.seg].live -= recordSize(old.length)
	s.live -= uint64(old.length)
	s.owners.drop(old.owner)
}

// apply performs one log entry on the index. Caller holds mu.
func (s *Store) apply(g *segment, e entry) {
	if e.kind == kindTombstone {
		s.remove(e.id)
		return
	}
	s.insert(g, e)
}

// Put implements chunk.Store.
func (s *Store) Put(ctx context.Context, g chunk.Grant, b chunk.Block) error {
	const op = "chunk.put"
	if err := s.admit(ctx, op, g, chunk.RightWrite); err != nil {
		return err
	}
	if err := b.Check(op); err != nil {
		return err
	}
	if size := recordSize(uint32(len(b.Data))); size > maxRecord(s.cfg.SegmentBytes) {
		return errs.E(op, errs.Invalid, fmt.Sprintf("block of %d bytes does not fit into a segment of %d", len(b.Data), s.cfg.SegmentBytes), nil)
	}
	r := newRequest(reqPut)
	r.block = b
	if it, ok := s.find(b.ID); ok {
		same, err := s.compare(it, &b)
		if err == nil && same {
			return nil
		}
		if err == nil {
			return errExist(b.ID)
		}
		if !errs.Is(err, errs.Corrupt) {
			return err
		}
		r.replace, r.from = true, it.at
	}
	return s.submit(ctx, op, r)
}

func errExist(id chunk.BlockID) error {
	return errs.E("chunk.put", errs.Exist, fmt.Sprintf("block %s is stored with other content", id), nil)
}

// Has implements chunk.Store.
func (s *Store) Has(ctx context.Context, g chunk.Grant, ids []chunk.BlockID) ([]bool, error) {
	const op = "chunk.has"
	if err := s.admit(ctx, op, g, chunk.RightRead|chunk.RightWrite); err != nil {
		return nil, err
	}
	if err := chunk.CheckCount(op, len(ids)); err != nil {
		return nil, err
	}
	has := make([]bool, len(ids))
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i, id := range ids {
		_, has[i] = s.index.Get(item{id: id})
	}
	return has, nil
}

// Delete implements chunk.Store.
func (s *Store) Delete(ctx context.Context, g chunk.Grant, ids []chunk.BlockID) error {
	const op = "chunk.delete"
	if err := s.admit(ctx, op, g, chunk.RightDelete); err != nil {
		return err
	}
	if err := chunk.CheckCount(op, len(ids)); err != nil {
		return err
	}
	r := newRequest(reqDelete)
	r.ids = slices.Clone(ids)
	return s.submit(ctx, op, r)
}

// listStep bounds how many index items one hold of mu passes.
const listStep = 4096

// List implements chunk.Store. It is no snapshot: blocks that come or go
// meanwhile may or may not appear.
func (s *Store) List(ctx context.Context, g chunk.Grant, owner *chunk.Owner, after chunk.BlockID, limit int) ([]chunk.Info, error) {
	const op = "chunk.list"
	if err := chunk.CheckLimit(op, limit); err != nil {
		return nil, err
	}
	var infos []chunk.Info
	for more := true; more; {
		if err := s.admit(ctx, op, g, chunk.RightRead); err != nil {
			return nil, err
		}
		passed := 0
		more = false
		s.mu.RLock()
		s.index.Ascend(item{id: after}, func(it item) bool {
			if it.id == after {
				return true
			}
			if passed++; passed > listStep {
				more = true
				return false
			}
			after = it.id
			if o := s.owners.list[it.owner].owner; owner == nil || *owner == o {
				infos = append(infos, chunk.Info{ID: it.id, Owner: o, Len: it.length})
			}
			return len(infos) < limit
		})
		s.mu.RUnlock()
	}
	return infos, nil
}

// Status implements chunk.Store.
func (s *Store) Status(ctx context.Context) (chunk.Status, error) {
	const op = "chunk.status"
	if err := chunk.Ended(op, ctx); err != nil {
		return chunk.Status{}, err
	}
	u, err := s.cfg.FS.Usage(s.cfg.Dir)
	if err != nil {
		return chunk.Status{}, errs.E(op, errs.Other, s.cfg.Dir, err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	size := s.cfg.SegmentBytes
	segments := s.obtainable(u)
	st := chunk.Status{
		Blocks: uint64(s.index.Len()), Live: s.live,
		Free:     uint64(max(0, segments-spareSegments) * size),
		ReadOnly: s.failed != nil || segments < spareSegments,
	}
	for _, g := range s.segs {
		st.Used += uint64(g.size)
	}
	for _, g := range s.pool {
		st.Used += uint64(g.size)
	}
	return st, nil
}

// Damage lists what was found damaged since open, oldest first, without
// repetitions.
func (s *Store) Damage() []Damage {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.damage)
}

// report notes and logs damage, once for each place.
func (s *Store) report(d Damage) {
	s.mu.Lock()
	known := slices.ContainsFunc(s.damage, func(o Damage) bool { return o.File == d.File && o.Offset == d.Offset })
	if !known {
		s.damage = append(s.damage, d)
		if d.Lost {
			s.lost++
		}
	}
	s.mu.Unlock()
	if !known {
		s.cfg.Log.Error("damaged record", "file", path.Join(s.cfg.Dir, d.File), "offset", d.Offset, "block", d.ID, "error", d.Err)
	}
}

// admit checks what every call starts with.
func (s *Store) admit(ctx context.Context, op string, g chunk.Grant, rights uint8) error {
	if err := chunk.Ended(op, ctx); err != nil {
		return err
	}
	if s.queue.isClosed() {
		return errClosed(op)
	}
	return g.Check(op, s.cfg.Cluster, rights, s.cfg.Now())
}

func errClosed(op string) error {
	return errs.E(op, errs.Unavailable, "the store is closed", nil)
}

func (s *Store) find(id chunk.BlockID) (item, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.index.Get(item{id: id})
}

// fail stops all changes: what the active segment holds is no longer known.
func (s *Store) fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = errs.E("store.write", errs.IO, "the store takes no changes since a write failed", err).
			WithHint("check the disk, then restart the chunk server")
		s.cfg.Log.Error("store stopped taking changes", "dir", s.cfg.Dir, "error", err)
	}
	return s.failed
}

func (s *Store) failure() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.failed
}
