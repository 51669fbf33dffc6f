package kernel

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

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

// TestCachedAnswers: what may be believed is not asked again.
func TestCachedAnswers(t *testing.T) {
	s := newScene(t, nil)
	s.file("f", "data")
	s.stat("f")()
	wantErrno(t, "absent", s.stat("no")(), syscall.ENOENT)
	fd, err := unix.Open(s.path("f"), unix.O_RDONLY, 0)
	must(t, err)
	buf := make([]byte, 10)
	read := func() {
		n, err := unix.Pread(fd, buf, 0)
		if err != nil || string(buf[:n]) != "data" {
			t.Errorf("read %q %v", buf[:n], err)
		}
	}
	read()
	must(t, s.stat("f")()) // a READ makes the kernel ask for the time of access
	before := [...]int{s.count("lookup f"), s.count("lookup no"), s.count("getattr"), s.count("read")}
	must(t, s.stat("f")())
	wantErrno(t, "absent", s.stat("no")(), syscall.ENOENT)
	must(t, unix.Close(fd))
	fd, err = unix.Open(s.path("f"), unix.O_RDONLY, 0) // keeps the pages
	must(t, err)
	read()
	after := [...]int{s.count("lookup f"), s.count("lookup no"), s.count("getattr"), s.count("read")}
	if before != after {
		t.Errorf("asked again: lookup f, lookup no, getattr, read were %v, are %v", before, after)
	}
	must(t, unix.Close(fd))
	s.end()
}

// TestLateLookup: the reply to a LOOKUP of an inode that the kernel does not
// know is written after the inode was to be forgotten. The kernel, asked to
// forget, knows nothing; the reply must not be believed.
func TestLateLookup(t *testing.T) {
	for _, what := range []string{"attributes", "everything", "name", "epoch"} {
		t.Run(what, func(t *testing.T) {
			s := newScene(t, nil)
			ino := s.file("f", "old")
			s.fs.delay(lookupOf("f"))
			done := s.start(s.stat("f"))
			item := map[string]core.Inval{
				"attributes": {Ino: ino, Attr: true}, "everything": {Ino: ino},
				"name": {Dir: s.dir, Name: "f"}, "epoch": {Epoch: true},
			}[what]
			told := s.fs.invalidate(s.change(ino, "newer"), item)
			s.fs.letGo()
			must(t, <-done)
			<-told
			asked := fmt.Sprint("getattr ", ino)
			n, g := s.count("lookup f"), s.count(asked)
			size := s.size("f")
			if what == "attributes" || what == "everything" {
				if size != 5 || s.count(asked) != g+1 {
					t.Errorf("size %d, want 5; asked %d times, want 1", size, s.count(asked)-g)
				}
			} else if s.count("lookup f") != n+1 {
				t.Errorf("the name was believed")
			}
			s.end()
		})
	}
}

// TestLateNegative: so with a name that is absent.
func TestLateNegative(t *testing.T) {
	s := newScene(t, nil)
	s.fs.delay(lookupOf("f"))
	done := s.start(s.stat("f"))
	s.foreign(&meta.Make{Parent: s.dir, Name: "f", Mode: meta.ModeRegular | 0o644})
	told := s.fs.invalidate(nil, core.Inval{Dir: s.dir, Name: "f"})
	s.fs.letGo()
	wantErrno(t, "the late reply", <-done, syscall.ENOENT)
	<-told
	must(t, s.stat("f")())
	s.end()
}

// TestRevalidation: a LOOKUP that renews a name the kernel has, late.
func TestRevalidation(t *testing.T) {
	s := newScene(t, nil)
	s.file("f", "old")
	s.fs.mu.Lock()
	s.fs.lives = core.Cache{}
	s.fs.mu.Unlock()
	must(t, s.stat("f")())
	s.fs.mu.Lock()
	s.fs.lives = forLong
	s.fs.mu.Unlock()
	s.fs.delay(lookupOf("f"))
	done := s.start(s.stat("f"))
	told := s.fs.invalidate(nil, core.Inval{Dir: s.dir, Name: "f"})
	s.fs.letGo()
	must(t, <-done)
	<-told
	n := s.count("lookup f")
	must(t, s.stat("f")())
	if s.count("lookup f") == n {
		t.Error("the name was believed")
	}
	s.end()
}

