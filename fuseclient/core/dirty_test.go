package core

import (
	"bytes"
	"math/rand"
	"testing"
)

const modelSize = 4096

// dirtyModel is a file as an array of bytes with the write each came from.
type dirtyModel struct {
	data [modelSize]byte
	from [modelSize]uint64 // 0 = clean
}

func (m *dirtyModel) check(t *testing.T, d *dirtySet) {
	t.Helper()
	var got [modelSize]byte
	present, pos := 0, uint64(0)
	d.segs.Scan(func(off uint64, s *segment) bool {
		if off != s.off || off < pos || len(s.data) == 0 || off/d.chunk != (s.end()-1)/d.chunk {
			t.Fatalf("segment %d+%d after %d", s.off, len(s.data), pos)
		}
		for i, b := range s.data {
			p := off + uint64(i)
			got[p] = b
			if m.from[p] < s.first || m.from[p] > s.last {
				t.Fatalf("byte %d is of write %d, its segment says %d to %d", p, m.from[p], s.first, s.last)
			}
		}
		if s.backing > 4*len(s.data) {
			t.Fatalf("segment of %d bytes keeps %d alive", len(s.data), s.backing)
		}
		pos, present = s.end(), present+len(s.data)
		return true
	})
	want := 0
	var fill [modelSize]int
	for i, f := range m.from {
		if f != 0 {
			want++
			fill[uint64(i)/d.chunk]++
			if got[i] != m.data[i] {
				t.Fatalf("byte %d: got %d, want %d", i, got[i], m.data[i])
			}
		}
	}
	if present != want || d.bytes != want {
		t.Fatalf("%d bytes present, %d accounted, want %d", present, d.bytes, want)
	}
	for k, n := range fill {
		if d.fill[uint64(k)] != n {
			t.Fatalf("chunk %d filled by %d, want %d", k, d.fill[uint64(k)], n)
		}
	}
}

// runDirty interprets prog, five bytes an instruction.
func runDirty(t *testing.T, prog []byte) {
	const chunkLen = 1024
	d := newDirtySet(chunkLen)
	m := &dirtyModel{}
	seq, fillByte := uint64(0), byte(0)
	next := uint64(0) // where the last write ended: sequential writes are common
	for len(prog) >= 5 {
		in := prog[:5]
		prog = prog[5:]
		off := (uint64(in[1])<<8 | uint64(in[2])) % modelSize
		n := 1 + (uint64(in[3])<<8|uint64(in[4]))%700
		if in[0]%4 == 1 {
			off, n = next%modelSize, 1+n%40
		}
		n = min(n, modelSize-off, chunkLen-off%chunkLen)
		switch in[0] % 16 {
		case 15:
			takeDirty(t, m, d.takeChunk(off))
		case 14:
			takeDirty(t, m, d.takeAll())
		default:
			seq++
			fillByte++
			d.put(off, bytes.Repeat([]byte{fillByte}, int(n)), seq)
			for i := off; i < off+n; i++ {
				m.data[i], m.from[i] = fillByte, seq
			}
			next = off + n
		}
		m.check(t, &d)
		checkScan(t, &d, m, off, off+n)
	}
}

// takeDirty checks that what was taken is a prefix of the writes: everything
// left is newer than everything taken.
func takeDirty(t *testing.T, m *dirtyModel, segs []*segment) {
	t.Helper()
	newest := uint64(0)
	for _, s := range segs {
		for i := range s.data {
			p := s.off + uint64(i)
			if s.data[i] != m.data[p] {
				t.Fatalf("took a wrong byte at %d", p)
			}
			newest = max(newest, m.from[p])
			m.from[p] = 0
		}
	}
	for p, f := range m.from {
		if f != 0 && f < newest {
			t.Fatalf("byte %d of write %d stayed, write %d was taken", p, f, newest)
		}
	}
}

func checkScan(t *testing.T, d *dirtySet, m *dirtyModel, lo, hi uint64) {
	t.Helper()
	seen := 0
	d.scan(lo, hi, func(off uint64, data []byte) {
		for i, b := range data {
			p := off + uint64(i)
			if p < lo || p >= hi || m.from[p] == 0 || m.data[p] != b {
				t.Fatalf("scan of [%d,%d) gives byte %d", lo, hi, p)
			}
			seen++
		}
	})
	for p := lo; p < hi; p++ {
		if m.from[p] != 0 {
			seen--
		}
	}
	if seen != 0 {
		t.Fatalf("scan of [%d,%d) missed bytes", lo, hi)
	}
}

func FuzzDirtySet(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 1, 0, 0, 0, 9, 1, 0, 0, 0, 9, 15, 0, 0, 0, 0})
	rng := rand.New(rand.NewSource(1))
	for range 8 {
		b := make([]byte, 300)
		rng.Read(b)
		f.Add(b)
	}
	f.Fuzz(runDirty)
}

func TestDirtySetRandom(t *testing.T) {
	for seed := int64(0); seed < 60; seed++ {
		b := make([]byte, 500)
		rand.New(rand.NewSource(seed)).Read(b)
		t.Logf("seed %d", seed)
		runDirty(t, b)
	}
}

// TestDirtySetAppends: sequential writes of any size leave few segments.
func TestDirtySetAppends(t *testing.T) {
	for _, size := range []int{1, 100, 4 << 10, 128 << 10, 1 << 20} {
		total := min(32<<20, size*100000)
		d := newDirtySet(4 << 20)
		buf := make([]byte, size)
		seq := uint64(0)
		for off := 0; off < total; {
			n := min(size, 4<<20-off%(4<<20), total-off)
			seq++
			d.put(uint64(off), buf[:n], seq)
			if p := d.before(uint64(off) + 1); p.first != p.last && cap(p.data) != p.backing {
				t.Fatalf("backing says %d, is %d", p.backing, cap(p.data))
			}
			off += n
		}
		if limit := total/(mergeMax/2) + 2*total/(4<<20) + 2; size < mergeMax && d.segs.Len() > limit {
			t.Errorf("%d-byte appends: %d segments for %d bytes, want at most %d", size, d.segs.Len(), total, limit)
		}
		if d.bytes != total {
			t.Errorf("%d-byte appends: %d bytes of %d", size, d.bytes, total)
		}
	}
}

func BenchmarkDirtySetAppend4K(b *testing.B) {
	d := newDirtySet(4 << 20)
	buf := make([]byte, 4<<10)
	b.SetBytes(4 << 10)
	b.ReportAllocs()
	for i := range b.N {
		off := uint64(i) * (4 << 10)
		d.put(off, buf, uint64(i+1))
		if d.full(off) {
			d.takeChunk(off)
		}
	}
}
