package mountd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"agentdrive/cmd/internal/background"
	"agentdrive/cmd/internal/mountd"
	"agentdrive/cmd/internal/procfs"
	"agentdrive/internal/errs"
	"agentdrive/internal/obs"
)

// The test binary doubles as the daemon: `serve REGISTRY DIR DRIVE BACKING
// MODE`. BACKING.log
// records what is asked of the filesystem; BACKING.away makes flushes wait.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		os.Exit(serveMain(os.Args[2:]))
	}
	os.Exit(m.Run())
}

func serveMain(a []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	n := background.NewNotifier(background.ReadyFD)
	c := mountd.Config{Drive: a[2], Path: "/", Dir: a[1], ReadOnly: a[4] == "ro", Log: os.Stderr}
	err := mountd.Serve(ctx, mountd.Registry(a[0]), c, serveFake(a[3]), n.Ready)
	if err != nil {
		n.Fail(err)
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// memRoot is a directory in which files of memory can be made.
type memRoot struct{ gofs.Inode }

var _ gofs.NodeCreater = (*memRoot)(nil)

func (r *memRoot) Create(ctx context.Context, name string, _, _ uint32, _ *fuse.EntryOut) (*gofs.Inode, gofs.FileHandle, uint32, syscall.Errno) {
	return r.NewInode(ctx, &gofs.MemRegularFile{}, gofs.StableAttr{}), nil, 0, 0
}

// fakeFS is a real mount that records, beside BACKING, what was asked of it.
type fakeFS struct {
	*fuse.Server
	backing string
	conn    string // number of the connection
	once    sync.Once
}

func serveFake(backing string) mountd.ServeFunc {
	return func(_ context.Context, c mountd.Config) (mountd.Filesystem, error) {
		if c.Drive == "missing" {
			return nil, errs.E("mount", errs.NotExist, "no drive "+c.Drive, nil).WithHint("create it")
		}
		opts := &gofs.Options{MountOptions: fuse.MountOptions{FsName: "agentdrive:" + c.Drive, Name: "agentdrive"}}
		server, err := gofs.Mount(c.Dir, &memRoot{}, opts)
		if err != nil {
			return nil, err
		}
		var st syscall.Stat_t
		if err := syscall.Stat(c.Dir, &st); err != nil {
			return nil, err
		}
		return &fakeFS{Server: server, backing: backing, conn: fmt.Sprint(unix.Minor(st.Dev))}, nil
	}
}

func (m *fakeFS) away() bool {
	_, err := os.Stat(m.backing + ".away")
	return err == nil
}

func (m *fakeFS) note(what string) error {
	f, err := os.OpenFile(m.backing+".log", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.WriteString(f, what+"\n")
	return err
}

func (m *fakeFS) Flush(ctx context.Context) error {
	if m.away() {
		<-ctx.Done()
		return errs.E("flush", errs.Timeout, "servers are away", ctx.Err())
	}
	return m.note("flush")
}

func (m *fakeFS) Sync(context.Context) error { return m.note("sync") }

func (m *fakeFS) Stats() []obs.Sample { return nil }

func (m *fakeFS) Health() mountd.Health {
	h := mountd.Health{Session: 7, State: mountd.StateMounted}
	if m.away() {
		h.State, h.DirtyBytes, h.DirtyFiles = mountd.StateWaiting, 123, 2
	}
	return h
}

func (m *fakeFS) Wait() error {
	m.Server.Wait()
	return nil
}

// Close aborts the connection: as a real filesystem does by closing its
// /dev/fuse descriptor.
func (m *fakeFS) Close() error {
	m.once.Do(func() {
		if err := m.note("close"); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		if err := abort(m.backing, m.conn); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	})
	return nil
}

// abort cuts the connection, by way of a fusectl filesystem of its own.
func abort(backing, conn string) error {
	dir := backing + ".fusectl"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := syscall.Mount("fusectl", dir, "fusectl", 0, ""); err != nil {
		return err
	}
	defer syscall.Unmount(dir, 2)
	err := os.WriteFile(filepath.Join(dir, conn, "abort"), []byte("1"), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // it has ended already
	}
	return err
}

// fixture is a registry, a backing directory and a mount point.
type fixture struct {
	reg          mountd.Registry
	dir, backing string
}

func setup(t *testing.T) *fixture {
	t.Helper()
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		t.Skip("needs a usable /dev/fuse: ", err)
	} else {
		f.Close()
	}
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{reg: mountd.Registry(filepath.Join(base, "mounts")), dir: filepath.Join(base, "mnt", "a"), backing: filepath.Join(base, "backing")}
	for _, p := range []string{string(f.reg), f.backing} {
		if err := os.Mkdir(p, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		os.Remove(f.backing + ".away")
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if _, err := f.reg.StopAll(ctx, mountd.Force); err != nil {
			t.Error("cleaning up:", err)
		}
		for { // whatever a failed test left
			if _, ok, err := procfs.MountAt(f.dir); !ok || err != nil {
				return
			}
			if syscall.Unmount(f.dir, 2) != nil {
				return
			}
		}
	})
	return f
}

func (f *fixture) config(drive, mode string) mountd.Config {
	return mountd.Config{Drive: drive, Path: "/", Dir: f.dir, ReadOnly: mode == "ro"}
}

func (f *fixture) start(drive, mode string) (mountd.Started, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return f.reg.Start(ctx, f.config(drive, mode), background.Spec{
		Args: []string{"serve", string(f.reg), f.dir, drive, f.backing, mode},
		Log:  f.backing + ".out",
	})
}

func (f *fixture) mustStart(t *testing.T) mountd.Started {
	t.Helper()
	st, err := f.start("demo", "rw")
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func (f *fixture) mounted(t *testing.T) bool {
	t.Helper()
	_, ok, err := procfs.MountAt(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func (f *fixture) umount(mode mountd.Mode) (mountd.Outcome, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return f.reg.Umount(ctx, f.dir, mode)
}

func (f *fixture) list(t *testing.T) []mountd.Status {
	t.Helper()
	all, err := f.reg.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func wantKind(t *testing.T, err error, kind errs.Kind) {
	t.Helper()
	if !errs.Is(err, kind) {
		t.Fatalf("error is %v (%v), want kind %v", err, errs.KindOf(err), kind)
	}
}

// eventually waits for a condition of another process, up to a bound that
// only a failing test reaches.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, os.ErrNotExist)
}
