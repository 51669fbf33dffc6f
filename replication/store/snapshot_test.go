package store

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"testing"

	"agentdrive/internal/errs"
	"agentdrive/internal/wire"
)

func exported(t *testing.T, s *Store) []byte {
	t.Helper()
	v := mustView(t, s)
	defer v.Release()
	var b bytes.Buffer
	if err := v.Export(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestExportRestore(t *testing.T) {
	src := open(t, t.TempDir())
	for i := uint64(1); i <= 34; i++ { // two split commits, several chunks
		apply(t, src, i)
	}
	tx, err := src.Begin()
	if err != nil {
		t.Fatal(err)
	}
	tx.SetMeta("peers", []byte("three"))
	if err := tx.Commit(35, 9); err != nil {
		t.Fatal(err)
	}
	stream := exported(t, src)

	dir := t.TempDir()
	dst := open(t, dir)
	commit1(t, dst, 3, "old", "1")
	old := mustView(t, dst)
	if err := dst.Restore(bytes.NewReader(stream)); err != nil {
		t.Fatal(err)
	}
	if at := dst.Applied(); at != (Applied{35, 9}) {
		t.Fatalf("applied %v", at)
	}
	if d, err := dst.Durable(); err != nil || d != 35 {
		t.Fatalf("durable %d %v", d, err)
	}
	if got := contents(t, old); !maps.Equal(got, map[string]string{"old": "1"}) {
		t.Fatalf("view from before sees %d keys", len(got))
	}
	old.Release()
	a, b := mustView(t, src), mustView(t, dst)
	defer a.Release()
	defer b.Release()
	if !maps.Equal(contents(t, a), contents(t, b)) {
		t.Fatal("restored state differs")
	}
	if m, ok, err := b.Meta("peers"); err != nil || !ok || string(m) != "three" {
		t.Fatalf("meta %q %v %v", m, ok, err)
	}
	if !bytes.Equal(exported(t, dst), stream) {
		t.Fatal("export of the restored state differs")
	}
	apply(t, dst, 36)

	cut := t.TempDir()
	copyStore(t, dir, cut)
	after := open(t, cut)
	if at := after.Applied().Index; at != 35 {
		t.Fatalf("after a power cut: applied %d", at)
	}
}

// cutReader fails after n bytes.
type cutReader struct {
	r io.Reader
	n int
}

var errCut = errors.New("connection lost")

func (c *cutReader) Read(p []byte) (int, error) {
	if c.n == 0 {
		return 0, errCut
	}
	n, err := c.r.Read(p[:min(len(p), c.n)])
	c.n -= n
	return n, err
}

func TestRestoreFailureKeepsOld(t *testing.T) {
	src := open(t, t.TempDir())
	for i := uint64(1); i <= 3; i++ {
		apply(t, src, i)
	}
	stream := exported(t, src)
	dir := t.TempDir()
	dst := open(t, dir)
	commit1(t, dst, 1, "old", "1")
	for _, n := range []int{0, 4, 20, len(stream) / 2, len(stream) - 1} {
		if err := dst.Restore(&cutReader{bytes.NewReader(stream), n}); !errors.Is(err, errCut) {
			t.Fatalf("cut at %d: %v", n, err)
		}
		if err := dst.Restore(bytes.NewReader(stream[:n])); !errs.Is(err, errs.Corrupt) {
			t.Fatalf("short stream of %d: %v", n, err)
		}
	}
	for _, off := range []int{0, 10, 14, 30, len(stream) / 2, len(stream) - 1} {
		bad := bytes.Clone(stream)
		bad[off] ^= 1
		if err := dst.Restore(bytes.NewReader(bad)); !errs.Is(err, errs.Corrupt) && !errs.Is(err, errs.Version) {
			t.Fatalf("flipped byte %d: %v", off, err)
		}
	}
	v := mustView(t, dst)
	defer v.Release()
	if got := contents(t, v); !maps.Equal(got, map[string]string{"old": "1"}) {
		t.Fatalf("old state is gone: %d keys", len(got))
	}
	if _, err := os.Stat(generationDir(dir, 2)); err == nil {
		t.Fatal("failed restore left its files")
	}
}

// TestCrashDuringRestore opens copies taken before and after the switch.
func TestCrashDuringRestore(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	commit1(t, s, 1, "old", "1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	half := t.TempDir()
	copyStore(t, dir, half)
	if err := os.MkdirAll(generationDir(half, 2), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(generationDir(half, 2)+"/000001.sst", []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	s2 := open(t, half)
	if s2.Applied().Index != 1 {
		t.Fatalf("applied %v", s2.Applied())
	}
	if _, err := os.Stat(generationDir(half, 2)); err == nil {
		t.Fatal("left-over stays")
	}
}

func FuzzStream(f *testing.F) {
	var b bytes.Buffer
	w, err := newStreamWriter(&b)
	if err != nil {
		f.Fatal(err)
	}
	for _, fr := range []*frame{
		{Kind: frameHeader, Applied: Applied{3, 1}},
		{Kind: frameChunk, Seq: 1, Pairs: []pair{{[]byte("ua"), []byte("1")}, {[]byte("ub"), nil}}},
		{Kind: frameEnd, Seq: 1, Count: 2},
	} {
		if err := w.frame(fr); err != nil {
			f.Fatal(err)
		}
	}
	if err := w.w.Flush(); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(streamMagic))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, at, err := newStreamReader(bytes.NewReader(in))
		if err != nil {
			return
		}
		var out bytes.Buffer
		w, err := newStreamWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.frame(&frame{Kind: frameHeader, Applied: at}); err != nil {
			t.Fatal(err)
		}
		for {
			pairs, err := r.chunk()
			if err != nil {
				return
			}
			if pairs == nil {
				break
			}
			if err := w.frame(&frame{Kind: frameChunk, Seq: r.chunks, Pairs: pairs}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.frame(&frame{Kind: frameEnd, Seq: r.chunks, Count: r.pairs}); err != nil {
			t.Fatal(err)
		}
		if err := w.w.Flush(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), in) {
			t.Fatal("a stream that decodes does not encode to itself")
		}
	})
}

func FuzzFrame(f *testing.F) {
	f.Add(wire.Marshal(nil, streamVersion, &frame{Kind: frameEnd, Seq: 1, Count: 2}))
	f.Fuzz(func(t *testing.T, in []byte) {
		var fr frame
		if err := wire.Unmarshal(in, streamVersion, &fr); err != nil {
			return
		}
		if !bytes.Equal(wire.Marshal(nil, streamVersion, &fr), in) {
			t.Fatal("not canonical")
		}
	})
}
