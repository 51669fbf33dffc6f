package kernel

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func withLocks(c *Config) { c.Locks = true }

// lockRange sets a lock of the open file (F_OFD_SETLK) or of the process.
func lockRange(fd, cmd int, typ int16, start, n int64) error {
	return unix.FcntlFlock(uintptr(fd), cmd, &unix.Flock_t{Type: typ, Start: start, Len: n})
}

// TestRangeLocks: fcntl(2) locks are the Backend's, with their ranges, and a
// conflict is told of.
func TestRangeLocks(t *testing.T) {
	s := newScene(t, withLocks)
	s.file("f", "data")
	a, b := s.open("f", unix.O_RDWR), s.open("f", unix.O_RDWR)
	must(t, lockRange(a, unix.F_OFD_SETLK, unix.F_WRLCK, 10, 10))
	wantErrno(t, "overlap", lockRange(b, unix.F_OFD_SETLK, unix.F_RDLCK, 19, 1), syscall.EAGAIN)
	must(t, lockRange(b, unix.F_OFD_SETLK, unix.F_WRLCK, 20, 0)) // to the end
	fl := unix.Flock_t{Type: unix.F_RDLCK, Start: 0, Len: 0}
	must(t, unix.FcntlFlock(uintptr(a), unix.F_OFD_GETLK, &fl))
	if fl.Type != unix.F_WRLCK || fl.Start != 20 || fl.Len != 0 {
		t.Errorf("the lock in the way: %+v", fl)
	}
	must(t, lockRange(a, unix.F_OFD_SETLK, unix.F_UNLCK, 10, 10))
	must(t, lockRange(b, unix.F_OFD_SETLK, unix.F_RDLCK, 10, 10))
	if n := s.fs.locks.count(); n != 2 {
		t.Errorf("%d locks at the backend, want 2", n)
	}
	must(t, unix.Close(a))
	must(t, unix.Close(b))
	until(t, "the locks of a closed file are gone", func() bool { return s.fs.locks.count() == 0 })
	s.end()
}

// TestCloseReleasesProcessLocks: closing any descriptor of a file releases
// what the process has locked there, one that only reads, too.
func TestCloseReleasesProcessLocks(t *testing.T) {
	s := newScene(t, withLocks)
	s.file("f", "data")
	s.file("g", "data")
	f, g, other := s.open("f", unix.O_RDWR), s.open("g", unix.O_RDWR), s.open("f", unix.O_RDONLY)
	must(t, lockRange(f, unix.F_SETLK, unix.F_WRLCK, 0, 10))
	must(t, lockRange(f, unix.F_SETLK, unix.F_WRLCK, 100, 10))
	must(t, lockRange(g, unix.F_SETLK, unix.F_WRLCK, 0, 0))
	if n := s.fs.locks.count(); n != 3 {
		t.Errorf("%d locks at the backend, want 3", n)
	}
	must(t, unix.Close(other)) // FLUSH is answered before close returns
	if n := s.fs.locks.count(); n != 1 {
		t.Errorf("%d locks at the backend, want that on g", n)
	}
	must(t, unix.Close(f))
	must(t, unix.Close(g))
	if n := s.fs.locks.count(); n != 0 {
		t.Errorf("%d locks left", n)
	}
	s.end()
}

// TestFlock: flock(2) locks belong to the open file and end with its last
// descriptor; they and fcntl's do not meet.
func TestFlock(t *testing.T) {
	s := newScene(t, withLocks)
	s.file("f", "data")
	a, b := s.open("f", unix.O_RDWR), s.open("f", unix.O_RDWR)
	must(t, unix.Flock(a, unix.LOCK_EX))
	wantErrno(t, "second", unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB), syscall.EWOULDBLOCK)
	must(t, lockRange(b, unix.F_OFD_SETLK, unix.F_WRLCK, 0, 0))
	must(t, lockRange(b, unix.F_OFD_SETLK, unix.F_UNLCK, 0, 0))
	must(t, unix.Flock(a, unix.LOCK_SH))
	must(t, unix.Flock(b, unix.LOCK_SH|unix.LOCK_NB))
	must(t, unix.Flock(b, unix.LOCK_UN))
	c, err := unix.Dup(a)
	must(t, err)
	must(t, unix.Close(a))
	if n := s.fs.locks.count(); n != 1 {
		t.Errorf("%d locks while a descriptor is left", n)
	}
	got := make(chan error, 1)
	go func() { got <- unix.Flock(b, unix.LOCK_EX) }()
	<-s.fs.locks.waiting
	must(t, unix.Close(c)) // RELEASE grants it
	must(t, <-got)
	must(t, unix.Close(b))
	until(t, "the lock is gone", func() bool { return s.fs.locks.count() == 0 })
	s.end()
}

