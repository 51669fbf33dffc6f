package kernel

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// hangNames holds lookups of names that begin with "hang".
func hangNames(fs *memFS) {
	fs.hang(func(op any) bool {
		l, ok := op.(*meta.Lookup)
		return ok && strings.HasPrefix(l.Name, "hang")
	})
}

func TestManyBlocked(t *testing.T) {
	const blocked = 100
	for _, limit := range []int{0, 8} {
		t.Run(fmt.Sprintf("limit=%d", limit), func(t *testing.T) {
			fs := newMemFS()
			m := mount(t, fs, func(c *Config) { c.MaxRunning = limit })
			// In a directory of their own: lookups hold its lock.
			dir := filepath.Join(m.Dir(), "d")
			must(t, os.Mkdir(dir, 0o755))
			hangNames(fs)
			var wg sync.WaitGroup
			results := make(chan error, blocked)
			for i := range blocked {
				wg.Go(func() {
					var st unix.Stat_t
					results <- unix.Lstat(filepath.Join(dir, fmt.Sprintf("hang%d", i)), &st)
				})
			}
			running := blocked
			if limit > 0 {
				running = limit
			}
			for range running {
				<-fs.held
			}
			until(t, "all requests are at the server", func() bool {
				m.conn.mu.Lock()
				defer m.conn.mu.Unlock()
				return len(m.conn.calls) == blocked && len(m.conn.parked) == blocked-running
			})
			if limit == 0 { // others are served meanwhile
				must(t, os.WriteFile(filepath.Join(m.Dir(), "free"), []byte("x"), 0o644))
			} else {
				killParked(t, m, dir)
			}
			fs.letGo()
			wg.Wait()
			for range blocked {
				wantErrno(t, "lookup", <-results, syscall.ENOENT)
			}
			until(t, "no request is left, and few readers", func() bool {
				m.conn.mu.Lock()
				defer m.conn.mu.Unlock()
				return m.conn.running == 0 && len(m.conn.calls) == 0 &&
					m.conn.idle >= 1 && m.conn.idle <= m.conn.maxIdle
			})
			unmount(t, m, fs)
		})
	}
}

// killParked starts a process whose request is parked and ends it.
func killParked(t *testing.T, m *Mount, dir string) {
	t.Helper()
	m.conn.mu.Lock()
	before := len(m.conn.parked)
	m.conn.mu.Unlock()
	cat := exec.Command("cat", filepath.Join(dir, "hang-cat"))
	must(t, cat.Start())
	parked := func() int {
		m.conn.mu.Lock()
		defer m.conn.mu.Unlock()
		return len(m.conn.parked)
	}
	until(t, "the process waits", func() bool { return parked() == before+1 })
	must(t, cat.Process.Signal(syscall.SIGTERM))
	if err := cat.Wait(); err == nil {
		t.Error("killed process ended well")
	}
	if n := parked(); n != before {
		t.Errorf("%d parked requests, want %d", n, before)
	}
}

func TestInterruptKillsProcess(t *testing.T) {
	fs := newMemFS()
	m := mount(t, fs, nil)
	must(t, os.WriteFile(filepath.Join(m.Dir(), "hang"), []byte("x"), 0o644))
	hangNames(fs)
	cat := exec.Command("cat", filepath.Join(m.Dir(), "hang"))
	must(t, cat.Start())
	<-fs.held
	must(t, cat.Process.Signal(syscall.SIGINT))
	var exit *exec.ExitError
	if err := cat.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT {
		t.Errorf("process ended with %v", err)
	}
	fs.mu.Lock()
	if fs.canceled != 1 {
		t.Errorf("%d requests were cancelled, want 1", fs.canceled)
	}
	fs.mu.Unlock()
	fs.letGo()
	unmount(t, m, fs)
}

// appCatch looks at a file while it handles signals, and prints its thread
// first and the outcome then.
func appCatch(args []string) error {
	runtime.LockOSThread()
	signal.Notify(make(chan os.Signal, 10), syscall.SIGUSR1, syscall.SIGTERM)
	fmt.Println(unix.Gettid())
	var st unix.Stat_t
	fmt.Println(unix.ErrnoName(errnoOf(unix.Lstat(args[0], &st))))
	return nil
}

func errnoOf(err error) syscall.Errno {
	var e syscall.Errno
	errors.As(err, &e)
	return e
}

// TestHarmlessSignal: a caught signal that does not mean "stop" leaves the
// request alone; one that does ends it, also when it comes second.
func TestHarmlessSignal(t *testing.T) {
	for _, c := range []struct {
		name string
		stop bool
		want string
	}{{"then an answer", false, "ENOENT"}, {"then SIGTERM", true, "EINTR"}} {
		t.Run(c.name, func(t *testing.T) {
			fs := newMemFS()
			m := mount(t, fs, nil)
			hangNames(fs)
			p := app(t, "catch", filepath.Join(m.Dir(), "hang"))
			out, err := p.StdoutPipe()
			must(t, err)
			must(t, p.Start())
			lines := bufio.NewScanner(out)
			lines.Scan()
			tid, err := strconv.Atoi(lines.Text())
			must(t, err)
			<-fs.held
			must(t, unix.Tgkill(p.Process.Pid, tid, syscall.SIGUSR1))
			until(t, "the interrupted request is watched", func() bool {
				m.conn.mu.Lock()
				defer m.conn.mu.Unlock()
				for _, r := range m.conn.calls {
					if r.watched != nil {
						return true
					}
				}
				return false
			})
			if c.stop {
				must(t, unix.Tgkill(p.Process.Pid, tid, syscall.SIGTERM))
			} else {
				fs.letGo()
			}
			lines.Scan()
			if lines.Text() != c.want {
				t.Errorf("the call gave %q, want %s", lines.Text(), c.want)
			}
			must(t, p.Wait())
			fs.letGo()
			unmount(t, m, fs)
		})
	}
}

