package store

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// crashDir, in the environment, makes the test binary write until it is
// killed.
const crashDir = "STORE_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		if err := crashWriter(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

const crashKeys = 4000

// effects are the writes of one commit: a function of the index alone, as
// applying a log entry is. Every 17th commit is larger than one transaction
// of Badger.
func effects(index uint64, set func(key, val []byte), del func(key []byte)) {
	r := rand.New(rand.NewPCG(index, 7))
	n := 60
	if index%17 == 0 {
		n = 3000
	}
	for range n {
		key := fmt.Appendf(nil, "k%04d", r.IntN(crashKeys))
		if r.IntN(8) == 0 {
			del(key)
			continue
		}
		val := make([]byte, 500)
		binary.BigEndian.PutUint64(val, index)
		set(key, val)
	}
}

// crashWriter commits for ever, printing "commit durable" after each.
func crashWriter(dir string) error {
	s, err := Open(testOptions(dir))
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	for index := s.Applied().Index + 1; ; index++ {
		tx, err := s.Begin()
		if err != nil {
			return err
		}
		effects(index, tx.Set, tx.Delete)
		if err := tx.Commit(index, 3); err != nil {
			return err
		}
		d, err := s.Durable()
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%d %d\n", index, d)
		if err := out.Flush(); err != nil {
			return err
		}
	}
}

// TestKillKeepsExactPrefix kills a writer with SIGKILL after a seeded number
// of commits, over and over on the same directory, and compares what is left
// with a replay of the commits up to applied.
func TestKillKeepsExactPrefix(t *testing.T) {
	const seed = 1
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	model := newCrashModel()
	for round := range 3 {
		last, durable := runAndKill(t, dir, 20+r.IntN(120))
		s, err := Open(testOptions(dir))
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		at := s.Applied()
		if at.Index < durable || at.Index > last+1 {
			t.Fatalf("round %d: applied %d, was durable to %d, last commit %d", round, at.Index, durable, last)
		}
		model.check(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		t.Logf("round %d: killed after %d, durable %d, applied %d", round, last, durable, at.Index)
	}
}

// runAndKill runs the writer until it has reported n commits and returns the
// last report.
func runAndKill(t *testing.T, dir string, n int) (last, durable uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	sc := bufio.NewScanner(out)
	for i := 0; sc.Scan(); i++ {
		a, b, _ := strings.Cut(sc.Text(), " ")
		last, _ = strconv.ParseUint(a, 10, 64)
		durable, _ = strconv.ParseUint(b, 10, 64)
		if i == n && !killed {
			killed = true
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); !killed {
		t.Fatalf("writer ended by itself: %v", err)
	}
	return last, durable
}

// crashModel replays effects forward.
type crashModel struct {
	at   uint64
	keys map[string]uint64 // key -> index that wrote it
}

func newCrashModel() *crashModel { return &crashModel{keys: map[string]uint64{}} }

func (m *crashModel) check(t *testing.T, s *Store) {
	t.Helper()
	at := s.Applied().Index
	if at < m.at {
		m.at, m.keys = 0, map[string]uint64{}
	}
	for m.at < at {
		m.at++
		effects(m.at,
			func(key, _ []byte) { m.keys[string(key)] = m.at },
			func(key []byte) { delete(m.keys, string(key)) })
	}
	v := mustView(t, s)
	defer v.Release()
	got := map[string]uint64{}
	if err := v.Scan(nil, nil, func(key, val []byte) bool {
		got[string(key)] = binary.BigEndian.Uint64(val)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	for k, want := range m.keys {
		if got[k] != want {
			t.Fatalf("applied %d: %s written by %d, want %d", at, k, got[k], want)
		}
		// Get takes another path through Badger than Scan.
		val, ok, err := v.Get([]byte(k))
		if err != nil || !ok || binary.BigEndian.Uint64(val) != want {
			t.Fatalf("applied %d: get %s: %v %v", at, k, ok, err)
		}
	}
	if len(got) != len(m.keys) {
		t.Fatalf("applied %d: %d keys, want %d", at, len(got), len(m.keys))
	}
}

// copyStore copies dir as a power cut leaves it when nothing unsynced
// survives: tables and MANIFEST, but no *.mem.
func copyStore(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a table compacted away meanwhile
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if filepath.Ext(name) == ".mem" || d.Name() == "LOCK" {
			return nil
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestHalfOfASplitCommitStaysInvisible makes tables that end in the middle of
// a commit and checks that it is neither seen nor counted as durable, that
// compaction does not drop what it shadows, and that replaying the log in
// other batches gives the same state.
func TestHalfOfASplitCommitStaysInvisible(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	model := newCrashModel()
	for i := uint64(1); i <= 10; i++ {
		apply(t, s, i)
	}
	// Write parts of commit 17 as Commit does, without the end, until they
	// force the memory tables out.
	s.mu.Lock()
	s.splits = append(s.splits, split{index: 17, prev: 10})
	s.mu.Unlock()
	for s.gen.maxVersion() != 17 {
		c := newCommit(s.gen, 17)
		effects(17, func(k, v []byte) {
			if err := c.put(userKey(k), v, false); err != nil {
				t.Fatal(err)
			}
		}, func(k []byte) {
			if err := c.put(userKey(k), nil, true); err != nil {
				t.Fatal(err)
			}
		})
		if err := c.flush(); err != nil {
			t.Fatal(err)
		}
	}
	if d, err := s.Durable(); err != nil || d != 10 {
		t.Fatalf("durable %d with half of 17 on disk: %v", d, err)
	}
	model.check(t, s)
	if err := s.gen.db.Flatten(2); err != nil {
		t.Fatal(err)
	}
	cut := t.TempDir()
	copyStore(t, dir, cut)

	s2 := open(t, cut)
	if at := s2.Applied().Index; at != 10 {
		t.Fatalf("applied %d", at)
	}
	model.check(t, s2)
	if d, err := s2.Durable(); err != nil || d != 10 {
		t.Fatalf("durable %d after the cut: %v", d, err)
	}
	for i := uint64(11); i <= 40; i++ {
		apply(t, s2, i)
		if i < 20 || i == 40 { // around the half commit, and in the end
			model.check(t, s2)
		}
	}
	for i := uint64(41); s2.gen.maxVersion() <= 17; i++ {
		apply(t, s2, i)
	}
	if d, err := s2.Durable(); err != nil || d <= 17 {
		t.Fatalf("durable stuck at %d: %v", d, err)
	}
}

func apply(t *testing.T, s *Store, index uint64) {
	t.Helper()
	tx, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	effects(index, tx.Set, tx.Delete)
	if err := tx.Commit(index, 3); err != nil {
		t.Fatal(err)
	}
}
