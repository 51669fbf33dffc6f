package consensus

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"

	"agentdrive/internal/errs"
)

// segFile builds a segment as raft-wal writes it.
type segFile struct {
	b       bytes.Buffer
	sumFrom int
}

func newSegFile() *segFile {
	f := &segFile{}
	f.b.Write(make([]byte, segHeaderLen))
	return f
}

func (f *segFile) frame(typ byte, payload []byte) {
	head := make([]byte, segFrameHeader)
	head[0] = typ
	binary.LittleEndian.PutUint32(head[4:], uint32(len(payload)))
	f.b.Write(head)
	f.b.Write(payload)
	f.b.Write(make([]byte, -len(payload)&7))
}

func (f *segFile) commit() int {
	head := make([]byte, segFrameHeader)
	head[0] = segment.FrameCommit
	binary.LittleEndian.PutUint32(head[4:], crc32.Checksum(f.b.Bytes()[f.sumFrom:], castagnoli))
	f.b.Write(head)
	f.sumFrom = f.b.Len()
	return f.b.Len()
}

// threeAppends has 2 + 1 + 1 entries, and zeros behind; ends are the offsets
// behind each append.
func threeAppends() (data []byte, ends [3]int) {
	f := newSegFile()
	f.frame(segment.FrameEntry, []byte("first"))
	f.frame(segment.FrameEntry, []byte("second entry"))
	ends[0] = f.commit()
	f.frame(segment.FrameEntry, bytes.Repeat([]byte("x"), 100))
	ends[1] = f.commit()
	f.frame(segment.FrameEntry, []byte("last"))
	ends[2] = f.commit()
	return append(f.b.Bytes(), make([]byte, 512)...), ends
}

func TestScanTail(t *testing.T) {
	whole, ends := threeAppends()
	for _, c := range []struct {
		name    string
		damage  func(b []byte) []byte
		end     int
		entries uint64
		bad     int
	}{
		{"whole", func(b []byte) []byte { return b }, ends[2], 4, -1},
		{"empty", func(b []byte) []byte { return make([]byte, len(b)) }, 0, 0, -1},
		{"no bytes", func(b []byte) []byte { return nil }, 0, 0, -1},
		{"cut in the last append", func(b []byte) []byte { return b[:ends[2]-4] }, ends[1], 3, -1},
		{"last commit frame lost", func(b []byte) []byte { clear(b[ends[2]-8:]); return b }, ends[1], 3, -1},
		{"last payload torn", func(b []byte) []byte { b[ends[1]+9] ^= 1; return b }, ends[1], 3, -1},
		{"last header torn", func(b []byte) []byte { clear(b[ends[1] : ends[1]+8]); return b }, ends[1], 3, -1},
		{"payload of an earlier append", func(b []byte) []byte { b[ends[0]+20] ^= 1; return b }, ends[0], 2, ends[0]},
		{"header of an earlier append", func(b []byte) []byte { b[ends[0]] = 77; return b }, ends[0], 2, ends[0]},
		{"length of an earlier append", func(b []byte) []byte { b[ends[0]+6] = 0xff; return b }, ends[0], 2, ends[0]},
		{"first append", func(b []byte) []byte { b[0] ^= 1; return b }, 0, 0, 0},
	} {
		tail, bad := scanTail(c.damage(bytes.Clone(whole)))
		if tail.end != c.end || tail.entries != c.entries || bad != c.bad {
			t.Errorf("%s: %+v, damage at %d; want end %d, %d entries, damage at %d", c.name, tail, bad, c.end, c.entries, c.bad)
		}
	}
}

