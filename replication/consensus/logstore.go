package consensus

import (
	"time"

	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"agentdrive/internal/errs"
	"agentdrive/replication/store"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// durableStore is what the log asks before it lets entries go.
type durableStore interface {
	Durable() (uint64, error)
}

// logStore is raft-wal with two additions: entries that the state does not
// have on stable storage cannot be cut off the head, and every entry carries
// a CRC32C of its own (raft-wal checks only the last append, and only when it
// opens the log).
type logStore struct {
	*wal.WAL
	meta    types.MetaStore
	vfs     *tracingVFS
	state   durableStore
	fail    func(error) // stops the group
	metrics *metrics
}

var (
	_ raft.LogStore          = (*logStore)(nil)
	_ raft.StableStore       = (*logStore)(nil)
	_ raft.MonotonicLogStore = (*logStore)(nil)
)

// logSeams lets tests put failing parts below the log; nil fields are the
// real ones.
type logSeams struct {
	vfs  types.VFS
	meta types.MetaStore
}

func openLog(dir string, seams logSeams, state durableStore, fail func(error), cfg *Config) (*logStore, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, errs.E("consensus.log", errs.IO, "", err)
	}
	if seams.vfs == nil {
		seams.vfs = walfs.New()
	}
	if seams.meta == nil {
		seams.meta = &metadb.BoltMetaDB{}
	}
	tv := &tracingVFS{VFS: seams.vfs}
	w, err := wal.Open(dir,
		wal.WithMetaStore(&tailRepair{MetaStore: seams.meta, vfs: seams.vfs, log: cfg.Log}),
		wal.WithSegmentFiler(segment.NewFiler(dir, tv)),
		wal.WithSegmentSize(cfg.Tuning.SegmentSize),
		wal.WithLogger(newHclog(cfg.Log)))
	if err != nil {
		return nil, errors.Join(logError("open", dir, tv, err), seams.meta.Close())
	}
	return &logStore{WAL: w, meta: seams.meta, vfs: tv, state: state, fail: fail, metrics: newMetrics(cfg.Metrics, cfg.Group)}, nil
}

// Close closes the log and, which raft-wal leaves to us, its metadata.
func (l *logStore) Close() error { return errors.Join(l.WAL.Close(), l.meta.Close()) }

// logError gives a failure of the log its kind and names the place that was
// read last.
func logError(what, dir string, vfs *tracingVFS, err error) error {
	name, off := vfs.last()
	msg := fmt.Sprintf("%s %s", what, dir)
	if name != "" {
		msg = fmt.Sprintf("%s, file %s at byte %d", msg, name, off)
	}
	if errs.KindOf(err) != errs.Other {
		return err // it names its place itself
	}
	var pathErr *os.PathError
	if errors.As(err, &pathErr) && !errors.Is(err, types.ErrCorrupt) {
		return errs.E("consensus.log", errs.IO, msg, err)
	}
	return errs.E("consensus.log", errs.Corrupt, msg, err).WithHint(store.HintRebuild)
}

// DeleteRange implements raft.LogStore. Raft cuts the head behind snapshots,
// which here are markers, and the tail when entries conflict. What conflicts
// was never committed, so it lies above Durable and reaches to the end of the
// log, where the cut of a head never reaches (TrailingLogs). Everything else
// is a head and ends at Durable at most. That also holds where the library
// would drop the whole log after installing a snapshot: entries above the
// snapshot, perhaps already acknowledged, stay.
func (l *logStore) DeleteRange(lo, hi uint64) error {
	durable, err := l.state.Durable()
	if err != nil {
		return err
	}
	last, err := l.LastIndex()
	if err != nil {
		return err
	}
	if tail := hi >= last && lo > durable; !tail {
		hi = min(hi, durable)
	}
	return l.WAL.DeleteRange(lo, hi)
}

// check reads every entry from index from on and names the first bad one. It
// is called before Raft runs, by one goroutine.
func (l *logStore) check(from, to uint64) error {
	var e raft.Log
	for i := from; i <= to; i++ {
		if err := l.GetLog(i, &e); err != nil {
			return logError(fmt.Sprintf("entry %d of", i), "the log", l.vfs, err)
		}
	}
	return nil
}

