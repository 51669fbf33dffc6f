package consensus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"agentdrive/internal/errs"
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
	vfs   *tracingVFS
	state durableStore
}

var (
	_ raft.LogStore          = (*logStore)(nil)
	_ raft.StableStore       = (*logStore)(nil)
	_ raft.MonotonicLogStore = (*logStore)(nil)
)

func openLog(dir string, vfs types.VFS, state durableStore, cfg *Config) (*logStore, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, errs.E("consensus.log", errs.IO, "", err)
	}
	if vfs == nil {
		vfs = walfs.New()
	}
	tv := &tracingVFS{VFS: vfs}
	w, err := wal.Open(dir,
		wal.WithSegmentFiler(segment.NewFiler(dir, tv)),
		wal.WithCodec(checkedCodec{}),
		wal.WithSegmentSize(cfg.Tuning.SegmentSize),
		wal.WithLogger(newHclog(cfg.Log)))
	if err != nil {
		return nil, logError("open", dir, tv, err)
	}
	return &logStore{WAL: w, vfs: tv, state: state}, nil
}

// logError gives a failure of the log its kind and names the place that was
// read last.
func logError(what, dir string, vfs *tracingVFS, err error) error {
	name, off := vfs.last()
	msg := fmt.Sprintf("%s %s", what, dir)
	if name != "" {
		msg = fmt.Sprintf("%s, file %s at byte %d", msg, name, off)
	}
	var pathErr *os.PathError
	if errors.As(err, &pathErr) && !errors.Is(err, types.ErrCorrupt) {
		return errs.E("consensus.log", errs.IO, msg, err)
	}
	return errs.E("consensus.log", errs.Corrupt, msg, err).WithHint(hintRebuild)
}

const hintRebuild = "this server's copy is damaged: with a healthy majority, remove its group directory and let it join again; it fetches a snapshot from its peers"

// DeleteRange implements raft.LogStore. Raft cuts the head behind snapshots,
// which here are markers, and the tail when entries conflict. Entries up to
// Durable are committed, so a range that begins above it can only be a
// conflicting tail; one that begins at or below it is the head and ends at
// Durable at most. That also holds where the library would drop the whole log
// after installing a snapshot: entries above the snapshot, perhaps already
// acknowledged, stay.
func (l *logStore) DeleteRange(lo, hi uint64) error {
	durable, err := l.state.Durable()
	if err != nil {
		return err
	}
	if lo <= durable {
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
		if e.Index != i {
			return logError(fmt.Sprintf("entry %d of", i), "the log", l.vfs, fmt.Errorf("%w: it says it is entry %d", types.ErrCorrupt, e.Index))
		}
	}
	return nil
}

// checkedCodec is raft-wal's codec followed by a CRC32C of its bytes, big
// endian.
type checkedCodec struct{ wal.BinaryCodec }

const checkedCodecID = wal.FirstExternalCodecID + 1

// ID implements wal.Codec; it is part of the format on disk.
func (checkedCodec) ID() uint64 { return checkedCodecID }

// Encode implements wal.Codec.
func (c checkedCodec) Encode(e *raft.Log, w io.Writer) error {
	var b bytes.Buffer
	if err := c.BinaryCodec.Encode(e, &b); err != nil {
		return err
	}
	_, err := w.Write(binary.BigEndian.AppendUint32(b.Bytes(), crc32.Checksum(b.Bytes(), castagnoli)))
	return err
}

// Decode implements wal.Codec.
func (c checkedCodec) Decode(b []byte, e *raft.Log) error {
	n := len(b) - 4
	if n < 0 || crc32.Checksum(b[:n], castagnoli) != binary.BigEndian.Uint32(b[n:]) {
		return fmt.Errorf("%w: checksum of the entry differs", types.ErrCorrupt)
	}
	return c.BinaryCodec.Decode(b[:n], e)
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
