package kernel

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"agentdrive/fuseclient/core"
	"agentdrive/metaserver/meta"
)

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
			s.waitsOrDone(told)
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
	s.waitsOrDone(told)
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
	s.waitsOrDone(told)
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
			s.waitsOrDone(told)
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

// TestAppliedLate: replies and invalidations race without any help of ours. A
// reply may be written and not yet applied by the kernel when it is told to
// forget: it knows nothing of the inode then.
func TestAppliedLate(t *testing.T) {
	const rounds = 600
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	s := newScene(t, nil)
	for i := range rounds {
		name := fmt.Sprint("f", i)
		ino := s.file(name, "old")
		how := rnd.IntN(4)
		delay := time.Duration(rnd.IntN(150)) * time.Microsecond
		done := make(chan error, 1)
		go func() {
			if how >= 2 {
				_, err := os.ReadDir(s.path(""))
				done <- err
				return
			}
			done <- s.stat(name)()
		}()
		for start := time.Now(); time.Since(start) < delay; {
		}
		item := core.Inval{Ino: ino, Attr: how == 0}
		if how == 3 {
			item = core.Inval{Epoch: true}
		}
		// The truth changes with the invalidation: whoever asks later is told.
		told := s.fs.invalidate(func() {
			if how == 3 {
				s.fs.detach(s.fs.inodes[s.dir], name)
			} else {
				s.change(ino, "newer")()
			}
		}, item)
		must(t, <-done)
		<-told
		if how == 3 {
			if err := s.stat(name)(); !errors.Is(err, syscall.ENOENT) {
				t.Fatalf("round %d: a name outlived its epoch: %v", i, err)
			}
			s.set(func(fs *memFS) { fs.attach(fs.inodes[s.dir], name, fs.inodes[ino]) })
			<-s.fs.invalidate(nil, core.Inval{Dir: s.dir, Name: name})
		} else if size := s.size(name); size != 5 {
			t.Fatalf("round %d (way %d): size %d, want 5", i, how, size)
		}
		must(t, os.Remove(s.path(name)))
	}
	s.end()
}

// TestAppliedVeryLate: the process that asked does not get to run after the
// reply is written, so that the kernel applies it long after it was told to
// forget what the reply brings.
func TestAppliedVeryLate(t *testing.T) {
	s := newScene(t, nil)
	s.m.conn.listingWait = 20 * time.Second
	hogs(t)
	for i := range 8 {
		for _, what := range []string{"lookup", "listing", "listing, epoch"} {
			name := fmt.Sprint("f", i, what)
			ino := s.file(name, "old")
			ask, item := s.stat(name), core.Inval{Ino: ino}
			s.fs.delay(lookupOf(name))
			if what != "lookup" {
				s.fs.delay(isOp(func(r *meta.ReadDir) bool { return r.Dir == s.dir && r.Plus && r.Cookie == 0 }))
				ask = func() error {
					_, err := os.ReadDir(s.path(""))
					return err
				}
			}
			if what == "listing, epoch" {
				item = core.Inval{Epoch: true}
			}
			done := s.start(func() error { return lazily(ask) })
			s.fs.letGo()
			for s.m.conn.led.barrier() != nil { // the reply is not written yet
				runtime.Gosched()
			}
			told := s.fs.invalidate(s.change(ino, "newer"), item)
			<-told
			must(t, <-done)
			n := s.count("lookup " + name)
			if size := s.size(name); item.Ino != 0 && size != 5 {
				t.Fatalf("round %d, %s: size %d, want 5", i, what, size)
			}
			if item.Epoch && s.count("lookup "+name) == n {
				t.Fatalf("round %d, %s: the name outlived its epoch", i, what)
			}
			must(t, os.Remove(s.path(name)))
		}
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

// TestNameBehindOwnRmdir: RMDIR locks the directory that it removes, which no
// Backend can know of. The name below it is dropped by an epoch that nobody
// asked for.
func TestNameBehindOwnRmdir(t *testing.T) {
	s := newScene(t, nil)
	if !s.m.conn.hasEpoch {
		t.Skip("this kernel has no FUSE_NOTIFY_INC_EPOCH")
	}
	sub := s.foreign(&meta.Make{Parent: s.dir, Name: "sub", Mode: meta.ModeDir | 0o755})
	must(t, s.stat("sub")())
	wantErrno(t, "absent", s.stat("sub/neg")(), syscall.ENOENT)
	s.fs.hang(isOp(func(*meta.Rmdir) bool { return true }))
	done := s.start(func() error { return unix.Rmdir(s.path("sub")) })
	n := s.count("lookup neg")
	<-s.fs.invalidate(nil, core.Inval{Dir: sub, Name: "neg"}) // RMDIR is still open
	s.fs.letGo()
	must(t, <-done)
	wantErrno(t, "removed", s.stat("sub")(), syscall.ENOENT)
	if st := s.m.Stats(); st.Hung == 0 || s.count("lookup neg") != n {
		t.Errorf("hung %d times", st.Hung)
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

// TestEpochDuringListing: the kernel gives the names of a listing the epoch of
// the moment when it takes them over, not that of the request. It shows in the
// root only: another directory's own name ends with its epoch, and takes those
// below with it.
func TestEpochDuringListing(t *testing.T) {
	s := newScene(t, nil)
	s.dir = meta.RootIno
	const files = 200
	for i := range files {
		s.file(fmt.Sprint("n", i), "")
	}
	s.m.conn.listingWait = 20 * time.Second
	hogs(t)
	for i := range 8 {
		s.fs.delay(isOp(func(r *meta.ReadDir) bool { return r.Dir == s.dir && r.Plus && r.Cookie == 0 }))
		done := s.start(func() error {
			return lazily(func() error {
				_, err := os.ReadDir(s.m.Dir())
				return err
			})
		})
		s.fs.letGo()
		for s.m.conn.led.barrier() != nil { // the reply is not written yet
			runtime.Gosched()
		}
		// What is answered from now on leaves nothing.
		<-s.fs.invalidate(func() { s.fs.lives = core.Cache{} }, core.Inval{Epoch: true})
		before := make([]int, files)
		for j := range before {
			before[j] = s.count(fmt.Sprint("lookup n", j))
		}
		must(t, <-done)
		for j := range before {
			name := fmt.Sprint("n", j)
			lstat(t, filepath.Join(s.m.Dir(), name))
			if s.count("lookup "+name) == before[j] {
				t.Fatalf("round %d: %s outlived its epoch", i, name)
			}
		}
		s.set(func(fs *memFS) { fs.lives = forLong })
		<-s.fs.invalidate(nil, core.Inval{Epoch: true})
	}
	s.end()
}
