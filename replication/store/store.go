package store

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"agentdrive/internal/errs"
	"agentdrive/internal/wire"
)

// Limits in bytes. A commit that exceeds them fails with errs.Invalid.
const (
	MaxKey   = 32 << 10
	MaxValue = 512 << 10
)

// Defaults of Options, in bytes.
const (
	DefaultMemTable   = 16 << 20
	MinMemTable       = 4 << 20 // so that the largest pair fits one transaction of Badger
	DefaultBlockCache = 32 << 20
	DefaultIndexCache = 16 << 20
)

// refreshEvery is the number of committed bytes after which the writer looks
// again how far the store is durable, so that old versions can be dropped.
const refreshEvery = 4 << 20

// Options configures Open.
type Options struct {
	Dir        string       // created if missing; one process at a time
	Log        *slog.Logger // default: slog.Default()
	MemTable   int64        // bytes of one of three memory tables; default DefaultMemTable
	BlockCache int64        // bytes; default DefaultBlockCache
	IndexCache int64        // bytes; default DefaultIndexCache
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.MemTable == 0 {
		o.MemTable = DefaultMemTable
	}
	if o.BlockCache == 0 {
		o.BlockCache = DefaultBlockCache
	}
	if o.IndexCache == 0 {
		o.IndexCache = DefaultIndexCache
	}
	return o
}

// Applied names the last Raft entry whose effects a state contains. The zero
// value is the empty state.
type Applied struct{ Index, Term uint64 }

// Wire implements wire.Message.
func (a *Applied) Wire(c *wire.Coder) {
	c.U64(&a.Index)
	c.U64(&a.Term)
}

// split is a commit that did not fit one Badger transaction: until a table
// with a newer version is on disk, its parts may be there without its end.
type split struct{ index, prev uint64 }

// Store is the state. Safe for concurrent use; there is one writer.
type Store struct {
	opts Options
	lock *os.File

	writer sync.Mutex     // rank 1: held by the open Tx or by Restore
	bg     sync.WaitGroup // removals of replaced generations; Add under writer

	durableMu sync.Mutex // rank 2: guards synced
	synced    uint64     // highest version known to be in synced tables
	since     int64      // bytes committed since the last refresh; owned by the writer

	mu      sync.Mutex // rank 3: guards everything below
	gen     *generation
	applied Applied
	floor   uint64         // durable index when gen was opened
	durable uint64         // last answer of Durable; discarding stops here
	splits  []split        // ascending; those whose end may be missing on disk
	views   map[uint64]int // open views of gen by index
	closed  bool
	failed  error // a commit failed half-way: the state in memory is unknown
}

// Open opens or creates the store in o.Dir. Error kinds: errs.Locked (another
// process has it), errs.Corrupt, errs.Version, errs.IO.
func Open(o Options) (*Store, error) {
	o = o.withDefaults()
	if o.MemTable < MinMemTable {
		return nil, errs.E(opOpen, errs.Invalid, fmt.Sprintf("memory table of %d bytes, at least %d", o.MemTable, MinMemTable), nil)
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, errs.E(opOpen, errs.IO, o.Dir, err)
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, err
	}
	s := &Store{opts: o, lock: lock, views: map[uint64]int{}}
	if err := s.openCurrent(); err != nil {
		return nil, errors.Join(err, unlockDir(lock))
	}
	return s, nil
}

// openCurrent opens the generation named by CURRENT, or the first one.
func (s *Store) openCurrent() error {
	num, err := readCurrent(s.opts.Dir)
	if err != nil {
		return err
	}
	if num == 0 {
		num = 1
		if err := writeCurrent(s.opts.Dir, num); err != nil {
			return err
		}
	}
	if err := removeOthers(s.opts, num); err != nil {
		return err
	}
	g, at, err := openGeneration(s.opts, num)
	if err != nil {
		return err
	}
	s.adopt(g, at)
	return nil
}

// adopt makes g the live generation. It has just been opened: all it shows
// is in tables on disk, so it is durable up to at. Tables with versions above
// at hold parts of a commit whose end was lost.
func (s *Store) adopt(g *generation, at Applied) {
	s.durableMu.Lock()
	defer s.durableMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gen, s.applied = g, at
	s.floor, s.durable = at.Index, at.Index
	s.views = map[uint64]int{}
	s.splits = nil
	s.synced = at.Index
	if v := g.maxVersion(); v > at.Index {
		s.splits = []split{{index: v, prev: at.Index}}
	}
}

