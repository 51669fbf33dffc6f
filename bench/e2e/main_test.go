package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"agentdrive/bench/cluster"
)

const workLimit = 100 * time.Second // of one program

var binary string // built once, by TestMain

var raceBinary = flag.Bool("race-binary", false, "build the binary with the race detector")

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if why := cluster.Unfit(); why != "" {
		return m.Run() // each test skips
	}
	var flags []string
	if *raceBinary {
		flags = append(flags, "-race")
	}
	dir, err := os.MkdirTemp("", "agentdrive-e2e")
	if err == nil {
		defer os.RemoveAll(dir)
		binary, err = cluster.Build(dir, flags...)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// fit skips a test that this host cannot run.
func fit(t *testing.T, programs ...string) {
	t.Helper()
	if why := cluster.Unfit(); why != "" {
		t.Skip(why)
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip(err)
		}
	}
}

// start starts a cluster of n nodes with the drive "demo".
func start(t *testing.T, n int) *cluster.Cluster {
	t.Helper()
	c := cluster.Start(t, cluster.Options{Bin: binary, Nodes: n})
	c.Do("drive", "create", "demo")
	return c
}

// quiet keeps programs from reading the configuration of who runs the tests.
var quiet = []string{"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off",
	"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b"}

// try runs a program in dir.
func try(dir string, args ...string) error {
	_, err := output(dir, args...)
	return err
}

func output(dir string, args ...string) (string, error) {
	r := cluster.Exec(context.Background(), dir, workLimit, quiet, args...)
	if r.Code != 0 {
		return r.Stdout, fmt.Errorf("%v", r)
	}
	return r.Stdout, nil
}

// must runs a program in dir that must succeed, and returns what it printed.
func must(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := output(dir, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// repository makes a git repository of n small files in several commits, on
// the host's own disk.
func repository(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	must(t, dir, "git", "init", "-q", "-b", "main", ".")
	for part := range 3 {
		for i := part; i < n; i += 3 {
			name := filepath.Join(dir, fmt.Sprintf("dir%d", i%17), fmt.Sprintf("file%d.txt", i))
			write(t, name, strings.Repeat(fmt.Sprintf("line of file %d\n", i), 1+i%60))
		}
		must(t, dir, "git", "add", ".")
		must(t, dir, "git", "commit", "-q", "-m", fmt.Sprint("part ", part))
	}
	return dir
}
