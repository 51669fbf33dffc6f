package scenes

import (
	"encoding/json"
	"testing"
)

// counters are what `stats DIR --json` tells of a mount, as far as these tests
// want it.
type counters struct {
	Waits uint64 `json:"waits"` // replies of servers that a call of an application waited for
}

// mountStats asks a mount for its counters. It skips the test while the verb
// does not exist.
func mountStats(s *scene, dir string) (c counters) {
	s.Helper()
	if r := s.Cluster.Run("help", "stats"); r.Code != 0 {
		s.Skip("there is no `agentdrive stats` yet")
	}
	out := s.Do("stats", dir, "--json")
	var keys map[string]json.RawMessage
	if err := json.Unmarshal([]byte(out), &keys); err != nil {
		s.Fatalf("stats: %v: %s", err, out)
	}
	if err := json.Unmarshal(keys["waits"], &c.Waits); err != nil {
		s.Fatalf("stats has no number of waits: %v: %s", err, out)
	}
	return c
}

// waits counts the replies that a step waits for.
func (s *scene) waited(dir, step string, do func() error) uint64 {
	s.Helper()
	before := mountStats(s, dir)
	s.must(step, do)
	n := mountStats(s, dir).Waits - before.Waits
	s.Logf("%s waited for %d replies", step, n)
	return n
}

// Small-file work of one mount alone is local: this is asserted by counting,
// which no busy machine changes.
func TestWaits(t *testing.T) {
	s := play(t, 1, "tar", "git", "grep")
	_, tar := tarball(t, 1000)
	mountStats(s, s.a)
	if n := s.waited(s.a, "untar of 1,000 files", func() error { return command(s.a, "tar", "-xf", tar) }); n > 20 {
		t.Errorf("untar waited for %d replies, at most 20 are allowed", n)
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "."}, {"commit", "-q", "-m", "all"}} {
		s.must("git "+args[0], func() error { return command(s.a+"/tree", append([]string{"git"}, args...)...) })
	}
	for _, w := range []struct {
		step string
		args []string
	}{{"git status", []string{"git", "status", "--porcelain"}}, {"grep -r", []string{"grep", "-rc", "line of file 999", "."}}} {
		run := func() error { // grep exits with 0: one file has the line
			_, err := output(s.a+"/tree", w.args...)
			return err
		}
		s.must(w.step+", cold", run)
		if n := s.waited(s.a, w.step+", warm", run); n > 0 {
			t.Errorf("warm %s waited for %d replies", w.step, n)
		}
	}
}
