package background_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"agentdrive/cmd/internal/background"
	"agentdrive/internal/errs"
)

// The test binary doubles as the daemon.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "daemon" {
		n := background.NewNotifier(background.ReadyFD)
		switch os.Args[2] {
		case "ready":
			n.Ready()
			n.Fail(fmt.Errorf("too late to matter"))
			select {} // until killed
		case "fail":
			n.Fail(errs.E("test", errs.NotEmpty, "the directory is not empty", nil).WithHint("take another"))
			os.Exit(4)
		case "die":
			fmt.Fprintln(os.Stderr, "panic: at once")
			os.Exit(2)
		case "hang":
			time.Sleep(time.Hour)
		}
	}
	os.Exit(m.Run())
}

func start(ctx context.Context, t *testing.T, how string) (int, error) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(log, []byte("old words\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return background.Start(ctx, background.Spec{Args: []string{"daemon", how}, Log: log})
}

func TestReady(t *testing.T) {
	pid, err := start(context.Background(), t, "ready")
	if err != nil {
		t.Fatal(err)
	}
	sid, _, errno := syscall.Syscall(syscall.SYS_GETSID, uintptr(pid), 0, 0)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Error("it does not run:", err)
	}
	if errno != 0 || int(sid) != pid {
		t.Errorf("daemon %d is in session %d", pid, sid)
	}
}

// A descriptor that this process got without close-on-exec stays here.
func TestDaemonInheritsNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stranger")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := syscall.Dup(int(f.Fd())) // without close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	pid, err := start(context.Background(), t, "ready")
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGKILL)
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range fds {
		if at, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && at == path {
			t.Fatalf("the daemon holds %s as descriptor %s", at, e.Name())
		}
	}
}

func TestFailure(t *testing.T) {
	_, err := start(context.Background(), t, "fail")
	if !errs.Is(err, errs.NotEmpty) || errs.HintOf(err) != "take another" {
		t.Fatalf("%v, %v", err, errs.KindOf(err))
	}
}

func TestDeathShowsOwnLog(t *testing.T) {
	_, err := start(context.Background(), t, "die")
	if err == nil || !strings.Contains(err.Error(), "panic: at once") || strings.Contains(err.Error(), "old words") {
		t.Fatal(err)
	}
}

func TestTimeout(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := start(ctx, t, "hang"); !errs.Is(err, errs.Timeout) {
		t.Fatal(err)
	}
}
