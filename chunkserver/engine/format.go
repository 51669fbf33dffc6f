package engine

import (
	"encoding/binary"
	"fmt"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/internal/wire"
)

const (
	dataStart    = 2 * page // after the two copies of the segment header
	headerMagic  = 0x41445347
	trailerMagic = 0x41445354

	stateFree = 1
	stateData = 2

	// A footer entry takes at most 62 bytes encoded.
	footerEntryMax = 64
)

// header is one copy of a segment header, one sector:
//
//	0 magic u32  4 version u8  5 state u8  6 zero u16
//	8 nonce u64  16 sequence u64  24 size u64  32 zero  508 CRC32C
type header struct {
	state uint8
	nonce uint64
	seq   uint64
	size  int64 // bytes of the file
}

func (h *header) encode() []byte {
	b := make([]byte, sector)
	be := binary.BigEndian
	be.PutUint32(b[0:], headerMagic)
	b[4], b[5] = formatVersion, h.state
	be.PutUint64(b[8:], h.nonce)
	be.PutUint64(b[16:], h.seq)
	be.PutUint64(b[24:], uint64(h.size))
	be.PutUint32(b[recCRC:], crc(b[:recCRC]))
	return b
}

func decodeHeader(b []byte) (header, error) {
	const op = "segment.header"
	be := binary.BigEndian
	if err := checkSector(op, b, headerMagic); err != nil {
		return header{}, err
	}
	h := header{state: b[5], nonce: be.Uint64(b[8:]), seq: be.Uint64(b[16:]), size: int64(be.Uint64(b[24:]))}
	if h.state != stateFree && h.state != stateData || b[6] != 0 || b[7] != 0 ||
		h.size < minSegment || h.size > maxSegment || h.size%page != 0 || !allZero(b[32:recCRC]) {
		return header{}, errs.E(op, errs.Corrupt, "impossible values", nil)
	}
	return h, nil
}

// trailer ends a sealed segment, one sector:
//
//	0 magic u32  4 version u8  5 zero  8 nonce u64  16 end of data u64
//	24 footer offset u64  32 footer length u32  36 footer CRC32C u32
//	40 zero  508 CRC32C
type trailer struct {
	nonce  uint64
	end    int64 // offset after the last record
	footer int64
	length uint32
	sum    uint32
}

func (t *trailer) encode() []byte {
	b := make([]byte, sector)
	be := binary.BigEndian
	be.PutUint32(b[0:], trailerMagic)
	b[4] = formatVersion
	be.PutUint64(b[8:], t.nonce)
	be.PutUint64(b[16:], uint64(t.end))
	be.PutUint64(b[24:], uint64(t.footer))
	be.PutUint32(b[32:], t.length)
	be.PutUint32(b[36:], t.sum)
	be.PutUint32(b[recCRC:], crc(b[:recCRC]))
	return b
}

// decodeTrailer reads the trailer of a segment of size bytes.
func decodeTrailer(b []byte, size int64) (trailer, error) {
	const op = "segment.trailer"
	be := binary.BigEndian
	if err := checkSector(op, b, trailerMagic); err != nil {
		return trailer{}, err
	}
	t := trailer{nonce: be.Uint64(b[8:]), end: int64(be.Uint64(b[16:])), footer: int64(be.Uint64(b[24:])),
		length: be.Uint32(b[32:]), sum: be.Uint32(b[36:])}
	if b[5] != 0 || b[6] != 0 || b[7] != 0 || !allZero(b[40:recCRC]) ||
		t.end < dataStart || t.end%sector != 0 || t.footer < t.end || t.footer > size || t.footer+int64(t.length) > size-page {
		return trailer{}, errs.E(op, errs.Corrupt, "impossible values", nil)
	}
	return t, nil
}

// checkSector tests what headers and trailers have in common.
func checkSector(op string, b []byte, magic uint32) error {
	if len(b) < sector || binary.BigEndian.Uint32(b) != magic {
		return errs.E(op, errs.Corrupt, "magic number missing", nil)
	}
	if binary.BigEndian.Uint32(b[recCRC:]) != crc(b[:recCRC]) {
		return errs.E(op, errs.Corrupt, "checksum wrong", nil)
	}
	if b[4] > formatVersion {
		return errVersion(op, b[4])
	}
	if b[4] == 0 {
		return errs.E(op, errs.Corrupt, "version 0", nil)
	}
	return nil
}

func allZero(b []byte) bool {
	for len(b) >= 8 {
		if binary.NativeEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// entry is one line of a footer: a block, or one id of a tombstone record.
// Entries stand in log order.
type entry struct {
	kind   uint8
	id     chunk.BlockID
	off    uint32 // of the record, in sectors
	length uint32 // bytes of data; 0 in a tombstone
	owner  chunk.Owner
}

func (e *entry) wire(c *wire.Coder) {
	c.U8(&e.kind)
	e.id.Wire(c)
	c.U32(&e.off)
	if c.Decoding() && e.kind != kindBlock && e.kind != kindTombstone {
		c.Fail("entry of kind %d", e.kind)
	}
	if e.kind != kindBlock {
		return
	}
	c.U32(&e.length)
	e.owner.Wire(c)
	if c.Decoding() && (e.length == 0 || e.length > chunk.MaxBlock) {
		c.Fail("block of %d bytes", e.length)
	}
}

// footer is the index of a segment's records.
type footer struct{ entries []entry }

// Wire codes the entries.
func (f *footer) Wire(c *wire.Coder) {
	wire.List(c, &f.entries, func(c *wire.Coder, e *entry) { e.wire(c) })
}

// footerRoom is the space, in bytes, that the footer body and the trailer of
// n entries need at most.
func footerRoom(n int) int64 { return alignUp(16+footerEntryMax*int64(n), page) + page }

// decodeFooter reads a footer body and checks it against the segment: entries
// lie inside the data, in ascending order.
func decodeFooter(b []byte, end int64) ([]entry, error) {
	var f footer
	if err := wire.Unmarshal(b, formatVersion, &f); err != nil {
		return nil, errs.E("segment.footer", errs.Other, "", err)
	}
	at := int64(dataStart)
	for i, e := range f.entries {
		off := int64(e.off) * sector
		if off < at || off+recordSize(e.length) > end {
			return nil, errs.E("segment.footer", errs.Corrupt, fmt.Sprintf("entry %d lies at %d", i, off), nil)
		}
		if at = off; e.kind == kindBlock {
			at += recordSize(e.length)
		}
	}
	return f.entries, nil
}
