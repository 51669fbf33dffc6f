package store

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func testOptions(dir string) Options {
	return Options{Dir: dir, Log: quiet(), MemTable: MinMemTable, BlockCache: 4 << 20, IndexCache: 4 << 20}
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(testOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func commit1(t *testing.T, s *Store, index uint64, pairs ...string) {
	t.Helper()
	tx, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		tx.Set([]byte(pairs[i]), []byte(pairs[i+1]))
	}
	if err := tx.Commit(index, 1); err != nil {
		t.Fatal(err)
	}
}

func contents(t *testing.T, v kv.View) map[string]string {
	t.Helper()
	out := map[string]string{}
	last := ""
	err := v.Scan(nil, nil, func(key, val []byte) bool {
		if len(out) > 0 && string(key) <= last {
			t.Fatalf("scan out of order: %q after %q", key, last)
		}
		last = string(key)
		out[last] = string(val)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func mustView(t *testing.T, s *Store) *View {
	t.Helper()
	v, err := s.View()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAgainstModel(t *testing.T) {
	const seed = 42
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	s, err := Open(testOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	model := map[string]string{}
	for index := uint64(1); index <= 150; index++ {
		tx, err := s.Begin()
		if err != nil {
			t.Fatal(err)
		}
		next := maps.Clone(model)
		for range r.IntN(20) {
			k := fmt.Sprintf("k%03d", r.IntN(200))
			if r.IntN(3) == 0 {
				tx.Delete([]byte(k))
				delete(next, k)
			} else {
				v := fmt.Sprintf("%d", index)[:r.IntN(2)] // also empty values
				tx.Set([]byte(k), []byte(v))
				next[k] = v
			}
		}
		if got := contents(t, tx); !maps.Equal(got, next) {
			t.Fatalf("index %d: transaction differs", index)
		}
		if index%10 == 0 {
			tx.Discard()
			continue
		}
		tx.SetMeta("m", fmt.Appendf(nil, "%d", index))
		if err := tx.Commit(index, 7); err != nil {
			t.Fatal(err)
		}
		model = next
		if index%47 == 0 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if s, err = Open(testOptions(dir)); err != nil {
				t.Fatal(err)
			}
			if d, err := s.Durable(); err != nil || d != index {
				t.Fatalf("durable %d after a clean stop at %d: %v", d, index, err)
			}
		}
		v := mustView(t, s)
		if got := contents(t, v); !maps.Equal(got, model) {
			t.Fatalf("index %d: view differs", index)
		}
		if m, ok, err := v.Meta("m"); err != nil || !ok || string(m) != fmt.Sprint(index) {
			t.Fatalf("meta %q %v %v", m, ok, err)
		}
		if v.Applied() != (Applied{index, 7}) {
			t.Fatalf("applied %v", v.Applied())
		}
		v.Release()
	}
}

func TestViewIsolationAndScanBounds(t *testing.T) {
	s := open(t, t.TempDir())
	commit1(t, s, 5, "a", "1", "b", "1", "c", "1", "\xff", "1")
	old := mustView(t, s)
	commit1(t, s, 6, "b", "2", "d", "2")
	if _, err := s.Durable(); err != nil {
		t.Fatal(err)
	}
	if got, _, _ := old.Get([]byte("b")); string(got) != "1" {
		t.Fatalf("old view sees %q", got)
	}
	old.Release()
	v := mustView(t, s)
	defer v.Release()
	for _, c := range []struct {
		lo, hi string
		want   []string
	}{
		{"", "", []string{"a", "b", "c", "d", "\xff"}},
		{"b", "d", []string{"b", "c"}},
		{"bb", "", []string{"c", "d", "\xff"}},
		{"x", "y", nil},
		{"c", "b", nil},
	} {
		var hi []byte
		if c.hi != "" {
			hi = []byte(c.hi)
		}
		var got []string
		if err := v.Scan([]byte(c.lo), hi, func(k, _ []byte) bool { got = append(got, string(k)); return true }); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("scan [%q,%q) = %q, want %q", c.lo, c.hi, got, c.want)
		}
	}
}

func TestCommitRefusals(t *testing.T) {
	s := open(t, t.TempDir())
	commit1(t, s, 5, "a", "1")
	for _, c := range []struct {
		name  string
		index uint64
		key   int
		val   int
	}{{"same index", 5, 1, 1}, {"long key", 6, MaxKey + 1, 1}, {"long value", 6, 1, MaxValue + 1}} {
		tx, err := s.Begin()
		if err != nil {
			t.Fatal(err)
		}
		tx.Set(make([]byte, c.key), make([]byte, c.val))
		if err := tx.Commit(c.index, 1); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	tx, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	tx.Set(bytes.Repeat([]byte{1}, MaxKey), make([]byte, MaxValue))
	if err := tx.Commit(6, 1); err != nil {
		t.Errorf("largest pair: %v", err)
	}
	if s.Applied().Index != 6 {
		t.Errorf("applied %v", s.Applied())
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	_, err := Open(testOptions(dir))
	if !errs.Is(err, errs.Locked) || errs.HintOf(err) == "" {
		t.Fatalf("second open: %v", err)
	}
	if want := fmt.Sprintf("by process %d", os.Getpid()); !bytes.Contains([]byte(err.Error()), []byte(want)) {
		t.Fatalf("holder not named: %v", err)
	}
}

func TestClosed(t *testing.T) {
	s, err := Open(testOptions(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	v := mustView(t, s)
	done := make(chan error, 1)
	go func() { done <- s.Close() }()
	v.Release() // Close waits for this, whichever runs first
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := s.View(); !errs.Is(err, errs.Unavailable) {
		t.Errorf("view: %v", err)
	}
	if _, err := s.Begin(); !errs.Is(err, errs.Unavailable) {
		t.Errorf("begin: %v", err)
	}
	if _, err := s.Durable(); !errs.Is(err, errs.Unavailable) {
		t.Errorf("durable: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func TestDamagedFilesAreRefused(t *testing.T) {
	setup := func(t *testing.T) string {
		dir := t.TempDir()
		s, err := Open(testOptions(dir))
		if err != nil {
			t.Fatal(err)
		}
		for i := uint64(1); i < 200; i++ {
			commit1(t, s, i, fmt.Sprintf("key%d", i), fmt.Sprint(bytes.Repeat([]byte{byte(i)}, 100)))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	flip := func(t *testing.T, name string, off int64) {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, off); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 0x40
		if _, err := f.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("CURRENT", func(t *testing.T) {
		dir := setup(t)
		flip(t, filepath.Join(dir, currentName), 5)
		if _, err := Open(testOptions(dir)); !errs.Is(err, errs.Corrupt) || errs.HintOf(err) == "" {
			t.Fatal(err)
		}
	})
	t.Run("no CURRENT", func(t *testing.T) {
		dir := setup(t)
		if err := os.Remove(filepath.Join(dir, currentName)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(testOptions(dir)); !errs.Is(err, errs.Corrupt) {
			t.Fatal(err)
		}
	})
	t.Run("newer CURRENT", func(t *testing.T) {
		dir := setup(t)
		if err := os.WriteFile(filepath.Join(dir, currentName), []byte{9, 0}, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(testOptions(dir)); !errs.Is(err, errs.Version) {
			t.Fatal(err)
		}
	})
	t.Run("MANIFEST", func(t *testing.T) {
		dir := setup(t)
		flip(t, filepath.Join(dir, "db-1", "MANIFEST"), 18)
		if _, err := Open(testOptions(dir)); !errs.Is(err, errs.Corrupt) {
			t.Fatal(err)
		}
	})
	t.Run("table missing", func(t *testing.T) {
		dir := setup(t)
		tables, _ := filepath.Glob(filepath.Join(dir, "db-1", "*.sst"))
		if len(tables) == 0 {
			t.Fatal("no table")
		}
		if err := os.Remove(tables[0]); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(testOptions(dir)); err == nil {
			t.Fatal("opened without a table")
		}
	})
	t.Run("block", func(t *testing.T) {
		dir := setup(t)
		tables, _ := filepath.Glob(filepath.Join(dir, "db-1", "*.sst"))
		flip(t, tables[0], 1000)
		s := open(t, dir)
		if err := s.Verify(); !errs.Is(err, errs.Corrupt) {
			t.Fatal(err)
		}
	})
}
