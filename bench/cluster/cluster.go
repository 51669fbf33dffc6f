package cluster

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Limits of waiting. They bound a failure; nothing is decided by them.
const (
	upLimit    = "60s"
	waitLimit  = "60s"
	eventLimit = 60 * time.Second
	lookEvery  = 50 * time.Millisecond
)

// Options says what Start starts.
type Options struct {
	Bin       string // the binary, of Build
	Nodes     int    // default 1: embedded
	Groups    int    // drive groups, default 1
	NoRespawn bool   // killed servers stay dead until Up
}

// Cluster is one local cluster and its mounts. Its methods fail its test; they
// are for the test's goroutine; Run alone may be called by any.
type Cluster struct {
	t    testing.TB
	o    Options
	Root string // everything is below it
	Data string // the --data directory
	up   *process
}

// Start starts a cluster and waits until it is healthy. It is stopped, and
// checked to be gone, at the end of t.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	c := New(t, o)
	c.Up()
	c.WaitFor("healthy")
	return c
}

// New prepares a cluster that does not run yet.
func New(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.Nodes == 0 {
		o.Nodes = 1
	}
	root := t.TempDir()
	c := &Cluster{t: t, o: o, Root: root, Data: filepath.Join(root, "data")}
	stop, err := watch(root)
	if err != nil {
		t.Fatalf("watchdog: %v", err)
	}
	t.Cleanup(stop)
	t.Cleanup(c.clean)
	return c
}

// Run runs a verb of the binary on this cluster.
func (c *Cluster) Run(args ...string) Result {
	env := []string{"AGENTDRIVE_DATA=" + c.Data}
	return Exec(context.Background(), c.Root, commandLimit, env, append([]string{c.o.Bin}, args...)...)
}

// Do runs a verb that must succeed, and returns what it printed.
func (c *Cluster) Do(args ...string) string {
	c.t.Helper()
	r := c.Run(args...)
	if r.Code != 0 {
		c.t.Fatal(r)
	}
	return r.Stdout
}

// Up starts `up` in the foreground, as a child, and waits for its ready line.
func (c *Cluster) Up() {
	c.t.Helper()
	args := []string{c.o.Bin, "up", "--data", c.Data, "--nodes", strconv.Itoa(c.o.Nodes), "--timeout", upLimit}
	if c.o.Groups > 0 {
		args = append(args, "--groups", strconv.Itoa(c.o.Groups))
	}
	if c.o.NoRespawn {
		args = append(args, "--no-respawn")
	}
	p, err := spawn(filepath.Join(c.Root, "up.out"), args...)
	if err != nil {
		c.t.Fatalf("up: %v", err)
	}
	c.up = p
	if err := p.ready(); err != nil {
		c.t.Fatalf("up: %v", err)
	}
}

// KillAll kills `up` and every server with SIGKILL, at once, and waits until
// all are gone. Mounts stay.
func (c *Cluster) KillAll() {
	c.t.Helper()
	pids := []int{c.up.cmd.Process.Pid}
	for _, s := range c.Status().Servers {
		if s.Pid != 0 {
			pids = append(pids, s.Pid)
		}
	}
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	c.up.wait()
	for _, pid := range pids {
		c.Gone(pid)
	}
}

// Kill kills one server with SIGKILL and waits until it is gone. The function
// it returns starts that server again, by hand; for clusters that do not.
func (c *Cluster) Kill(s Server) (again func()) {
	c.t.Helper()
	args := c.commandLine(s)
	c.Signal(s, syscall.SIGKILL)
	c.Gone(s.Pid)
	return func() {
		c.t.Helper()
		c.Spawn(fmt.Sprintf("%s-%d-again", s.Role, s.ID), args[1:]...)
	}
}

// commandLine reads how a server was started, without the descriptor by which
// it watches its parent.
func (c *Cluster) commandLine(s Server) []string {
	c.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", s.Pid))
	if err != nil {
		c.t.Fatalf("%s-%d: %v", s.Role, s.ID, err)
	}
	args := strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
	if i := slices.Index(args, "--parent-fd"); i >= 0 {
		args = slices.Delete(args, i, i+2)
	}
	return args
}

// Spawn starts a verb of the binary that stays, with its output in
// Root/NAME.log, and does not wait for it. It returns its pid.
func (c *Cluster) Spawn(name string, args ...string) int {
	c.t.Helper()
	p, err := spawn(filepath.Join(c.Root, name+".log"), append([]string{c.o.Bin}, args...)...)
	if err != nil {
		c.t.Fatalf("%s: %v", name, err)
	}
	go io.Copy(io.Discard, p.out)
	return p.cmd.Process.Pid
}

// Signal sends a signal to one server.
func (c *Cluster) Signal(s Server, sig syscall.Signal) {
	c.t.Helper()
	if s.Pid <= 0 {
		c.t.Fatalf("%s-%d has no pid", s.Role, s.ID)
	}
	if err := syscall.Kill(s.Pid, sig); err != nil {
		c.t.Fatalf("%v to %s-%d: %v", sig, s.Role, s.ID, err)
	}
}

// Gone waits until no process has this pid; a zombie is none.
func (c *Cluster) Gone(pid int) {
	c.t.Helper()
	c.Eventually(fmt.Sprintf("end of process %d", pid), func() bool { return !alive(pid) })
}

// WaitFor waits until the cluster is "healthy" or "serving".
func (c *Cluster) WaitFor(state string) Status {
	c.t.Helper()
	c.Do("status", "--wait", "--for", state, "--timeout", waitLimit)
	return c.Status()
}

// Mount mounts a drive on Root/m/name and returns that directory.
func (c *Cluster) Mount(drive, name string, flags ...string) string {
	c.t.Helper()
	dir := filepath.Join(c.Root, "m", name)
	c.Do(append([]string{"mount", drive, dir}, flags...)...)
	return dir
}

// Eventually waits until cond holds; the test ends when it does not in time.
func (c *Cluster) Eventually(what string, cond func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(eventLimit)
	for !cond() {
		if time.Now().After(deadline) {
			c.t.Fatalf("no %s after %v", what, eventLimit)
		}
		time.Sleep(lookEvery)
	}
}

// process is a child that says when it is ready.
type process struct {
	cmd  *exec.Cmd
	out  *bufio.Reader
	done chan struct{} // closed when it ended
}

// spawn starts a child whose standard error goes to the file log.
func spawn(log string, args ...string) (*process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	p := &process{cmd: exec.Command(args[0], args[1:]...), out: bufio.NewReader(r), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = w, f
	if err := p.cmd.Start(); err != nil {
		r.Close()
		return nil, err
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// ready waits for the line "ready"; the child's own --timeout bounds it.
func (p *process) ready() error {
	line, err := p.out.ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "ready" {
		return fmt.Errorf("printed %q instead of a line \"ready\": %v", line, err)
	}
	go io.Copy(io.Discard, p.out)
	return nil
}

func (p *process) wait() { <-p.done }
