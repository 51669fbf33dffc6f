package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"agentdrive/internal/errs"
	"agentdrive/replication/store"
)

// Layout of a raft-wal 0.4.0 segment: a file header, then frames of a header
// of 8 bytes (type, 3 zero bytes, length or, in a commit frame, CRC32C) and a
// payload padded to 8 bytes. One append is its entry frames, the index frame
// if it fills the segment, and a commit frame whose checksum covers
// everything since the commit frame before it.
const (
	segHeaderLen   = 32
	segFrameHeader = 8
)

// tailRepair is raft-wal's metadata, looked through once before the log
// opens. It does four things that raft-wal 0.4.0 does not:
//
//   - A crash after the append that filled a segment and before the segment
//     was recorded as sealed leaves a tail that refuses every append for ever.
//     The rotation is finished here.
//   - Cutting conflicting entries off the tail seals the segment without its
//     index; after the next start none of its entries can be read. The index
//     is written here.
//   - Left-overs of a torn append are zeroed, so that no later recovery takes
//     them for frames (a torn index frame would also mark the tail sealed).
//   - raft-wal takes the first unreadable frame for the end of the log, which
//     is right after a torn append and loses acknowledged entries after bit
//     rot. A whole append behind the damage tells the two apart: the log is
//     refused then.
type tailRepair struct {
	types.MetaStore
	vfs types.VFS
	log *slog.Logger
}

// Load implements types.MetaStore.
func (m *tailRepair) Load(dir string) (types.PersistentState, error) {
	state, err := m.MetaStore.Load(dir)
	if err != nil || len(state.Segments) == 0 {
		return state, err
	}
	changed := false
	for i := range state.Segments {
		seg := &state.Segments[i]
		if seg.SealTime.IsZero() || seg.IndexStart != 0 {
			continue
		}
		if err := m.index(dir, seg); err != nil {
			return state, err
		}
		changed = true
	}
	tail := &state.Segments[len(state.Segments)-1]
	if tail.SealTime.IsZero() {
		t, err := m.repair(dir, tail)
		if err != nil {
			return state, err
		}
		if t.indexStart != 0 {
			m.rotate(&state, t)
			changed = true
		}
	}
	if !changed {
		return state, nil
	}
	return state, m.CommitState(state)
}

// rotate records the tail as sealed and a new one, which raft-wal will find
// missing and make.
func (m *tailRepair) rotate(state *types.PersistentState, t segTail) {
	now := time.Now()
	tail := &state.Segments[len(state.Segments)-1]
	tail.SealTime, tail.IndexStart = now, uint64(t.indexStart)
	tail.MaxIndex = tail.BaseIndex + t.entries - 1
	m.log.Info("finishing the rotation of a log segment that a crash interrupted", "last entry", tail.MaxIndex)
	state.Segments = append(state.Segments, types.SegmentInfo{
		ID: state.NextSegmentID, BaseIndex: tail.MaxIndex + 1, MinIndex: tail.MaxIndex + 1,
		Codec: tail.Codec, SizeLimit: tail.SizeLimit, CreateTime: now,
	})
	state.NextSegmentID++
}

