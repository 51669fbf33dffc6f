package lockfile_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"agentdrive/cmd/internal/lockfile"
	"agentdrive/internal/errs"
)

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if _, held, err := lockfile.Held(path); held || err != nil {
		t.Fatal("missing file:", held, err)
	}
	l, err := lockfile.Try(path)
	if err != nil {
		t.Fatal(err)
	}
	pid, held, err := lockfile.Held(path)
	if pid != os.Getpid() || !held || err != nil {
		t.Fatal(pid, held, err)
	}
	_, err = lockfile.Try(path)
	if !errs.Is(err, errs.Locked) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := lockfile.Wait(gone, path); !errs.Is(err, errs.Timeout) {
		t.Fatal(err)
	}
	go l.Close()
	l, err = lockfile.Wait(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, held, _ := lockfile.Held(path); held {
		t.Fatal("held after Close")
	}
}

// A duplicate of the descriptor keeps the lock after Close: what children do.
func TestInheritedDescriptorKeepsLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l, err := lockfile.Try(path)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Dup(int(l.File().Fd()))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, held, _ := lockfile.Held(path); !held {
		t.Fatal("free although a duplicate is open")
	}
	syscall.Close(fd)
	if _, held, _ := lockfile.Held(path); held {
		t.Fatal("still held")
	}
}
