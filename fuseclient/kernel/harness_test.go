package kernel

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"agentdrive/internal/errs"
)

// TestMain lets the test binary act as an application: faults, signals and
// O_APPEND races need a process of their own, for one that touches a mapping
// of the mount it serves would wait for itself.
func TestMain(m *testing.M) {
	if name := os.Getenv("KERNEL_TEST_APP"); name != "" {
		if err := apps[name](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// app starts this binary as an application.
func app(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), "KERNEL_TEST_APP="+name)
	cmd.Stderr = os.Stderr
	t.Cleanup(func() {
		if cmd.Process != nil && cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	return cmd
}

// mount mounts fs in a fresh directory; the mount is gone when the test ends,
// however it ends.
func mount(t *testing.T, fs Backend, change func(*Config)) *Mount {
	t.Helper()
	if _, err := os.Stat(devicePath); err != nil {
		t.Skipf("FUSE mounts are not possible here: %v", err)
	}
	cfg := Config{Dir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(testLog{t}, nil))}
	if change != nil {
		change(&cfg)
	}
	m, err := New(fs, cfg)
	if errors.Is(err, unix.EPERM) || errs.Is(err, errs.Permission) || errs.Is(err, errs.Unavailable) {
		t.Skipf("FUSE mounts are not permitted here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !m.over() {
			if err := m.Abort(); err != nil {
				t.Errorf("abort: %v", err)
			}
		}
	})
	// A test that hangs in a call to the mount it serves could not even be
	// ended by the testing package: cut the connection before that.
	if deadline, ok := t.Deadline(); ok {
		w := time.AfterFunc(time.Until(deadline)*3/4, func() {
			t.Error("the test hangs: connection aborted")
			if err := m.abort(); err != nil {
				t.Error(err)
			}
		})
		t.Cleanup(func() { w.Stop() })
	}
	primePoll(t, m.Dir())
	return m
}

// primePoll makes the kernel learn that there is no FUSE_POLL here. Else Go's
// runtime, adding a file of the mount to its epoll set, would sit in an upcall
// with a processor in its hands that the server may need.
func primePoll(t *testing.T, dir string) {
	t.Helper()
	name := filepath.Join(dir, ".prime")
	fd, err := unix.Open(name, unix.O_CREAT|unix.O_RDWR, 0o600)
	if errors.Is(err, unix.EROFS) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	if err := unix.Unlink(name); err != nil {
		t.Fatal(err)
	}
}

// testLog sends log lines to the test and fails it for errors.
type testLog struct{ t *testing.T }

func (w testLog) Write(b []byte) (int, error) {
	line := strings.TrimSpace(string(b))
	if strings.Contains(line, "level=ERROR") {
		w.t.Error(line)
	} else {
		w.t.Log(line)
	}
	return len(b), nil
}

// unmount unmounts and checks that everything came back.
func unmount(t *testing.T, m *Mount, fs *memFS) {
	t.Helper()
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	checkBalance(t, fs)
}

func checkBalance(t *testing.T, fs *memFS) {
	t.Helper()
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if len(fs.pins) > 0 || len(fs.opens) > 0 {
		t.Errorf("not given back: pins %v, open handles %v", fs.pins, fs.opens)
	}
	for _, s := range fs.badPins {
		t.Error(s)
	}
}

// apps are the programs of TestMain.
var apps = map[string]func(args []string) error{
	"append": appAppend,
	"dirty":  appDirty,
	"hog":    appHog,
	"lock":   appLock,
	"catch":  appCatch,
	"mmap":   appMmap,
}

// until waits for a condition that nothing announces.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for range 20_000 {
		if cond() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("never happened: %s", what)
}