// StoreLog implements raft.LogStore.
func (l *logStore) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

// StoreLogs implements raft.LogStore: the entries are on stable storage when
// it returns. A failure stops the group: after a failed fsync nobody knows
// what a second one would mean, and Raft would try again. The checksum travels behind Extensions, not in a codec: raft-wal
// 0.4.0 takes other codecs but does not reopen what they wrote.
func (l *logStore) StoreLogs(logs []*raft.Log) error {
	copies := make([]raft.Log, len(logs))
	out := make([]*raft.Log, len(logs))
	for i, e := range logs {
		copies[i] = *e
		copies[i].Extensions = binary.BigEndian.AppendUint32(slices.Clip(e.Extensions), entrySum(e))
		out[i] = &copies[i]
	}
	begun := time.Now()
	err := l.WAL.StoreLogs(out)
	l.metrics.stored(len(logs), time.Since(begun))
	if err != nil && !errors.Is(err, wal.ErrClosed) {
		l.fail(errs.E("consensus.log", errs.IO, "append", err))
	}
	return err
}

// GetLog implements raft.LogStore. A checksum that differs is
// types.ErrCorrupt.
func (l *logStore) GetLog(index uint64, e *raft.Log) error {
	if err := l.WAL.GetLog(index, e); err != nil {
		return err
	}
	n := len(e.Extensions) - 4
	if n < 0 {
		return fmt.Errorf("%w: entry without a checksum", types.ErrCorrupt)
	}
	sum := binary.BigEndian.Uint32(e.Extensions[n:])
	e.Extensions = e.Extensions[:n]
	if n == 0 {
		e.Extensions = nil
	}
	if e.Index != index || sum != entrySum(e) {
		return fmt.Errorf("%w: checksum of the entry differs", types.ErrCorrupt)
	}
	return nil
}

// entrySum is the CRC32C of what Raft relies on in an entry.
func entrySum(e *raft.Log) uint32 {
	var head [17]byte
	binary.BigEndian.PutUint64(head[0:], e.Index)
	binary.BigEndian.PutUint64(head[8:], e.Term)
	head[16] = byte(e.Type)
	sum := crc32.Update(0, castagnoli, head[:])
	sum = crc32.Update(sum, castagnoli, e.Extensions)
	return crc32.Update(sum, castagnoli, e.Data)
}

// tracingVFS remembers the last read, so that an error can name its place.
type tracingVFS struct {
	types.VFS
	mu   sync.Mutex // guards the fields below
	name string
	off  int64
}

func (v *tracingVFS) note(name string, off int64) {
	v.mu.Lock()
	v.name, v.off = name, off
	v.mu.Unlock()
}

func (v *tracingVFS) last() (string, int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.name, v.off
}

// Create implements types.VFS.
func (v *tracingVFS) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f, err := v.VFS.Create(dir, name, size)
	if err != nil {
		return nil, err
	}
	return tracedWriter{f, name, v}, nil
}

// OpenReader implements types.VFS.
func (v *tracingVFS) OpenReader(dir, name string) (types.ReadableFile, error) {
	f, err := v.VFS.OpenReader(dir, name)
	if err != nil {
		return nil, err
	}
	return tracedReader{f, name, v}, nil
}

// OpenWriter implements types.VFS.
func (v *tracingVFS) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := v.VFS.OpenWriter(dir, name)
	if err != nil {
		return nil, err
	}
	return tracedWriter{f, name, v}, nil
}

type tracedReader struct {
	types.ReadableFile
	name string
	v    *tracingVFS
}

func (r tracedReader) ReadAt(p []byte, off int64) (int, error) {
	r.v.note(r.name, off)
	return r.ReadableFile.ReadAt(p, off)
}

type tracedWriter struct {
	types.WritableFile
	name string
	v    *tracingVFS
}

func (w tracedWriter) ReadAt(p []byte, off int64) (int, error) {
	w.v.note(w.name, off)
	return w.WritableFile.ReadAt(p, off)
}
