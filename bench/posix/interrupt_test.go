package posix

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long the tests wait for what must happen; reaching it is a
// failure.
const patience = 30 * time.Second

// freeze stops the servers; the function that it gives lets them go on.
func (p *program) freeze(t *testing.T) (thaw func()) {
	t.Helper()
	pids := map[int]bool{}
	for _, s := range p.status(t).Servers {
		pids[s.PID] = true
	}
	if len(pids) == 0 {
		t.Fatal("no servers")
	}
	all := func(sig unix.Signal) {
		for pid := range pids {
			if err := unix.Kill(pid, sig); err != nil {
				t.Error(err)
			}
		}
	}
	all(unix.SIGSTOP)
	var once sync.Once
	thaw = func() { once.Do(func() { all(unix.SIGCONT) }) }
	t.Cleanup(thaw)
	return thaw
}

// waits reports whether a process came to wait in the kernel for the mount; if
// not it ended, with err.
func waits(t *testing.T, cmd *exec.Cmd, done <-chan error) (waits bool, err error) {
	t.Helper()
	path := fmt.Sprintf("/proc/%d/wchan", cmd.Process.Pid)
	last := ""
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		select {
		case err := <-done:
			return false, err
		default:
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			t.Fatal(err)
		}
		// For the answer to a call, or for pages that are being read.
		if last = string(b); strings.Contains(last, "request_wait_answer") || strings.Contains(last, "folio_wait") {
			return true, nil
		}
	}
	t.Fatalf("%q does not wait for the mount, but in %q", cmd.Args, last)
	return false, nil
}

// blocked wants a process to wait in the kernel for the mount.
func blocked(t *testing.T, cmd *exec.Cmd, done <-chan error) {
	t.Helper()
	if ok, err := waits(t, cmd, done); !ok {
		t.Fatalf("%q ended: %v; it should have waited", cmd.Args, err)
	}
}

// dies wants a process that waits to end by a signal.
func dies(t *testing.T, cmd *exec.Cmd, done <-chan error, sig syscall.Signal) {
	t.Helper()
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := await(t, fmt.Sprintf("%q after %v", cmd.Args, sig), done); !errors.As(err, &exit) {
		t.Errorf("%q ended with %v, but was to be ended by %v", cmd.Args, err, sig)
	} else if ws := exit.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != sig {
		t.Errorf("%q: %v, want the end by %v", cmd.Args, exit, sig)
	}
}

// start runs a command whose end is reported on a channel.
func start(t *testing.T, args ...string) (*exec.Cmd, <-chan error) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill() })
	return cmd, done
}

func await(t *testing.T, what string, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		t.Fatalf("%s did not end", what)
		return nil
	}
}

// writer is a process that holds a file open. The tests themselves cannot: a
// process that they start closes its copy, and waits for the servers then.
type writer struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.Writer
	out  *bufio.Reader
	done chan error
}

func startWriter(t *testing.T, path string) *writer {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	// With GOTRACEBACK=crash SIGABRT ends it as a signal, without pending
	// ones; SIGKILL stays pending while it exits.
	cmd.Env = []string{roleEnv + "=writer", "POSIX_DIR=" + path, "GOTRACEBACK=crash"}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	w := &writer{t: t, cmd: cmd, in: in, out: bufio.NewReader(out), done: make(chan error, 1)}
	go func() {
		st, err := cmd.Process.Wait() // unlike cmd.Wait leaves the pipe open
		if err == nil && !st.Success() {
			err = errors.New(st.String())
		}
		w.done <- err
	}()
	return w
}

// writeSlowly is what the process of a writer does. Its first write makes the
// kernel ask for security.capability, the second asks for nothing.
func writeSlowly(path string) error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := f.WriteString("first"); err != nil {
		return err
	}
	fmt.Println("opened")
	if _, err := fmt.Scanln(new(string)); err != nil {
		return err
	}
	if _, err := f.Write(bytes.Repeat([]byte("0"), 100_000)); err != nil {
		return err
	}
	fmt.Println("written")
	if _, err := fmt.Scanln(new(string)); err != nil {
		return err
	}
	return f.Close()
}

func (w *writer) say(line string) {
	w.t.Helper()
	if _, err := fmt.Fprintln(w.in, line); err != nil {
		w.t.Fatal(err)
	}
}

func (w *writer) expect(want string) {
	w.t.Helper()
	got := make(chan string, 1)
	go func() {
		line, err := w.out.ReadString('\n')
		if err != nil {
			line = err.Error()
		}
		got <- strings.TrimSpace(line)
	}()
	select {
	case line := <-got:
		if line != want {
			w.t.Fatalf("the writer says %q, want %q", line, want)
		}
	case <-time.After(patience):
		w.t.Fatalf("the writer does not say %q", want)
	}
}

