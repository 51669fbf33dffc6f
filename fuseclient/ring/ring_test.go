package ring

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"agentdrive/internal/errs"
)

func newRing(t *testing.T) *Ring {
	t.Helper()
	r, err := Create(MinSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// reopen maps the ring as the next daemon would.
func reopen(t *testing.T, r *Ring) (*Ring, error) {
	t.Helper()
	fd, err := unix.FcntlInt(uintptr(r.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return Open(fd)
}

func live(t *testing.T, r *Ring) (list []string) {
	t.Helper()
	if err := r.Live(func(x Record) bool {
		list = append(list, fmt.Sprintf("%d %d %d %s %s", x.Kind, x.Unique, x.Seq, x.Op, x.Result))
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

// TestRandom drives a ring beside a list, across many wraps, and compares what
// the next daemon finds with what was not given back.
func TestRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 2))
	r := newRing(t)
	var want []Record
	seq := map[Kind]uint64{}
	full := 0
	for step := range 20000 {
		switch rnd.IntN(8) {
		case 0:
			if n := len(want); n > 0 {
				x := want[rnd.IntN(n)]
				if x.Kind == Sync {
					r.Done(Sync, x.Seq)
				} else {
					r.DoneUpTo(x.Seq)
				}
				kept := want[:0]
				for _, y := range want {
					if y.Kind != x.Kind || y.Kind == Sync && y.Seq != x.Seq || y.Kind == Local && y.Seq > x.Seq {
						kept = append(kept, y)
					}
				}
				want = kept
			}
		default:
			k := Kind(1 + rnd.IntN(2))
			seq[k]++
			x := Record{Kind: k, Unique: rnd.Uint64() >> 1, Seq: seq[k],
				Op: bytes.Repeat([]byte{'o'}, rnd.IntN(2000)), Result: bytes.Repeat([]byte{'r'}, rnd.IntN(300))}
			switch err := r.Append(x); {
			case err == nil:
				want = append(want, x)
			case errs.Is(err, errs.NoSpace):
				full++
				for len(want) > 3 { // the log moves
					r.Done(want[0].Kind, want[0].Seq)
					want = want[1:]
				}
			default:
				t.Fatal(err)
			}
		}
		if step%500 == 0 {
			next, err := reopen(t, r)
			if err != nil {
				t.Fatal(err)
			}
			got := live(t, next)
			if len(got) != len(want) {
				t.Fatalf("%d records, want %d", len(got), len(want))
			}
			for i, x := range want {
				if w := fmt.Sprintf("%d %d %d %s %s", x.Kind, x.Unique, x.Seq, x.Op, x.Result); got[i] != w {
					t.Fatalf("record %d: %q, want %q", i, got[i], w)
				}
			}
			if err := next.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if full == 0 || r.tail() < 4*r.size {
		t.Fatalf("the ring was full %d times after %d bytes: the test tests nothing", full, r.tail())
	}
	for _, x := range want {
		r.Done(x.Kind, x.Seq)
	}
	if r.Used() != 0 {
		t.Fatalf("%d bytes are taken by nothing", r.Used())
	}
}

// TestKilledWhileAppending copies the memory as it is before the tail moves:
// whatever was written of the record, the next daemon finds what was there.
func TestKilledWhileAppending(t *testing.T) {
	r := newRing(t)
	first := Record{Kind: Local, Unique: 7, Seq: 1, Op: []byte("op"), Result: []byte("res")}
	if err := r.Append(first); err != nil {
		t.Fatal(err)
	}
	tail := r.tail()
	if err := r.Append(Record{Kind: Local, Unique: 8, Seq: 2, Op: []byte("lost")}); err != nil {
		t.Fatal(err)
	}
	end := r.tail()
	r.setTail(tail)
	for at := tail; at < end; at++ {
		r.data[at] ^= 0xff // whatever stood there
		next, err := reopen(t, r)
		if err != nil {
			t.Fatal(err)
		}
		if got := live(t, next); len(got) != 1 || got[0] != "1 7 1 op res" {
			t.Fatalf("found %q", got)
		}
		if err := next.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDamageIsRefused(t *testing.T) {
	r := newRing(t)
	for i := range uint64(3) {
		if err := r.Append(Record{Kind: Sync, Seq: i, Op: []byte("some operation"), Result: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	for at := uint64(0); at < r.tail(); at++ {
		n := uint64(recordHead + 15)
		slot := (n + align - 1) &^ (align - 1)
		if off := at % slot; off >= n || off >= 8 && off < 12 {
			continue // padding, and the state, which is checked by its value
		}
		r.data[at] ^= 0x10
		next, err := reopen(t, r)
		if !errs.Is(err, errs.Corrupt) {
			t.Fatalf("byte %d: %v", at, err)
		}
		if next != nil {
			t.Fatal("a ring besides the error")
		}
		r.data[at] ^= 0x10
	}
	binary.LittleEndian.PutUint64(r.mem, 1)
	if _, err := reopen(t, r); !errs.Is(err, errs.Corrupt) {
		t.Fatalf("wrong magic: %v", err)
	}
}

// TestRewind: an empty ring begins again at the front.
func TestRewind(t *testing.T) {
	r, err := Create(4 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for seq := uint64(1); r.tail() <= rewindAt; seq++ {
		if err := r.Append(Record{Kind: Local, Seq: seq, Op: make([]byte, 4000)}); err != nil {
			t.Fatal(err)
		}
	}
	r.DoneUpTo(1 << 60)
	if r.tail()%r.size != 0 || r.Used() != 0 {
		t.Fatalf("the next record stands at byte %d of %d", r.tail()%r.size, r.size)
	}
	if err := r.Append(Record{Kind: Local, Seq: 1, Op: []byte("front")}); err != nil {
		t.Fatal(err)
	}
	next, err := reopen(t, r)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if got := live(t, next); len(got) != 1 || got[0] != "1 0 1 front " {
		t.Fatalf("found %q", got)
	}
}

func TestBounds(t *testing.T) {
	if _, err := Create(10); !errs.Is(err, errs.Invalid) {
		t.Fatal(err)
	}
	r := newRing(t)
	if err := r.Append(Record{Kind: Local, Seq: 1, Op: make([]byte, MinSize)}); !errs.Is(err, errs.NoSpace) {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(r.FD(), 4096); err == nil {
		t.Fatal("the memory can be cut under a reader")
	}
}

func FuzzDecode(f *testing.F) {
	r, err := Create(MinSize)
	if err != nil {
		f.Fatal(err)
	}
	if err := r.Append(Record{Kind: Local, Unique: 1, Seq: 2, Op: []byte("abc"), Result: []byte("d")}); err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.Clone(r.data[:r.tail()]))
	f.Add([]byte{8, 0, 0, 0, 0, 0, 0, 0})
	if err := r.Close(); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, n, state, err := decode(b)
		if err == nil && (n == 0 || n > uint64(len(b)) || state != statePad && rec.Kind != Local && rec.Kind != Sync) {
			t.Fatalf("decoded %+v of %d bytes, state %d", rec, n, state)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	r, err := Create(16 << 20)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	rec := Record{Kind: Local, Op: make([]byte, 120), Result: make([]byte, 120)}
	for i := range b.N {
		rec.Seq = uint64(i + 1)
		if err := r.Append(rec); err != nil {
			b.Fatal(err)
		}
		if i%1000 == 999 {
			r.DoneUpTo(rec.Seq)
		}
	}
}