func TestUnmountBusy(t *testing.T) {
	fs := newMemFS()
	m := mount(t, fs, nil)
	f, err := os.Create(filepath.Join(m.Dir(), "f"))
	must(t, err)
	if err := m.Unmount(); !errs.Is(err, errs.Busy) || errs.HintOf(err) == "" {
		t.Errorf("unmount in use: %v, want busy with a hint", err)
	}
	_, err = f.WriteString("still served")
	must(t, err)
	must(t, m.UnmountLazy())
	if _, err := os.Lstat(filepath.Join(m.Dir(), "f")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("lazily unmounted, yet there: %v", err)
	}
	if err := m.Unmount(); !errs.Is(err, errs.Busy) {
		t.Errorf("unmount after lazy: %v, want busy", err)
	}
	_, err = f.WriteString(", lazily too")
	must(t, err)
	must(t, f.Close())
	m.Wait()
	must(t, m.Unmount())
	must(t, m.UnmountLazy())
	must(t, m.Abort())
	checkBalance(t, fs)
}

// TestAbortWhileHanging: requests that hang at the Backend end with the
// connection, and what they bring too late goes back.
func TestAbortWhileHanging(t *testing.T) {
	for _, stubborn := range []bool{false, true} {
		t.Run(fmt.Sprintf("stubborn=%v", stubborn), func(t *testing.T) {
			const n = 20
			fs := newMemFS()
			fs.stubborn = stubborn
			m := mount(t, fs, nil)
			var wg sync.WaitGroup
			for i := range n {
				must(t, os.WriteFile(filepath.Join(m.Dir(), fmt.Sprint("hang", i)), nil, 0o644))
			}
			open, err := os.Create(filepath.Join(m.Dir(), "open"))
			must(t, err)
			defer open.Close()
			hangNames(fs)
			for i := range n {
				wg.Go(func() {
					var st unix.Stat_t
					err := unix.Lstat(filepath.Join(m.Dir(), fmt.Sprint("hang", i)), &st)
					if e := errnoOf(err); e != syscall.ENOTCONN && e != syscall.ECONNABORTED {
						t.Errorf("hanging call ended with %v", err)
					}
				})
			}
			for range n {
				<-fs.held
			}
			if err := m.Unmount(); !errs.Is(err, errs.Busy) {
				t.Errorf("unmount while requests hang: %v, want busy", err)
			}
			aborted := make(chan error)
			go func() { aborted <- m.Abort() }()
			wg.Wait() // the callers are free before the Backend answers
			fs.letGo()
			must(t, <-aborted)
			_, err = open.WriteString("x")
			if e := errnoOf(err); e != syscall.ENOTCONN && e != syscall.EIO && e != syscall.ECONNABORTED {
				t.Errorf("write after abort: %v", err)
			}
			checkBalance(t, fs)
		})
	}
}

// TestSever ends a connection without any privilege, while a request hangs at
// a Backend that takes no notice.
func TestSever(t *testing.T) {
	fs := newMemFS()
	fs.stubborn = true
	m := mount(t, fs, func(c *Config) { c.Spin = maxSpin })
	must(t, os.WriteFile(filepath.Join(m.Dir(), "hang"), nil, 0o644))
	hangNames(fs)
	done := make(chan error)
	go func() {
		var st unix.Stat_t
		done <- unix.Lstat(filepath.Join(m.Dir(), "hang"), &st)
	}()
	<-fs.held
	must(t, m.sever())
	wantErrno(t, "hanging call", <-done, syscall.ENOTCONN)
	must(t, m.UnmountLazy())
	fs.letGo()
	m.Wait()
	checkBalance(t, fs)
}

// TestForgetBalance: dropping a name's inode from the kernel's caches brings
// its pins back while the mount lives.
func TestForgetBalance(t *testing.T) {
	fs := newMemFS()
	m := mount(t, fs, nil)
	p := func(i int) string { return filepath.Join(m.Dir(), fmt.Sprint(i)) }
	for i := range 50 {
		must(t, os.WriteFile(p(i), nil, 0o644))
		lstat(t, p(i))
	}
	_, err := os.ReadDir(m.Dir())
	must(t, err)
	for i := range 50 {
		must(t, os.Remove(p(i)))
	}
	until(t, "all pins are back", func() bool {
		fs.mu.Lock()
		defer fs.mu.Unlock()
		return len(fs.pins) == 0 && len(fs.inodes) == 1
	})
	m.conn.nodes.mu.Lock()
	if len(m.conn.nodes.m) != 0 {
		t.Errorf("still counted: %v", m.conn.nodes.m)
	}
	m.conn.nodes.mu.Unlock()
	unmount(t, m, fs)
}

func TestHelperMount(t *testing.T) {
	if _, err := exec.LookPath(helperName); err != nil {
		t.Skip(helperName + " is not installed")
	}
	fs := newMemFS()
	m := mount(t, fs, func(c *Config) { c.Helper, c.Source = true, `odd,na\me` })
	must(t, os.WriteFile(filepath.Join(m.Dir(), "f"), []byte("x"), 0o644))
	f, err := os.Open(filepath.Join(m.Dir(), "f"))
	must(t, err)
	if err := m.Unmount(); !errs.Is(err, errs.Busy) {
		t.Errorf("unmount in use: %v, want busy", err)
	}
	must(t, f.Close())
	unmount(t, m, fs)
}
