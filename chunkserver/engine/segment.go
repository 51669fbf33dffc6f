package engine

import (
	crand "crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"path"
	"sync/atomic"

	"agentdrive/internal/disk"
	"agentdrive/internal/errs"
	"agentdrive/internal/wire"
)

// segment is one segment file. num, file, name and size never change; nonce
// and seq change only while the segment is free and nobody else knows it.
type segment struct {
	num   uint32
	name  string
	file  disk.File
	size  int64
	nonce uint64
	seq   uint64

	readers atomic.Int32 // reads in flight; only rises under Store.mu

	// Guarded by Store.mu.
	sealed  bool
	damaged bool   // a record fails its checks: not compacted while blocks live here
	keep    bool   // never recycled: records or footer cannot be read, which is evidence
	live    int64  // bytes of the records that the index points at
	needed  int    // tombstones still needed when last counted
	counted uint64 // Store.freeGen+1 of that time; 0 never

	// Belongs to the committer while the segment is active, then never
	// changes. entries is dropped when a good footer holds it.
	end     int64 // offset after the last record
	entries []entry
}

func segmentName(num uint32) string { return fmt.Sprintf("seg-%08d", num) }

// parseSegmentName is the inverse of segmentName.
func parseSegmentName(name string) (num uint32, ok bool) {
	if _, err := fmt.Sscanf(name, "seg-%d", &num); err != nil {
		return 0, false
	}
	return num, num > 0 && segmentName(num) == name
}

// writeHeader writes both copies of the header and syncs.
func (g *segment) writeHeader(state uint8) error {
	h := header{state: state, nonce: g.nonce, seq: g.seq, size: g.size}
	b := h.encode()
	for _, off := range []int64{0, page} {
		if _, err := g.file.WriteAt(b, off); err != nil {
			return err
		}
	}
	return g.file.Sync()
}

// activate gives a free segment a new life.
func (g *segment) activate(seq uint64) error {
	nonce, err := newNonce()
	if err != nil {
		return err
	}
	g.nonce, g.seq = nonce, seq
	g.end, g.entries, g.needed, g.counted, g.live = dataStart, nil, 0, 0, 0
	g.sealed, g.damaged, g.keep = false, false, false
	return g.writeHeader(stateData)
}

func newNonce() (uint64, error) {
	var b [8]byte
	if _, err := crand.Read(b[:]); err != nil {
		return 0, errs.E("segment.nonce", errs.IO, "", err)
	}
	return binary.BigEndian.Uint64(b[:]), nil
}

// room tells whether records of size bytes with n footer entries fit behind
// offset end.
func (g *segment) room(end, size int64, n int) bool {
	return alignUp(end+size, page)+footerRoom(n) <= g.size
}

// maxRecord is the largest record that an empty segment of size bytes takes.
func maxRecord(size int64) int64 { return size - dataStart - footerRoom(1) - page }

// seal writes footer and trailer and syncs. All records must be synced.
func (g *segment) seal() error {
	body := wire.Marshal(nil, formatVersion, &footer{g.entries})
	off := alignUp(g.end, page)
	t := trailer{nonce: g.nonce, end: g.end, footer: off, length: uint32(len(body)), sum: crc(body)}
	// Whole pages: a partial one would be read first.
	if _, err := g.file.WriteAt(padded(body), off); err != nil {
		return err
	}
	if _, err := g.file.WriteAt(padded(t.encode()), g.size-page); err != nil {
		return err
	}
	return g.file.Sync()
}

func padded(b []byte) []byte {
	return append(b, make([]byte, alignUp(int64(len(b)), page)-int64(len(b)))...)
}

// readTrailer returns the trailer of this generation, or ok=false.
func (g *segment) readTrailer() (t trailer, ok bool, err error) {
	var b [sector]byte
	if err := readFull(g.file, b[:], g.size-page); err != nil {
		return t, false, err
	}
	t, err = decodeTrailer(b[:], g.size)
	if errs.Is(err, errs.Version) {
		return t, false, errs.E("segment.open", errs.Other, g.name, err)
	}
	return t, err == nil && t.nonce == g.nonce, nil
}

// readFooter returns the entries that a trailer points at; kind errs.Corrupt
// when they fail their checks.
func (g *segment) readFooter(t trailer) ([]entry, error) {
	b := make([]byte, t.length)
	if err := readFull(g.file, b, t.footer); err != nil {
		return nil, err
	}
	if crc(b) != t.sum {
		return nil, errs.E("segment.footer", errs.Corrupt, fmt.Sprintf("%s: offset %d: checksum wrong", g.name, t.footer), nil)
	}
	entries, err := decodeFooter(b, t.end)
	if err != nil {
		return nil, errs.E("segment.footer", errs.Other, fmt.Sprintf("%s: offset %d", g.name, t.footer), err)
	}
	return entries, nil
}

// readFull reads all of b; a file that is too short reads as zeros, which no
// check accepts.
func readFull(f disk.File, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	if err == io.EOF {
		clear(b[n:])
		return nil
	}
	return err
}

// loaded is what a segment turned out to hold.
type loaded struct {
	entries []entry
	end     int64
	footer  bool     // entries come from a valid footer
	damage  []Damage // records that fail their checks
	badFoot *Damage  // the footer does; the records were scanned instead
	cut     []int64  // headers behind the torn tail's begin, to be zeroed
}

// load finds the segment's records. last says that no segment was activated
// after this one, so that it may end in a torn batch.
func (g *segment) load(last bool) (loaded, error) {
	t, ok, err := g.readTrailer()
	if err != nil {
		return loaded{}, err
	}
	proven := int64(0)
	if !last {
		proven = g.size // sealed before its successor was activated
	}
	limit := g.size
	var badFoot *Damage
	if ok {
		entries, err := g.readFooter(t)
		if err == nil {
			return loaded{entries: entries, end: t.end, footer: true}, nil
		}
		if !errs.Is(err, errs.Corrupt) {
			return loaded{}, err
		}
		proven, limit = t.end, t.end
		if !last { // else the seal itself may be torn
			badFoot = &Damage{File: g.name, Offset: t.footer, Err: err}
		}
	}
	sc := scanner{seg: g, limit: limit, exact: ok}
	if err := sc.run(); err != nil {
		return loaded{}, err
	}
	l := sc.result(max(proven, sc.proven))
	l.badFoot = badFoot
	return l, nil
}

func (g *segment) path(dir string) string { return path.Join(dir, g.name) }
