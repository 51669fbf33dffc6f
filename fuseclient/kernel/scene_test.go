package kernel

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"agentdrive/fuseclient/core"
	"agentdrive/metaserver/meta"
)

// forLong is a lifetime that no test outlives.
var forLong = core.Cache{Entry: 1e12, Attr: 1e12}

// scene is a mount whose answers may be believed for long, with a directory d.
type scene struct {
	t   *testing.T
	fs  *memFS
	m   *Mount
	dir meta.Ino
}

func newScene(t *testing.T, change func(*Config)) *scene {
	t.Helper()
	fs := newMemFS()
	m := mount(t, fs, change)
	s := &scene{t: t, fs: fs, m: m}
	s.dir = s.foreign(&meta.Make{Parent: meta.RootIno, Name: "d", Mode: meta.ModeDir | 0o755})
	fs.mu.Lock()
	fs.lives, fs.keep = forLong, true
	fs.mu.Unlock()
	return s
}

func (s *scene) path(name string) string { return filepath.Join(s.m.Dir(), "d", name) }

// foreign makes an entry as another mount does, which this kernel knows
// nothing of, and returns its inode.
func (s *scene) foreign(op *meta.Make) meta.Ino {
	s.t.Helper()
	op.Cred = meta.Cred{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	r, err := s.fs.direct(op)
	must(s.t, err)
	return r.(*meta.EntryResult).Attr.Ino
}

func (s *scene) file(name string, data string) meta.Ino {
	s.t.Helper()
	ino := s.foreign(&meta.Make{Parent: s.dir, Name: name, Mode: meta.ModeRegular | 0o644})
	s.fs.mu.Lock()
	defer s.fs.mu.Unlock()
	s.change(ino, data)()
	return ino
}

// change returns what makes another mount's write to a file.
func (s *scene) change(ino meta.Ino, data string) func() {
	return func() {
		n := s.fs.inodes[ino]
		n.data = []byte(data)
		s.fs.touch(n)
	}
}

func (s *scene) count(what string) int {
	s.fs.mu.Lock()
	defer s.fs.mu.Unlock()
	return s.fs.counts[what]
}

// size is what stat(2) says.
func (s *scene) size(name string) int64 {
	s.t.Helper()
	return lstat(s.t, s.path(name)).Size
}

// start runs f, whose request is held at the Backend when start returns.
func (s *scene) start(f func() error) (result chan error) {
	s.t.Helper()
	result = make(chan error, 1)
	go func() { result <- f() }()
	select {
	case <-s.fs.held:
	case err := <-result:
		s.t.Fatalf("ended without a request that is held: %v", err)
	}
	return result
}

func (s *scene) stat(name string) func() error {
	return func() error {
		var st unix.Stat_t
		return unix.Lstat(s.path(name), &st)
	}
}

// waitsOrDone returns when an invalidation has come as far as it can: it waits
// for a reply, as it must, or has overtaken it.
func (s *scene) waitsOrDone(told <-chan struct{}) {
	s.t.Helper()
	until(s.t, "the invalidation waits", func() bool {
		select {
		case <-told:
			return true
		default:
		}
		l := s.m.conn.led
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.orders) > 0
	})
}

func isOp[T any](check func(T) bool) func(any) bool {
	return func(op any) bool {
		x, ok := op.(T)
		return ok && check(x)
	}
}

func lookupOf(name string) func(any) bool {
	return isOp(func(l *meta.Lookup) bool { return l.Name == name })
}

func (s *scene) end() {
	s.t.Helper()
	unmount(s.t, s.m, s.fs)
	if n := s.m.conn.led.busy.Load(); n != 0 || len(s.m.conn.led.files) != 0 || s.m.conn.led.first != nil {
		s.t.Errorf("left in the ledger: busy %d, files %d", n, len(s.m.conn.led.files))
	}
}

// onFirstCPU binds this goroutine to a thread on the first processor, for good.
func onFirstCPU() error {
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(0)
	return unix.SchedSetaffinity(0, &set)
}

// lazily runs f on a thread that gets the first processor only when nobody
// else wants it: what the kernel does for it after a reply comes late.
func lazily(f func() error) error {
	done := make(chan error)
	go func() {
		if err := onFirstCPU(); err != nil {
			done <- err
			return
		}
		const schedIdle = 5
		prio := int32(0)
		if _, _, e := unix.Syscall(unix.SYS_SCHED_SETSCHEDULER, 0, schedIdle, uintptr(unsafe.Pointer(&prio))); e != 0 {
			done <- e
			return
		}
		done <- f()
	}()
	return <-done
}

// appHog keeps the first processor busy until its input ends.
func appHog([]string) error {
	if err := onFirstCPU(); err != nil {
		return err
	}
	fmt.Println("busy")
	var over atomic.Bool
	var err error
	go func() {
		_, err = io.Copy(io.Discard, os.Stdin)
		over.Store(true)
	}()
	for !over.Load() { // keeping busy is its purpose
	}
	return err
}

// hogs keep the first processor busy until the test ends.
func hogs(t *testing.T) {
	t.Helper()
	if runtime.NumCPU() < 2 {
		t.Skip("the processor is needed by the mount")
	}
	for range 2 {
		hog := app(t, "hog")
		in, err := hog.StdinPipe()
		must(t, err)
		out, err := hog.StdoutPipe()
		must(t, err)
		must(t, hog.Start())
		_, err = out.Read(make([]byte, 1))
		must(t, err)
		t.Cleanup(func() {
			must(t, in.Close())
			must(t, hog.Wait())
		})
	}
}