// Applied tells the last commit.
func (s *Store) Applied() Applied {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.applied
}

// Durable returns an index up to which every commit survives a power cut. The
// Raft log must keep all entries after it.
func (s *Store) Durable() (uint64, error) {
	s.durableMu.Lock()
	defer s.durableMu.Unlock()
	s.mu.Lock()
	g, closed := s.gen, s.closed
	if !closed {
		g.refs++
	}
	s.mu.Unlock()
	if closed {
		return 0, errClosed("store.durable")
	}
	defer s.unref(g)

	// The tables and the MANIFEST are synced by Badger before a table is
	// listed; the names of new tables are in the directory.
	version := g.maxVersion()
	if version > s.synced {
		if err := syncDir(g.dir); err != nil {
			return 0, err
		}
		s.synced = version
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gen != g { // Restore came between; what it installed is durable
		return s.durable, nil
	}
	s.durable = max(s.durable, s.floor, s.complete(version))
	s.discardLocked()
	return s.durable, nil
}

// complete turns the highest version in tables into the highest commit that
// is whole on disk. Memory tables reach the disk in order, so everything
// before version is there; version itself may be half a split commit.
// Precondition: s.mu held.
func (s *Store) complete(version uint64) uint64 {
	whole, open := version, s.splits[:0]
	for _, p := range s.splits {
		if p.index == version {
			whole = p.prev
		}
		if p.index >= version {
			open = append(open, p)
		}
	}
	s.splits = open
	return whole
}

// discardLocked lets Badger drop versions that no view and no recovery will
// read: recovery reads at the durable index, views at theirs.
// Precondition: s.mu held.
func (s *Store) discardLocked() {
	limit := s.durable
	for index := range s.views {
		limit = min(limit, index)
	}
	s.gen.db.SetDiscardTs(limit)
}

// Stats describes the store.
type Stats struct {
	Applied Applied
	Durable uint64 // as of the last look, may be behind
	Views   int    // open read views
	Tables  int
	Bytes   int64 // of tables on disk
}

// Stats takes a look; cost grows with the number of tables.
func (s *Store) Stats() (Stats, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return Stats{}, errClosed("store.stats")
	}
	g := s.gen
	g.refs++
	st := Stats{Applied: s.applied, Durable: s.durable}
	for _, n := range s.views {
		st.Views += n
	}
	s.mu.Unlock()
	defer s.unref(g)
	for _, t := range g.db.Tables() {
		st.Tables++
		st.Bytes += int64(t.OnDiskSize)
	}
	return st, nil
}

// unref gives back one use of g; the last one of a replaced or closed
// generation lets it be closed.
func (s *Store) unref(g *generation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unrefLocked(g)
}

func (s *Store) unrefLocked(g *generation) {
	g.refs--
	if g.refs == 0 && g.retired {
		close(g.idle)
	}
}

// Close flushes and closes. It waits for the open transaction and for all
// views to be released. Closing twice is no error.
func (s *Store) Close() error {
	s.writer.Lock()
	defer s.writer.Unlock()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	g := s.gen
	s.retireLocked(g)
	s.mu.Unlock()
	<-g.idle
	s.bg.Wait()
	err := g.close()
	if cerr := unlockDir(s.lock); err == nil && cerr != nil {
		err = errs.E("store.close", errs.IO, "LOCK", cerr)
	}
	return err
}

// retireLocked arranges that g.idle closes when nobody uses g any more.
func (s *Store) retireLocked(g *generation) {
	g.retired = true
	if g.refs == 0 {
		close(g.idle)
	}
}

func errClosed(op string) error {
	return errs.E(op, errs.Unavailable, "store is closed", nil)
}

// closing closes f on the way out with err, which stays the error reported:
// the caller's failure explains more than that of the clean-up.
func closing(err error, f *os.File) error {
	if cerr := f.Close(); cerr != nil {
		return fmt.Errorf("%w (and closing %s: %v)", err, f.Name(), cerr)
	}
	return err
}