// repair looks through the tail segment and zeroes what a torn append left.
func (m *tailRepair) repair(dir string, seg *types.SegmentInfo) (t segTail, err error) {
	f, data, err := m.read(dir, seg)
	if errors.Is(err, os.ErrNotExist) {
		return segTail{}, nil // crashed before it was made: raft-wal makes it
	}
	if err != nil {
		return segTail{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if t, err = scanChecked(segment.FileName(*seg), data); err != nil {
		return t, err
	}
	end := len(data)
	for end > t.end && data[end-1] == 0 {
		end--
	}
	if end == t.end {
		return t, nil
	}
	m.log.Info("clearing an append that a crash tore", "file", segment.FileName(*seg), "from", t.end, "to", end)
	return t, writeSynced(f, make([]byte, end-t.end), int64(t.end))
}

// index gives a segment that was sealed by a cut of its tail the index that
// raft-wal looks entries up in: their offsets, 4 bytes little endian each.
func (m *tailRepair) index(dir string, seg *types.SegmentInfo) (err error) {
	name := segment.FileName(*seg)
	f, data, err := m.read(dir, seg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	t, err := scanChecked(name, data)
	if err != nil {
		return err
	}
	if t.entries < seg.MaxIndex-seg.BaseIndex+1 {
		return errs.E("consensus.log", errs.Corrupt, fmt.Sprintf("file %s ends at byte %d with %d entries, it must have those from %d to %d",
			name, t.end, t.entries, seg.BaseIndex, seg.MaxIndex), nil).WithHint(store.HintRebuild)
	}
	if t.indexStart != 0 {
		seg.IndexStart = uint64(t.indexStart)
		return nil
	}
	m.log.Info("writing the index of a log segment whose tail was cut", "file", name, "last entry", seg.MaxIndex)
	seg.IndexStart = uint64(t.end)
	return writeSynced(f, entryOffsets(data[:t.end]), int64(t.end))
}

func (m *tailRepair) read(dir string, seg *types.SegmentInfo) (types.WritableFile, []byte, error) {
	name := segment.FileName(*seg)
	f, err := m.vfs.OpenWriter(dir, name)
	if err != nil {
		return nil, nil, errs.E("consensus.log", errs.IO, "open "+name, err)
	}
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	if err != nil {
		return nil, nil, errors.Join(errs.E("consensus.log", errs.IO, "read "+name, err), f.Close())
	}
	return f, data, nil
}

func writeSynced(f types.WritableFile, p []byte, off int64) error {
	if _, err := f.WriteAt(p, off); err != nil {
		return errs.E("consensus.log", errs.IO, "repair", err)
	}
	if err := f.Sync(); err != nil {
		return errs.E("consensus.log", errs.IO, "repair", err)
	}
	return nil
}

func scanChecked(name string, data []byte) (segTail, error) {
	t, bad := scanTail(data)
	if bad >= 0 {
		return t, errs.E("consensus.log", errs.Corrupt,
			fmt.Sprintf("file %s is damaged at byte %d: whole entries follow", name, bad), nil).WithHint(store.HintRebuild)
	}
	return t, nil
}

// entryOffsets lists the offsets of the entry frames of whole appends.
func entryOffsets(data []byte) []byte {
	var out []byte
	for off := segHeaderLen; off+segFrameHeader <= len(data); {
		n := 0
		if data[off] != segment.FrameCommit {
			n = int(binary.LittleEndian.Uint32(data[off+4:]))
		}
		if data[off] == segment.FrameEntry {
			out = binary.LittleEndian.AppendUint32(out, uint32(off))
		}
		off += segFrameHeader + (n+7)&^7
	}
	return out
}

// segTail is what a segment holds.
type segTail struct {
	end        int    // behind the last whole append
	entries    uint64 // up to end
	indexStart int    // payload of the index frame, 0: not sealed
}

// scanTail finds the whole appends of a segment. bad is the offset of damage
// that a torn append cannot explain, or -1.
func scanTail(data []byte) (t segTail, bad int) {
	cur, sumFrom, off := segTail{}, 0, segHeaderLen
	for off+segFrameHeader <= len(data) {
		n := int(binary.LittleEndian.Uint32(data[off+4:]))
		switch data[off] {
		case segment.FrameCommit:
			if crc32.Checksum(data[sumFrom:off], castagnoli) != uint32(n) {
				return t, wholeAppendBehind(data, t.end)
			}
			off += segFrameHeader
			sumFrom, cur.end = off, off
			t = cur
			continue
		case segment.FrameEntry:
			cur.entries++
		case segment.FrameIndex:
			cur.indexStart = off + segFrameHeader
		default:
			return t, wholeAppendBehind(data, t.end)
		}
		if n > segment.MaxEntrySize {
			return t, wholeAppendBehind(data, t.end)
		}
		off += segFrameHeader + (n+7)&^7
	}
	return t, wholeAppendBehind(data, t.end)
}

// wholeAppendBehind looks for an append with a matching checksum that begins
// behind another commit frame at or after from. One torn append has one
// commit frame; a second, whole one means that the first was acknowledged.
func wholeAppendBehind(data []byte, from int) int {
	const lookBack = 4 // entries may contain what looks like a commit frame
	var starts []int
	for off := (from + 7) &^ 7; off+segFrameHeader <= len(data); off += segFrameHeader {
		if data[off] != segment.FrameCommit || data[off+1]|data[off+2]|data[off+3] != 0 {
			continue
		}
		sum := binary.LittleEndian.Uint32(data[off+4:])
		for _, s := range starts[max(0, len(starts)-lookBack):] {
			if s < off && crc32.Checksum(data[s:off], castagnoli) == sum {
				return from
			}
		}
		starts = append(starts, off+segFrameHeader)
	}
	return -1
}
