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
// opens. It does three things that raft-wal 0.4.0 does not:
//
//   - A crash after the append that filled a segment and before the segment
//     was recorded as sealed leaves a tail that refuses every append for ever.
//     The rotation is finished here.
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
	tail := &state.Segments[len(state.Segments)-1]
	if !tail.SealTime.IsZero() {
		return state, nil
	}
	t, err := m.repair(dir, segment.FileName(*tail))
	if err != nil || t.indexStart == 0 {
		return state, err
	}
	now := time.Now()
	tail.SealTime, tail.IndexStart = now, uint64(t.indexStart)
	tail.MaxIndex = tail.BaseIndex + t.entries - 1
	next := types.SegmentInfo{
		ID: state.NextSegmentID, BaseIndex: tail.MaxIndex + 1, MinIndex: tail.MaxIndex + 1,
		Codec: tail.Codec, SizeLimit: tail.SizeLimit, CreateTime: now,
	}
	m.log.Info("finishing the rotation of a log segment that a crash interrupted", "entries to", tail.MaxIndex)
	state.Segments = append(state.Segments, next)
	state.NextSegmentID++
	return state, m.CommitState(state) // raft-wal makes the missing file
}

// repair looks through the tail segment and zeroes what a torn append left.
func (m *tailRepair) repair(dir, name string) (segTail, error) {
	f, err := m.vfs.OpenWriter(dir, name)
	if errors.Is(err, os.ErrNotExist) {
		return segTail{}, nil // crashed before it was made: raft-wal makes it
	}
	if err != nil {
		return segTail{}, errs.E("consensus.log", errs.IO, "open "+name, err)
	}
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	if err != nil {
		return segTail{}, errors.Join(errs.E("consensus.log", errs.IO, "read "+name, err), f.Close())
	}
	t, bad := scanTail(data)
	if bad >= 0 {
		return segTail{}, errors.Join(errs.E("consensus.log", errs.Corrupt,
			fmt.Sprintf("file %s is damaged at byte %d: whole entries follow", name, bad), nil).WithHint(store.HintRebuild), f.Close())
	}
	end := len(data)
	for end > t.end && data[end-1] == 0 {
		end--
	}
	if end > t.end {
		m.log.Info("clearing an append that a crash tore", "file", name, "from", t.end, "to", end)
		if _, err := f.WriteAt(make([]byte, end-t.end), int64(t.end)); err != nil {
			return segTail{}, errors.Join(errs.E("consensus.log", errs.IO, "clear torn append", err), f.Close())
		}
		if err := f.Sync(); err != nil {
			return segTail{}, errors.Join(errs.E("consensus.log", errs.IO, "clear torn append", err), f.Close())
		}
	}
	return t, f.Close()
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
