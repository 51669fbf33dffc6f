package engine

import (
	"bytes"
	"testing"

	"agentdrive/chunkserver/chunk"
	"agentdrive/chunkserver/chunktest"
	"agentdrive/internal/wire"
)

func sampleRecords() []record {
	b := chunktest.Block(1, chunk.SumStride+1)
	data := tombstoneData([]chunk.BlockID{{1}, {2}})
	return []record{
		{kind: kindBlock, nonce: 1, offset: dataStart, batch: dataStart, id: b.ID, owner: b.Owner, length: uint32(len(b.Data)), sums: b.Sums},
		{kind: kindTombstone, nonce: 1<<64 - 1, offset: dataStart + page + sector, batch: dataStart + page, length: uint32(len(data)), sums: chunk.Sums(data)},
	}
}

// fixCRC lets the fuzzer past the checksum that ends every sector format.
func fixCRC(b []byte) []byte {
	b = bytes.Clone(b)
	if len(b) >= sector {
		copy(b[recCRC:], be32(crc(b[:recCRC])))
	}
	return b
}

// Whatever a decoder accepts, the encoder gives back.
func FuzzRecord(f *testing.F) {
	for _, r := range sampleRecords() {
		f.Add(r.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, fixCRC(b)} {
			r, err := decodeRecord(b)
			if err != nil {
				continue
			}
			if r.length > chunk.MaxBlock || len(r.sums) != chunk.Strides(r.length) {
				t.Fatalf("accepted %+v", r)
			}
			if !bytes.Equal(r.encode(), b[:sector]) {
				t.Fatalf("%x decodes and encodes to %x", b[:sector], r.encode())
			}
		}
	})
}

func FuzzSegmentHeader(f *testing.F) {
	f.Add((&header{state: stateData, nonce: 5, seq: 6, size: minSegment}).encode())
	f.Add((&header{state: stateFree, size: defaultSegment}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, fixCRC(b)} {
			if h, err := decodeHeader(b); err == nil && !bytes.Equal(h.encode(), b[:sector]) {
				t.Fatalf("%x decodes and encodes to %x", b[:sector], h.encode())
			}
		}
	})
}

func FuzzTrailer(f *testing.F) {
	f.Add((&trailer{nonce: 5, end: dataStart, footer: dataStart, length: 100, sum: 7}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, fixCRC(b)} {
			tr, err := decodeTrailer(b, minSegment)
			if err != nil {
				continue
			}
			if tr.footer+int64(tr.length) > minSegment || tr.end > tr.footer {
				t.Fatalf("accepted %+v", tr)
			}
			if !bytes.Equal(tr.encode(), b[:sector]) {
				t.Fatalf("%x decodes and encodes to %x", b[:sector], tr.encode())
			}
		}
	})
}

func FuzzFooter(f *testing.F) {
	for _, entries := range [][]entry{nil,
		{{kind: kindBlock, id: chunk.BlockID{1}, off: dataStart / sector, length: 100, owner: chunk.Owner{Group: 1}},
			{kind: kindTombstone, id: chunk.BlockID{1}, off: dataStart/sector + 2}},
	} {
		f.Add(wire.Marshal(nil, formatVersion, &footer{entries}))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := decodeFooter(b, minSegment)
		if err != nil {
			return
		}
		if got := wire.Marshal(nil, formatVersion, &footer{entries}); !bytes.Equal(got, b) {
			t.Fatalf("%x decodes and encodes to %x", b, got)
		}
		for _, e := range entries {
			if int64(e.off)*sector+recordSize(e.length) > minSegment {
				t.Fatalf("entry %+v lies outside", e)
			}
		}
	})
}

func FuzzIdentity(f *testing.F) {
	id := identity{chunktest.Cluster, testServer}
	f.Add(id.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if n := len(identityMagic); len(b) > n+4 {
			b = bytes.Clone(b)
			copy(b[n:], be32(crc(b[n+4:])))
		}
		if id, err := decodeIdentity(b); err == nil && !bytes.Equal(id.encode(), b) {
			t.Fatalf("%x decodes and encodes to %x", b, id.encode())
		}
	})
}

// An entry takes no more room than the segment keeps for it.
func TestFooterRoom(t *testing.T) {
	const big = 1<<64 - 1
	e := entry{kind: kindBlock, off: 1<<32 - 1, length: chunk.MaxBlock, owner: chunk.Owner{Group: 1<<32 - 1, Drive: big, Session: big, Epoch: big}}
	for _, n := range []int{0, 1, 1000} {
		f := footer{make([]entry, n)}
		for i := range f.entries {
			f.entries[i] = e
		}
		if got := int64(len(wire.Marshal(nil, formatVersion, &f))); alignUp(got, page)+page > footerRoom(n) {
			t.Errorf("%d entries take %d bytes, room is %d", n, got, footerRoom(n))
		}
	}
}
