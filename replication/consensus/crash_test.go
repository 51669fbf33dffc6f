package consensus

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"agentdrive/internal/errs"
)

// crashDir, in the environment, makes the test binary propose until killed.
const crashDir = "CONSENSUS_CRASH_DIR"

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

// crashWriter increments one counter, many proposals in flight, and prints
// its value after each acknowledgement.
func crashWriter(dir string) error {
	cfg, _ := singleConfig(dir)
	g, err := Open(cfg)
	if err != nil {
		return err
	}
	for l := range g.Leadership() {
		if l.Leading {
			break
		}
	}
	pad := strings.Repeat("x", 20<<10) // fills memory tables soon
	flight := make(chan *Future, 32)
	go func() {
		for {
			flight <- g.Propose([]byte("add k " + pad))
		}
	}()
	for f := range flight {
		val, _, err := f.Result()
		if err != nil {
			return err
		}
		n := uint64(0)
		for _, b := range val {
			n = n<<8 | uint64(b)
		}
		if _, err := fmt.Println(n); err != nil {
			return err
		}
	}
	return nil
}

// TestKillLosesNothingAcknowledged kills a member with SIGKILL again and
// again. The counter it finds afterwards must be at least the last one
// acknowledged, and at most what was in flight: an entry applied twice would
// show as well.
func TestKillLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	const seed = 3
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	for round := range 4 {
		acked := runAndKill(t, dir, 30+r.IntN(400))
		g := openSingle(t, dir)
		n := counter(t, g, "k")
		if n < acked || n > acked+64 {
			t.Fatalf("round %d: counter %d, acknowledged %d", round, n, acked)
		}
		st, err := g.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if st.FirstIndex > st.Durable+1 {
			t.Fatalf("round %d: the log begins at %d, the state is durable to %d", round, st.FirstIndex, st.Durable)
		}
		t.Logf("round %d: acknowledged %d, found %d, log from %d", round, acked, n, st.FirstIndex)
		shutdown(t, g)
	}
}

func runAndKill(t *testing.T, dir string, n int) (acked uint64) {
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
		if v, err := strconv.ParseUint(sc.Text(), 10, 64); err == nil {
			acked = v // a line cut short by the kill is a smaller number
		}
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
	return acked
}

// withSnapshot makes a member whose snapshot marker is far ahead of what its
// state has on disk, and returns its directory after a power cut.
func withSnapshot(t *testing.T) (dir string, last uint64) {
	t.Helper()
	g := openSingle(t, t.TempDir())
	for range 100 {
		last = mustPropose(t, g, "add k")
	}
	eventually(t, "a snapshot", func() bool {
		m := g.snaps.latest()
		return m != nil && m.Index >= 90
	})
	if d, err := g.state.Durable(); err != nil || d != 0 {
		t.Fatalf("durable %d %v: the test wants nothing flushed", d, err)
	}
	first, err := g.log.FirstIndex()
	if err != nil || first != 1 {
		t.Fatalf("log was cut to %d (%v) while the state is durable to 0", first, err)
	}
	return copyDir(t, g.cfg.Dir), last
}

func TestPowerCutReplaysUpToTheMarker(t *testing.T) {
	t.Parallel()
	dir, _ := withSnapshot(t)
	g := openSingle(t, dir)
	if n := counter(t, g, "k"); n != 100 {
		t.Fatalf("counter %d", n)
	}
	again := openSingle(t, copyDir(t, g.cfg.Dir)) // a crash during the replay
	if n := counter(t, again, "k"); n != 100 {
		t.Fatalf("counter %d after a second cut", n)
	}
}

func flip(t *testing.T, name string, off int64) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[off] ^= 0x20
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func theSegment(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "log", "*.wal"))
	if err != nil || len(files) == 0 {
		t.Fatalf("segments: %v %v", files, err)
	}
	return files[0]
}

