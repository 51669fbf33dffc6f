package store

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/y"

	"agentdrive/internal/errs"
	"agentdrive/internal/wire"
)

// Prefixes of keys inside Badger.
const (
	prefixUser     = 'u'
	prefixReserved = 'r'
)

const appliedVersion = 1 // version of the applied record

var appliedKey = reservedKey("applied")

func userKey(key []byte) []byte {
	b := make([]byte, 1+len(key))
	b[0] = prefixUser
	copy(b[1:], key)
	return b
}

func reservedKey(name string) []byte { return append([]byte{prefixReserved}, name...) }

// generation is one Badger database.
type generation struct {
	num uint64
	dir string
	db  *badger.DB

	// Guarded by Store.mu.
	refs    int
	retired bool
	idle    chan struct{} // closed when retired and refs == 0
}

func generationDir(dir string, num uint64) string {
	return filepath.Join(dir, fmt.Sprintf("db-%d", num))
}

// openGeneration opens or creates generation num and reads its last commit.
func openGeneration(o Options, num uint64) (*generation, Applied, error) {
	g := &generation{num: num, dir: generationDir(o.Dir, num), idle: make(chan struct{})}
	if err := os.MkdirAll(g.dir, 0o755); err != nil {
		return nil, Applied{}, errs.E(opOpen, errs.IO, g.dir, err)
	}
	if err := removeMemtables(g.dir, o.Log); err != nil {
		return nil, Applied{}, err
	}
	db, err := badger.OpenManaged(badgerOptions(o, g.dir))
	if err != nil {
		return nil, Applied{}, badgerError(opOpen, g.dir, err)
	}
	g.db = db
	at, err := g.readApplied()
	if err != nil {
		return nil, Applied{}, errors.Join(err, g.close())
	}
	return g, at, nil
}

func badgerOptions(o Options, dir string) badger.Options {
	return badger.DefaultOptions(dir).
		WithLogger(badgerLog{o.Log.With("dir", dir)}).
		WithMetricsEnabled(false).
		WithBypassLockGuard(true). // LOCK guards all generations
		WithSyncWrites(false).
		WithDetectConflicts(false).
		WithNumVersionsToKeep(1).
		WithMemTableSize(o.MemTable).
		WithNumMemtables(3).
		WithNumCompactors(2).
		WithValueThreshold(min(1<<20, o.MemTable*15/100)).
		WithValueLogFileSize(1 << 20).                     // stays empty: all values are below the threshold
		WithChecksumVerificationMode(options.OnBlockRead). // OnTableRead would open past damaged tables
		WithBlockCacheSize(o.BlockCache).
		WithIndexCacheSize(o.IndexCache)
}

// removeMemtables deletes Badger's write-ahead logs. They are written without
// fsync: after a power cut a newer one may be whole while an older one is
// torn, and replaying them would show a hole. The tables alone are an exact
// prefix, and the Raft log has the rest.
func removeMemtables(dir string, log *slog.Logger) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.mem"))
	if err != nil {
		return errs.E(opOpen, errs.IO, dir, err)
	}
	for _, name := range names {
		if err := os.Remove(name); err != nil {
			return errs.E(opOpen, errs.IO, "remove memory table log", err)
		}
	}
	if len(names) == 0 {
		return nil
	}
	log.Info("unclean stop: removed memory table logs, the Raft log is replayed instead", "dir", dir, "files", len(names))
	return syncDir(dir)
}

func (g *generation) readApplied() (Applied, error) {
	txn := g.db.NewTransactionAt(math.MaxUint64, false)
	defer txn.Discard()
	item, err := txn.Get(appliedKey)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return Applied{}, nil
	}
	if err != nil {
		return Applied{}, badgerError(opOpen, g.dir, err)
	}
	val, err := item.ValueCopy(nil)
	if err != nil {
		return Applied{}, badgerError(opOpen, g.dir, err)
	}
	var at Applied
	if err := wire.Unmarshal(val, appliedVersion, &at); err != nil {
		return Applied{}, errs.E(opOpen, errs.Other, g.dir+": applied record", err)
	}
	if at.Index != item.Version() {
		return Applied{}, errs.E(opOpen, errs.Corrupt,
			fmt.Sprintf("%s: applied record says %d but was written at %d", g.dir, at.Index, item.Version()), nil)
	}
	return at, nil
}