func FuzzScanTail(f *testing.F) {
	whole, ends := threeAppends()
	f.Add(whole)
	f.Add(whole[:ends[1]+3])
	f.Fuzz(func(t *testing.T, data []byte) {
		tail, bad := scanTail(data)
		if tail.end < 0 || tail.end > len(data) || bad > len(data) {
			t.Fatalf("%+v %d of %d", tail, bad, len(data))
		}
		if bad >= 0 {
			return
		}
		cleared := bytes.Clone(data)
		clear(cleared[tail.end:])
		if again, bad := scanTail(cleared); bad >= 0 || again != tail {
			t.Fatalf("after clearing: %+v %d, before %+v", again, bad, tail)
		}
	})
}

// TestInterruptedRotation: the crash that fills a segment but is not recorded
// leaves raft-wal alone unable to append.
func TestInterruptedRotation(t *testing.T) {
	durable := fixedDurable(0)
	cfg := Config{Log: quiet(), Tuning: fastTuning()}
	cfg.Tuning.SegmentSize = 8 << 10
	never := func(err error) { t.Error(err) }
	vfs := newCrashVFS()
	l, err := openLog(t.TempDir(), logSeams{vfs, vfs}, &durable, never, &cfg)
	if err != nil {
		t.Fatal(err)
	}
	before := cloneState(vfs.state)
	last := uint64(0)
	segments := func() int {
		vfs.mu.Lock()
		defer vfs.mu.Unlock()
		return len(vfs.state.Segments)
	}
	for segments() == len(before.Segments) { // the next append waits for a rotation under way
		last++
		if err := l.StoreLog(&raft.Log{Index: last, Term: 1, Data: make([]byte, 1000)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	vfs.mu.Lock()
	first := segment.FileName(before.Segments[0])
	for name := range vfs.files {
		if name != first {
			delete(vfs.files, name)
		}
	}
	vfs.state = before
	vfs.mu.Unlock()

	l, err = openLog(t.TempDir(), logSeams{vfs, vfs}, &durable, never, &cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	got, err := l.LastIndex()
	if err != nil || got == 0 || got > last {
		t.Fatalf("last %d of %d: %v", got, last, err)
	}
	for i := uint64(1); i <= 5; i++ {
		if err := l.StoreLog(&raft.Log{Index: got + i, Term: 1, Data: []byte("on")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.check(1, got+5); err != nil {
		t.Fatal(err)
	}
}

// TestRestartAfterConflict: raft-wal alone cannot read a segment again whose
// tail was cut.
func TestRestartAfterConflict(t *testing.T) {
	durable := fixedDurable(0)
	cfg := Config{Log: quiet(), Tuning: fastTuning()}
	never := func(err error) { t.Error(err) }
	vfs := newCrashVFS()
	dir := t.TempDir()
	last, term := uint64(0), uint64(1)
	for round := range 4 {
		l, err := openLog(dir, logSeams{vfs, vfs}, &durable, never, &cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.check(1, last); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for i := uint64(1); i <= 10; i++ {
			if err := l.StoreLog(&raft.Log{Index: last + i, Term: term, Data: []byte("entry")}); err != nil {
				t.Fatal(err)
			}
		}
		last += 10
		if err := l.DeleteRange(last-4, last); err != nil {
			t.Fatal(err)
		}
		last -= 5
		term++
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDamageInsideTheTailIsRefused(t *testing.T) {
	dir := t.TempDir()
	durable := fixedDurable(0)
	cfg := Config{Log: quiet(), Tuning: fastTuning()}
	open := func() (*logStore, error) {
		return openLog(dir, logSeams{meta: &metadb.BoltMetaDB{}}, &durable, func(err error) { t.Error(err) }, &cfg)
	}
	l, err := open()
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 10; i++ {
		if err := l.StoreLog(&raft.Log{Index: i, Term: 1, Data: fmt.Appendf(nil, "entry number %d.", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name := dir + "/" + f.Name()
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(b, []byte("entry number 5.")); at > 0 {
			b[at-30] = 0 // somewhere in the frame's header or codec
			b[at] ^= 4
			if err := os.WriteFile(name, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := open(); !errs.Is(err, errs.Corrupt) || errs.HintOf(err) == "" {
		t.Fatal(err)
	}
}