// TestLateListing: the reply to READDIRPLUS brings names and attributes; it is
// written after both were to be forgotten.
func TestLateListing(t *testing.T) {
	for _, what := range []string{"inode", "name", "epoch"} {
		t.Run(what, func(t *testing.T) {
			s := newScene(t, nil)
			ino := s.file("f", "old")
			s.fs.delay(isOp(func(r *meta.ReadDir) bool { return r.Dir == s.dir && r.Plus }))
			done := s.start(func() error {
				_, err := os.ReadDir(s.path(""))
				return err
			})
			item := map[string]core.Inval{"inode": {Ino: ino, Attr: true}, "name": {Dir: s.dir, Name: "f"}, "epoch": {Epoch: true}}[what]
			told := s.fs.invalidate(s.change(ino, "newer"), item)
			s.fs.letGo()
			must(t, <-done)
			<-told
			n := s.count("lookup f")
			size := s.size("f")
			if what == "inode" && size != 5 {
				t.Errorf("size %d, want 5", size)
			}
			if what != "inode" && s.count("lookup f") != n+1 {
				t.Error("the name was believed")
			}
			s.end()
		})
	}
}

// TestAppliedLate: what the kernel was told and what it was told to forget
// race without any help of ours: the reply is written, but not yet applied.
func TestAppliedLate(t *testing.T) {
	const rounds = 300
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	s := newScene(t, nil)
	for i := range rounds {
		name := fmt.Sprint("f", i)
		ino := s.file(name, "old")
		other := s.file(name+"x", "old")
		spin := rnd.IntN(3000)
		how := rnd.IntN(3)
		done := make(chan error, 1)
		go func() {
			if how == 2 {
				_, err := os.ReadDir(s.path(""))
				done <- err
				return
			}
			done <- s.stat(name)()
		}()
		for range spin {
			_ = s.m.conn.led.busy.Load()
		}
		items := []core.Inval{{Ino: ino, Attr: how == 0}, {Ino: other, Attr: true}}
		told := s.fs.invalidate(func() { s.change(ino, "newer")(); s.change(other, "newer")() }, items...)
		must(t, <-done)
		<-told
		for _, n := range []string{name, name + "x"} {
			if size := s.size(n); size != 5 {
				t.Fatalf("round %d (way %d): size of %s is %d, want 5", i, how, n, size)
			}
		}
		must(t, os.Remove(s.path(name)))
		must(t, os.Remove(s.path(name+"x")))
	}
	s.end()
}

// TestNewNamesLeaveNoAttributes: the kernel applies the attributes of replies
// to CREATE, MKNOD, MKDIR, SYMLINK and LINK whatever overtook them (C2).
func TestNewNamesLeaveNoAttributes(t *testing.T) {
	for name, make := range map[string]func(s *scene) error{
		"create": func(s *scene) error {
			fd, err := unix.Open(s.path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
			if err == nil {
				err = unix.Close(fd)
			}
			return err
		},
		"mknod":   func(s *scene) error { return unix.Mknod(s.path("f"), unix.S_IFREG|0o644, 0) },
		"mkdir":   func(s *scene) error { return unix.Mkdir(s.path("f"), 0o755) },
		"symlink": func(s *scene) error { return unix.Symlink("x", s.path("f")) },
		"link":    func(s *scene) error { return unix.Link(s.path("old"), s.path("f")) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, nil)
			old := s.file("old", "old")
			must(t, s.stat("old")())
			s.fs.delay(func(op any) bool {
				switch op.(type) {
				case *meta.Make, *meta.Link:
					return true
				}
				return false
			})
			done := s.start(func() error { return make(s) })
			ino := old
			s.fs.mu.Lock()
			if name != "link" {
				ino = s.fs.inodes[s.dir].children["f"]
			}
			s.fs.mu.Unlock()
			// The notification would come too late for the attributes, and
			// too early for the reply: nothing but the zero lifetime helps.
			s.fs.letGo()
			must(t, <-done)
			must(t, s.stat("f")()) // open(2) may have asked already
			if s.count(fmt.Sprint("getattr ", ino)) == 0 {
				t.Errorf("attributes of inode %d were believed", ino)
			}
			s.end()
		})
	}
}