// TestKilledWriter: a process that is killed while the servers do not answer
// dies, although its files have data that is not published; the data is.
func TestKilledWriter(t *testing.T) {
	p := needMount(t)
	drive := p.drive(t)
	dir, other := p.mount(t, drive), p.mount(t, drive)
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGABRT} {
		name := fmt.Sprintf("/f%d", int(sig))
		w := startWriter(t, dir+name)
		w.expect("opened")
		thaw := p.freeze(t)
		w.say("go")
		w.expect("written")
		// It closes the file as it dies.
		if err := w.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if err := await(t, fmt.Sprintf("the writer after %v", sig), w.done); err == nil || !strings.Contains(err.Error(), "signal: ") {
			t.Errorf("the writer ended with %v, want %v", err, sig)
		}
		thaw()
		p.must(t, "sync", dir)
		holds(t, other+name, append([]byte("first"), bytes.Repeat([]byte("0"), 100_000)...))
	}
}

// TestKilledServers: a mount survives the death of all servers; what waited
// and what was buffered is completed when they are started again.
func TestKilledServers(t *testing.T) {
	p := needMount(t)
	dir := p.mount(t, p.drive(t))
	write(t, dir+"/f", []byte("content"))
	w := startWriter(t, dir+"/buffered")
	w.expect("opened")
	killed := map[int]bool{}
	for _, s := range p.status(t).Servers {
		if !killed[s.PID] {
			killed[s.PID] = true
			if err := unix.Kill(s.PID, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.say("go")
	w.expect("written") // needs nobody
	w.say("close")
	cmd, done := start(t, "cat", dir+"/f")
	blocked(t, cmd, done)
	mk, made := start(t, "mkdir", dir+"/d")
	blocked(t, mk, made)
	p.must(t, "up", "--detach")
	if err := await(t, "cat", done); err != nil {
		t.Errorf("cat, which waited: %v", err)
	}
	if err := await(t, "mkdir", made); err != nil {
		t.Errorf("mkdir, which waited: %v", err)
	}
	if err := await(t, "the writer", w.done); err != nil {
		t.Errorf("the writer, which waited at its end: %v", err)
	}
	holds(t, dir+"/f", []byte("content"))
	holds(t, dir+"/buffered", append([]byte("first"), bytes.Repeat([]byte("0"), 100_000)...))
}

// TestSignalsDoNotInterrupt: signals that are handled and do not mean "stop"
// reach no program as EINTR, as on a local disk: programs that use timers do
// not expect it.
func TestSignalsDoNotInterrupt(t *testing.T) {
	dir := newMount(t)
	got := make(chan os.Signal, 1)
	signal.Notify(got, syscall.SIGUSR1)
	defer signal.Stop(got)
	tids, over := make(chan int), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		tids <- unix.Gettid()
		over <- busy(dir, 60)
	}()
	tid := <-tids
	tick := time.NewTicker(500 * time.Microsecond)
	defer tick.Stop()
	sent := 0
	for {
		select {
		case err := <-over:
			if err != nil {
				t.Errorf("after %d signals: %v", sent, err)
			}
			if sent < 20 {
				t.Errorf("only %d signals were sent", sent)
			}
			return
		case <-tick.C:
			if err := unix.Tgkill(unix.Getpid(), tid, unix.SIGUSR1); err != nil {
				t.Fatal(err)
			}
			sent++
		}
	}
}

// busy works on a directory with bare system calls, which repeat nothing.
func busy(dir string, rounds int) error {
	for i := range rounds {
		path := fmt.Sprintf("%s/f%d", dir, i)
		fd, err := unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
		if err != nil {
			return fmt.Errorf("open: %w", err)
		}
		if n, err := unix.Pwrite(fd, bytes.Repeat([]byte{byte(i)}, 100_000), 0); n != 100_000 || err != nil {
			return fmt.Errorf("write of %d: %w", n, err)
		}
		if err := unix.Fsync(fd); err != nil {
			return fmt.Errorf("fsync: %w", err)
		}
		buf := make([]byte, 100_000)
		if n, err := unix.Pread(fd, buf, 0); n != len(buf) || err != nil {
			return fmt.Errorf("read of %d: %w", n, err)
		}
		if err := unix.Close(fd); err != nil {
			return fmt.Errorf("close: %w", err)
		}
		if err := unix.Stat(path, new(unix.Stat_t)); err != nil {
			return fmt.Errorf("stat: %w", err)
		}
		if err := unix.Rename(path, dir+"/g"); err != nil {
			return fmt.Errorf("rename: %w", err)
		}
	}
	return nil
}
