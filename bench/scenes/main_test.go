package scenes

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"agentdrive/bench/cluster"
)

const workLimit = 100 * time.Second // of one program

var (
	program string // built once, by TestMain
	many    = flag.Int("many", 2000, "files of the scenes with many files")
)

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) != "" {
		hold()
		return
	}
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if cluster.Unfit() != "" {
		return m.Run() // each test skips
	}
	dir, err := os.MkdirTemp("", "scenes")
	if err == nil {
		defer os.RemoveAll(dir)
		program, err = cluster.Build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// scene is a cluster with mounts, and how long things took.
type scene struct {
	*testing.T
	*cluster.Cluster
	a, b string // two mounts of one drive

	mu    sync.Mutex // guards waits
	waits map[string]time.Duration
}

// play starts a cluster of n nodes and two mounts.
func play(t *testing.T, n int, programs ...string) *scene {
	t.Helper()
	if why := cluster.Unfit(); why != "" {
		t.Skip(why)
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip(err)
		}
	}
	c := cluster.Start(t, cluster.Options{Bin: program, Nodes: n})
	c.Do("drive", "create", "demo")
	s := &scene{T: t, Cluster: c, a: c.Mount("demo", "a"), b: c.Mount("demo", "b"), waits: map[string]time.Duration{}}
	t.Cleanup(s.report)
	return s
}

// timed notes how long a step took, if longer than others of its name.
func (s *scene) timed(step string, do func() error) error {
	begin := time.Now()
	err := do()
	d := time.Since(begin)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waits[step] = max(s.waits[step], d)
	return err
}

// must is timed for a step that must succeed.
func (s *scene) must(step string, do func() error) {
	s.Helper()
	if err := s.timed(step, do); err != nil {
		s.Fatalf("%s: %v", step, err)
	}
}

// probe makes and removes a file on each mount, over and over, until stop; the
// longest of these is the longest time without service.
func (s *scene) probe() (stop func()) {
	var wg sync.WaitGroup
	end := make(chan struct{})
	for i, dir := range []string{s.a, s.b} {
		step := fmt.Sprintf("create, unlink (probe %c)", 'a'+i)
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-end:
					return
				case <-time.After(5 * time.Millisecond):
				}
				name := fmt.Sprintf("%s/probe-%c-%d", dir, 'a'+i, n)
				if err := s.timed(step, func() error { return errors.Join(write(name, ""), os.Remove(name)) }); err != nil {
					s.Errorf("%s: %v", step, err)
					return
				}
			}
		})
	}
	return func() {
		close(end)
		wg.Wait()
	}
}

func (s *scene) report() {
	s.mu.Lock()
	defer s.mu.Unlock()
	steps := slices.SortedFunc(maps.Keys(s.waits), func(a, b string) int { return cmp.Compare(s.waits[b], s.waits[a]) })
	for _, step := range steps {
		s.Logf("longest %-28s %9.1f ms", step, float64(s.waits[step])/1e6)
	}
}

// both runs a function on each mount at once and fails the test on errors.
func (s *scene) both(do func(dir string) error) {
	s.Helper()
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i, dir := range []string{s.a, s.b} {
		wg.Go(func() { errs[i] = do(dir) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			s.Errorf("mount %c: %v", 'a'+i, err)
		}
	}
	if s.Failed() {
		s.FailNow()
	}
}

// quiet keeps programs from reading the configuration of who runs the tests.
var quiet = []string{"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
	"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b"}

// output runs a program in dir.
func output(dir string, args ...string) (string, error) {
	r := cluster.Exec(context.Background(), dir, workLimit, quiet, args...)
	if r.Code != 0 {
		return r.Stdout, fmt.Errorf("%v", r)
	}
	return r.Stdout, nil
}

func command(dir string, args ...string) error {
	_, err := output(dir, args...)
	return err
}

// write makes a file with its directories.
func write(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// shows wants a file to hold a text.
func shows(path, want string) error {
	b, err := os.ReadFile(path)
	if err == nil && string(b) != want {
		err = fmt.Errorf("%s: %s, want %s", path, brief(string(b)), brief(want))
	}
	return err
}

func brief(s string) string {
	if len(s) > 40 {
		return fmt.Sprintf("%d bytes %.30q...", len(s), s)
	}
	return fmt.Sprintf("%q", s)
}

func stat(path string) (*syscall.Stat_t, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	return fi.Sys().(*syscall.Stat_t), nil
}

// pid gives the daemon of a mount.
func (s *scene) pid(dir string) int {
	s.Helper()
	for _, m := range s.Status().Mounts {
		if m.Dir == dir {
			return m.Pid
		}
	}
	s.Fatalf("no mount %s in status", dir)
	return 0
}

// names lists a directory, "" in place of an empty one.
func names(dir string) (string, error) {
	list, err := os.ReadDir(dir)
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return strings.Join(out, " "), err
}
