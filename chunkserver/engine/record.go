package engine

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
)

const (
	sector = 512  // a power cut leaves it old or new; records start at its multiples
	page   = 4096 // batches start at its multiples: no write touches a synced page

	formatVersion = 1
	recordMagic   = 0x41444252 // "ADBR"

	kindBlock     = 1
	kindTombstone = 2

	// Offsets in a record header. The checksum stands where every version
	// keeps it, so that a newer record is told from a damaged one.
	recSums  = 80
	recSumsN = chunk.MaxBlock / chunk.SumStride
	recCRC   = sector - 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func crc(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

func alignUp(n, to int64) int64 { return (n + to - 1) / to * to }

// record is a record header. All integers are big endian:
//
//	 0 magic u32    4 version u8   5 kind u8    6 zero u16
//	 8 nonce u64   16 offset u64  24 batch u64
//	32 id 16 bytes (zero in a tombstone)
//	48 owner: group u32, drive u64, session u64, epoch u64
//	76 length u32  80 checksums, 64 x u32, unused ones zero
//	336 zero      508 CRC32C of bytes 0 to 508
type record struct {
	kind   uint8
	nonce  uint64 // of the segment's generation
	offset int64  // of this header in its segment
	batch  int64  // offset at which the record's batch began
	id     chunk.BlockID
	owner  chunk.Owner
	length uint32 // bytes of data
	sums   []uint32
}

// size is the space of a record with that much data.
func recordSize(length uint32) int64 { return sector + alignUp(int64(length), sector) }

func (r *record) encode() []byte {
	b := make([]byte, sector)
	be := binary.BigEndian
	be.PutUint32(b[0:], recordMagic)
	b[4], b[5] = formatVersion, r.kind
	be.PutUint64(b[8:], r.nonce)
	be.PutUint64(b[16:], uint64(r.offset))
	be.PutUint64(b[24:], uint64(r.batch))
	copy(b[32:48], r.id[:])
	be.PutUint32(b[48:], r.owner.Group)
	be.PutUint64(b[52:], r.owner.Drive)
	be.PutUint64(b[60:], r.owner.Session)
	be.PutUint64(b[68:], r.owner.Epoch)
	be.PutUint32(b[76:], r.length)
	for i, s := range r.sums {
		be.PutUint32(b[recSums+4*i:], s)
	}
	be.PutUint32(b[recCRC:], crc(b[:recCRC]))
	return b
}

// hasRecordMagic is the cheap test before decodeRecord.
func hasRecordMagic(b []byte) bool {
	return len(b) >= sector && binary.BigEndian.Uint32(b) == recordMagic
}

// decodeRecord reads one sector. Kind errs.Corrupt, or errs.Version for an
// intact record of a newer format. What it accepts, encode reproduces.
func decodeRecord(b []byte) (record, error) {
	bad := func(format string, args ...any) (record, error) {
		return record{}, errs.E("record.decode", errs.Corrupt, fmt.Sprintf(format, args...), nil)
	}
	be := binary.BigEndian
	if !hasRecordMagic(b) {
		return bad("no record here")
	}
	if be.Uint32(b[recCRC:]) != crc(b[:recCRC]) {
		return bad("header fails its checksum")
	}
	if b[4] > formatVersion {
		return record{}, errVersion("record.decode", b[4])
	}
	r := record{
		kind:   b[5],
		nonce:  be.Uint64(b[8:]),
		offset: int64(be.Uint64(b[16:])),
		batch:  int64(be.Uint64(b[24:])),
		owner:  chunk.Owner{Group: be.Uint32(b[48:]), Drive: be.Uint64(b[52:]), Session: be.Uint64(b[60:]), Epoch: be.Uint64(b[68:])},
		length: be.Uint32(b[76:]),
	}
	copy(r.id[:], b[32:48])
	switch {
	case b[4] == 0 || b[6] != 0 || b[7] != 0:
		return bad("version %d, flags %x", b[4], b[6:8])
	case r.kind != kindBlock && r.kind != kindTombstone:
		return bad("kind %d", r.kind)
	case r.offset < dataStart || r.batch < dataStart || r.batch > r.offset || r.offset%sector != 0 || r.batch%page != 0:
		return bad("offset %d in a batch at %d", r.offset, r.batch)
	case r.length == 0 || r.length > chunk.MaxBlock:
		return bad("length %d", r.length)
	case r.kind == kindTombstone && (r.length%16 != 0 || r.length > 16*chunk.MaxPerCall || r.id != chunk.BlockID{} || r.owner != chunk.Owner{}):
		return bad("malformed tombstone")
	}
	n := chunk.Strides(r.length)
	r.sums = make([]uint32, n)
	for i := range r.sums {
		r.sums[i] = be.Uint32(b[recSums+4*i:])
	}
	for _, z := range b[recSums+4*n : recCRC] {
		if z != 0 {
			return bad("bytes after the checksums are not zero")
		}
	}
	return r, nil
}

func errVersion(op string, v uint8) error {
	return errs.E(op, errs.Version, fmt.Sprintf("written in format %d, this program knows up to %d", v, formatVersion), nil).
		WithHint("upgrade this program to the version that wrote the store")
}

// tombstoneData joins ids to the data of a tombstone record.
func tombstoneData(ids []chunk.BlockID) []byte {
	b := make([]byte, 0, 16*len(ids))
	for _, id := range ids {
		b = append(b, id[:]...)
	}
	return b
}

// tombstoneIDs splits the data of a tombstone record.
func tombstoneIDs(data []byte) []chunk.BlockID {
	ids := make([]chunk.BlockID, len(data)/16)
	for i := range ids {
		copy(ids[i][:], data[16*i:])
	}
	return ids
}