// TestDamageIsNamedAndRefused damages a member in many ways. It must not
// start, and must say what is damaged and what to do.
func TestDamageIsNamedAndRefused(t *testing.T) {
	t.Parallel()
	base, _ := withSnapshot(t)
	for name, c := range map[string]struct {
		damage func(t *testing.T, dir string)
		want   []string // in the message
	}{
		"entry in the middle of the log": {func(t *testing.T, dir string) {
			seg := theSegment(t, dir)
			b, err := os.ReadFile(seg)
			if err != nil {
				t.Fatal(err)
			}
			at := -1
			for range 20 { // the 20th command
				at += 1 + strings.Index(string(b[at+1:]), "add k")
			}
			flip(t, seg, int64(at))
		}, []string{".wal", "damaged at byte "}},
		"log lost": {func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, "log")); err != nil {
				t.Fatal(err)
			}
		}, []string{"the log has only"}},
		"marker": {func(t *testing.T, dir string) {
			flip(t, filepath.Join(dir, "snap", metaName), 2)
		}, []string{metaName, "at byte"}},
		"identity": {func(t *testing.T, dir string) {
			flip(t, filepath.Join(dir, identityName), 1)
		}, []string{identityName}},
		"state pointer": {func(t *testing.T, dir string) {
			flip(t, filepath.Join(dir, "state", "CURRENT"), 3)
		}, []string{"CURRENT"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyDir(t, base)
			c.damage(t, dir)
			cfg, _ := singleConfig(dir)
			g, err := Open(cfg)
			if err == nil {
				shutdown(t, g)
				t.Fatal("started")
			}
			if !errs.Is(err, errs.Corrupt) || errs.HintOf(err) == "" {
				t.Fatalf("kind %v, hint %q: %v", errs.KindOf(err), errs.HintOf(err), err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("message %q lacks %q", err, w)
				}
			}
		})
	}
}

// TestStateAheadOfTheLogIsRefused: a state that is durable beyond the log
// means that acknowledged entries are gone.
func TestStateAheadOfTheLogIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg, _ := singleConfig(dir)
	cfg.Tuning.SnapshotEvery = 1 << 20 // no marker
	g, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	waitLeading(t, g)
	mustPropose(t, g, "add k")
	shutdown(t, g) // flushes the state
	if err := os.RemoveAll(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	cfg, _ = singleConfig(dir)
	if _, err := Open(cfg); !errs.Is(err, errs.Corrupt) || !strings.Contains(err.Error(), "the log ends at 0") {
		t.Fatal(err)
	}
}

// TestReceivedSnapshotSurvivesACrash stops a follower between the receipt of
// a snapshot and its restore.
func TestReceivedSnapshotSurvivesACrash(t *testing.T) {
	t.Parallel()
	src := openSingle(t, t.TempDir())
	for range 50 {
		mustPropose(t, src, "add k")
	}
	meta, stream, err := src.snaps.spool()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()

	base := t.TempDir()
	dst := openSingle(t, base)
	mustPropose(t, dst, "add other")
	sink, err := dst.snaps.Create(1, meta.Index, meta.Term, meta.Configuration, meta.ConfigurationIndex, nil)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, meta.Size)
	if _, err := stream.Read(buf); err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Write(buf); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	cut, bad := copyDir(t, base), copyDir(t, base)

	g := openSingle(t, cut)
	if n := counter(t, g, "k"); n != 50 {
		t.Fatalf("counter %d", n)
	}
	mustPropose(t, g, "add k") // the log goes on behind the snapshot
	m := dst.snaps.latest()
	flip(t, filepath.Join(bad, "snap", m.Data), 40)
	cfg, _ := singleConfig(bad)
	if _, err := Open(cfg); !errs.Is(err, errs.Corrupt) || !strings.Contains(err.Error(), m.Data) || !strings.Contains(err.Error(), "at byte") {
		t.Fatalf("damaged snapshot: %v", err)
	}
}

// TestHeadTruncationStopsAtDurable drives the log store alone.
func TestHeadTruncationStopsAtDurable(t *testing.T) {
	durable := fixedDurable(10)
	cfg := Config{Log: quiet(), Tuning: fastTuning()}
	l, err := openLog(t.TempDir(), logSeams{}, &durable, func(err error) { t.Error(err) }, &cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for i := uint64(1); i <= 30; i++ {
		if err := l.StoreLog(&raft.Log{Index: i, Term: 1, Data: []byte{byte(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ durable, lo, hi, first, last uint64 }{
		{0, 1, 20, 1, 30},    // nothing is durable
		{10, 1, 20, 11, 30},  // the head, clamped
		{10, 25, 30, 11, 24}, // a conflicting tail
		{15, 11, 24, 16, 24}, // the library drops all behind a snapshot at 15
		{15, 16, 24, 0, 0},   // all of it conflicts
	} {
		durable = fixedDurable(c.durable)
		if err := l.DeleteRange(c.lo, c.hi); err != nil {
			t.Fatal(err)
		}
		first, _ := l.FirstIndex()
		last, _ := l.LastIndex()
		if first != c.first || last != c.last {
			t.Fatalf("durable %d, delete %d..%d: log is %d..%d, want %d..%d", c.durable, c.lo, c.hi, first, last, c.first, c.last)
		}
	}
}

type fixedDurable uint64

func (d *fixedDurable) Durable() (uint64, error) { return uint64(*d), nil }