// maxVersion is the highest commit timestamp in tables on disk.
func (g *generation) maxVersion() uint64 {
	var v uint64
	for _, t := range g.db.Tables() {
		v = max(v, t.MaxVersion)
	}
	return v
}

func (g *generation) close() error {
	if err := g.db.Close(); err != nil {
		return badgerError("store.close", g.dir, err)
	}
	return nil
}

// commit writes one Badger transaction per call of flush; set and del start
// the next one when the limits are reached.
type commit struct {
	g     *generation
	index uint64
	txn   *badger.Txn
}

func newCommit(g *generation, index uint64) *commit {
	return &commit{g: g, index: index, txn: g.db.NewTransactionAt(index, true)}
}

func (c *commit) put(key, val []byte, deleted bool) error {
	err := c.write(key, val, deleted)
	if !errors.Is(err, badger.ErrTxnTooBig) {
		return err
	}
	if err := c.flush(); err != nil {
		return err
	}
	c.txn = c.g.db.NewTransactionAt(c.index, true)
	return c.write(key, val, deleted)
}

func (c *commit) write(key, val []byte, deleted bool) error {
	if deleted {
		return c.txn.Delete(key)
	}
	return c.txn.Set(key, val)
}

func (c *commit) flush() error { return c.txn.CommitAt(c.index, nil) }

// end writes the applied record as the last write of the last part: while it
// is missing, no part is visible.
func (c *commit) end(at Applied) error {
	if err := c.put(appliedKey, wire.Marshal(nil, appliedVersion, &at), false); err != nil {
		return err
	}
	return c.flush()
}

func (c *commit) discard() { c.txn.Discard() }

// fits tells whether n writes of size bytes make one Badger transaction. The
// estimate is above Badger's, so that a commit called whole never splits.
func (g *generation) fits(n, size int) bool {
	const perEntry = 32 // header, version, prefix
	return int64(n)+8 < g.db.MaxBatchCount() && int64(size)+int64(n)*perEntry+1024 < g.db.MaxBatchSize()
}

// badgerError gives err its kind. Badger has no kinds of its own: what comes
// from the operating system carries an errno; a checksum mismatch has a
// sentinel.
func badgerError(op, where string, err error) error {
	var errno syscall.Errno
	switch {
	case errors.Is(err, y.ErrChecksumMismatch):
		return errs.E(op, errs.Corrupt, where, err).WithHint(HintRebuild)
	case errors.Is(err, badger.ErrDBClosed):
		return errs.E(op, errs.Unavailable, where, err)
	case errors.As(err, &errno) && errno == syscall.ENOSPC:
		return errs.E(op, errs.NoSpace, where, err)
	case !errors.As(err, &errno) && op == opOpen:
		// Not the disk's refusal but what Badger found in its files.
		return errs.E(op, errs.Corrupt, where, err).WithHint(HintRebuild)
	}
	return errs.E(op, errs.IO, where, err)
}

const opOpen = "store.open"

// HintRebuild is the way out when one server's copy of a group is damaged.
const HintRebuild = "this server's copy is damaged: with a healthy majority, remove its group directory and let it join again; it fetches a snapshot from its peers"

// badgerLog carries Badger's messages to slog, one level lower: what is news
// inside Badger is detail here.
type badgerLog struct{ log *slog.Logger }

func (l badgerLog) Errorf(f string, a ...any)   { l.log.Error(line(f, a)) }
func (l badgerLog) Warningf(f string, a ...any) { l.log.Warn(line(f, a)) }
func (l badgerLog) Infof(f string, a ...any)    { l.log.Debug(line(f, a)) }
func (l badgerLog) Debugf(string, ...any)       {}

func line(format string, args []any) string {
	return "badger: " + strings.TrimSpace(fmt.Sprintf(format, args...))
}
