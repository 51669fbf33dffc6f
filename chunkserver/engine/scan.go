package engine

import (
	"fmt"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
)

// scanner reads a segment without a footer, record by record. After anything
// that is no record it looks for the next header sector by sector.
type scanner struct {
	seg   *segment
	limit int64 // end of the part to scan
	exact bool  // limit is the known end of the data, not of the file

	proven int64 // highest batch offset seen: all before was once synced
	found  []finding
	holes  []hole

	window []byte // of the file, at winOff
	winOff int64
}

// finding is a record with an intact header.
type finding struct {
	rec record
	ids []chunk.BlockID // of a tombstone
	err error           // its data fail the checks
}

// hole is a stretch without intact headers.
type hole struct {
	off, end int64
	zero     bool // all bytes are zero
}

// padding tells whether the hole can be what follows the last record of a
// batch.
func (h *hole) padding() bool { return h.zero && h.end > h.off && h.end == alignUp(h.off, page) }

func (sc *scanner) run() error {
	open := -1 // index of the hole that reaches the current position
	for pos := int64(dataStart); pos+sector <= sc.limit; {
		head, err := sc.at(pos, sector)
		if err != nil {
			return err
		}
		rec, ok, err := sc.header(head, pos)
		if err != nil {
			return err
		}
		if !ok {
			if open < 0 {
				open = len(sc.holes)
				sc.holes = append(sc.holes, hole{off: pos, zero: true})
			}
			pos += sector
			h := &sc.holes[open]
			h.end, h.zero = pos, h.zero && allZero(head)
			if h.padding() {
				open = -1 // a lost record behind it is a hole of its own
			}
			continue
		}
		open = -1
		f := finding{rec: rec}
		data, err := sc.at(pos+sector, int64(rec.length))
		if err != nil {
			return err
		}
		if i := chunk.BadStride(data, rec.sums); i >= 0 {
			f.err = errs.E("segment.scan", errs.Corrupt, fmt.Sprintf("%s: offset %d: data checksum %d wrong", sc.seg.name, pos, i), nil)
		} else if rec.kind == kindTombstone {
			f.ids = tombstoneIDs(data)
		}
		sc.found = append(sc.found, f)
		sc.proven = max(sc.proven, rec.batch)
		pos += recordSize(rec.length)
	}
	return nil
}

// header decodes a sector; ok only for a record of this generation at its own
// place that ends before the limit.
func (sc *scanner) header(b []byte, pos int64) (record, bool, error) {
	if !hasRecordMagic(b) {
		return record{}, false, nil
	}
	rec, err := decodeRecord(b)
	if errs.Is(err, errs.Version) {
		return record{}, false, errs.E("segment.scan", errs.Other, fmt.Sprintf("%s: offset %d", sc.seg.name, pos), err)
	}
	ok := err == nil && rec.nonce == sc.seg.nonce && rec.offset == pos && pos+recordSize(rec.length) <= sc.limit
	return rec, ok, nil
}

// at returns n bytes of the file, valid until the next call.
func (sc *scanner) at(off, n int64) ([]byte, error) {
	if off < sc.winOff || off+n > sc.winOff+int64(len(sc.window)) {
		want := min(max(n, 1<<20), sc.seg.size-off)
		if int64(cap(sc.window)) < want {
			sc.window = make([]byte, want)
		}
		sc.window, sc.winOff = sc.window[:want], off
		if err := readFull(sc.seg.file, sc.window, off); err != nil {
			return nil, err
		}
	}
	return sc.window[off-sc.winOff:][:n], nil
}

// result judges what was found: below proven everything was once on stable
// storage, so a failure there is damage; the first failure above it is where
// the torn tail begins.
func (sc *scanner) result(proven int64) loaded {
	l := loaded{end: dataStart}
	cut := sc.limit
	for i, h := range sc.holes {
		tail := h.end+sector > sc.limit && i == len(sc.holes)-1
		switch {
		case !tail && h.padding():
		case tail && !sc.exact: // not written in this generation
			if h.off >= proven {
				cut = min(cut, h.off)
			}
		case h.off >= proven:
			cut = min(cut, h.off)
		default:
			l.damage = append(l.damage, Damage{File: sc.seg.name, Offset: h.off, Lost: true,
				Err: errs.E("segment.scan", errs.Corrupt, fmt.Sprintf("%s: offset %d: no readable record in %d bytes", sc.seg.name, h.off, h.end-h.off), nil)})
		}
	}
	for _, f := range sc.found {
		if f.err != nil && f.rec.offset >= proven {
			cut = min(cut, f.rec.offset)
		}
	}
	for _, f := range sc.found {
		if f.rec.offset >= cut {
			l.cut = append(l.cut, f.rec.offset)
			continue
		}
		l.end = f.rec.offset + recordSize(f.rec.length)
		if f.err != nil {
			l.damage = append(l.damage, Damage{File: sc.seg.name, Offset: f.rec.offset, ID: f.rec.id, Err: f.err})
		}
		l.entries = append(l.entries, f.entries()...)
	}
	return l
}

func (f *finding) entries() []entry {
	off := uint32(f.rec.offset / sector)
	if f.rec.kind == kindBlock {
		return []entry{{kind: kindBlock, id: f.rec.id, off: off, length: f.rec.length, owner: f.rec.owner}}
	}
	entries := make([]entry, len(f.ids))
	for i, id := range f.ids {
		entries[i] = entry{kind: kindTombstone, id: id, off: off}
	}
	return entries
}