// TestNameBehindOwnCreate: a name cannot be forgotten while an own CREATE
// holds its directory's lock, and the CREATE may wait for just that at the
// servers. A new epoch ends it.
func TestNameBehindOwnCreate(t *testing.T) {
	s := newScene(t, nil)
	if !s.m.conn.hasEpoch {
		t.Skip("this kernel has no FUSE_NOTIFY_INC_EPOCH")
	}
	wantErrno(t, "absent", s.stat("neg")(), syscall.ENOENT)
	s.file("pos", "x")
	must(t, s.stat("pos")())
	s.fs.hang(isOp(func(*meta.Make) bool { return true }))
	done := s.start(func() error { return unix.Mkdir(s.path("new"), 0o755) })
	blocked := s.fs.invalidate(nil, core.Inval{Dir: s.dir, Name: "neg"}, core.Inval{Dir: s.dir, Name: "pos"})
	<-s.fs.invalidate(nil, core.Inval{Epoch: true})
	<-blocked // the CREATE is still open
	s.fs.letGo()
	must(t, <-done)
	n, p := s.count("lookup neg"), s.count("lookup pos")
	wantErrno(t, "absent", s.stat("neg")(), syscall.ENOENT)
	must(t, s.stat("pos")())
	if s.count("lookup neg") != n+1 || s.count("lookup pos") != p+1 {
		t.Error("names outlived the epoch")
	}
	s.end()
}

// TestUnansweredIsNotWaitedFor: a request that the Backend has not answered
// says nothing old, and may wait for the invalidation itself.
func TestUnansweredIsNotWaitedFor(t *testing.T) {
	s := newScene(t, nil)
	ino := s.file("f", "old")
	s.fs.hang(lookupOf("f"))
	done := s.start(s.stat("f"))
	<-s.fs.invalidate(s.change(ino, "newer"), core.Inval{Ino: ino}, core.Inval{Ino: s.dir})
	s.fs.letGo()
	must(t, <-done)
	if size := s.size("f"); size != 5 {
		t.Errorf("size %d, want 5", size)
	}
	s.end()
}

// TestManyInvalidations: many of all kinds beside traffic, none is lost.
func TestManyInvalidations(t *testing.T) {
	s := newScene(t, nil)
	const files, rounds = 8, 200
	inos := make([]meta.Ino, files)
	for i := range inos {
		inos[i] = s.file(fmt.Sprint("f", i), "0")
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for i := range 4 {
		wg.Go(func() {
			for j := 0; ; j++ {
				select {
				case <-stop:
					return
				default:
				}
				name := fmt.Sprint("f", (i+j)%files)
				if err := s.stat(name)(); err != nil {
					t.Error(err)
					return
				}
				if _, err := os.ReadFile(s.path(name)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range rounds {
		k := i % files
		data := fmt.Sprint(i, "-", make([]byte, i%50))
		<-s.fs.invalidate(s.change(inos[k], data), core.Inval{Ino: inos[k]}, core.Inval{Dir: s.dir, Name: fmt.Sprint("f", k)})
		got, err := os.ReadFile(s.path(fmt.Sprint("f", k)))
		if err != nil || string(got) != data {
			t.Fatalf("round %d: %q %v, want %q", i, got, err, data)
		}
	}
	close(stop)
	wg.Wait()
	s.end()
}