// appLock waits for a lock on the whole file while it handles SIGUSR1. It
// prints its thread first and the outcome then.
func appLock(args []string) error {
	runtime.LockOSThread()
	signal.Notify(make(chan os.Signal, 10), syscall.SIGUSR1)
	fd, err := unix.Open(args[0], unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	fmt.Println(unix.Gettid())
	err = lockRange(fd, unix.F_SETLKW, unix.F_WRLCK, 0, 0)
	fmt.Println(unix.ErrnoName(errnoOf(err)))
	return nil
}

// TestLockWaitIsInterruptible: any handled signal ends the wait (Go asks for
// restarted calls, so the kernel asks anew), and so does the death of the
// process.
func TestLockWaitIsInterruptible(t *testing.T) {
	s := newScene(t, withLocks)
	s.file("f", "data")
	fd := s.open("f", unix.O_RDWR)
	must(t, lockRange(fd, unix.F_OFD_SETLK, unix.F_WRLCK, 0, 0))
	start := func() (wait func() error, kill func(syscall.Signal), line func() string) {
		p := app(t, "lock", s.path("f"))
		out, err := p.StdoutPipe()
		must(t, err)
		must(t, p.Start())
		lines := bufio.NewScanner(out)
		line = func() string {
			lines.Scan()
			return lines.Text()
		}
		tid, err := strconv.Atoi(line())
		must(t, err)
		<-s.fs.locks.waiting
		return p.Wait, func(sig syscall.Signal) { must(t, unix.Tgkill(p.Process.Pid, tid, sig)) }, line
	}
	wait, kill, line := start()
	kill(syscall.SIGUSR1)
	<-s.fs.locks.waiting // the first wait was cancelled, the call restarted
	must(t, lockRange(fd, unix.F_OFD_SETLK, unix.F_UNLCK, 0, 0))
	if got := line(); got != "" {
		t.Errorf("lock: %s", got)
	}
	must(t, wait())
	must(t, lockRange(fd, unix.F_OFD_SETLK, unix.F_WRLCK, 0, 0))
	wait, kill, _ = start()
	kill(syscall.SIGTERM)
	if err := wait(); err == nil {
		t.Error("the killed process ended well")
	}
	must(t, unix.Close(fd))
	until(t, "no lock is left", func() bool { return s.fs.locks.count() == 0 })
	s.end()
}

// TestLocalLocks: without the switch locks stay in this kernel.
func TestLocalLocks(t *testing.T) {
	s := newScene(t, nil)
	s.file("f", "data")
	a, b := s.open("f", unix.O_RDWR), s.open("f", unix.O_RDWR)
	must(t, unix.Flock(a, unix.LOCK_EX))
	if err := unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("second lock: %v", err)
	}
	if n := s.fs.locks.count(); n != 0 {
		t.Errorf("%d locks at the backend", n)
	}
	must(t, unix.Close(a))
	must(t, unix.Close(b))
	s.end()
}

// TestStats: requests are counted by kind, and those that had to wait.
func TestStats(t *testing.T) {
	s := newScene(t, nil)
	s.file("f", "data")
	s.fs.hang(lookupOf("f"))
	done := s.start(s.stat("f"))
	s.fs.letGo()
	must(t, <-done)
	must(t, os.Remove(s.path("f")))
	<-s.fs.invalidate(nil)
	ops := map[string]OpStats{}
	st := s.m.Stats()
	for _, o := range st.Ops {
		ops[o.Op] = o
	}
	// The name of d, of f, and those of primePoll were looked up.
	if o := ops["lookup"]; o.Calls < 2 || o.Waited != 1 || o.Seconds <= 0 {
		t.Errorf("lookup %+v", o)
	}
	if o := ops["unlink"]; o.Calls != 2 || o.Waited != 0 {
		t.Errorf("unlink %+v", o)
	}
	if st.Invalidations != 1 {
		t.Errorf("%d invalidations", st.Invalidations)
	}
	s.end()
}
