package scenes

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"agentdrive/bench/cluster"
)

// One unlinks what the other holds open; the other goes on reading; then its
// client dies, and with its session the file goes. The first is not held up
// where the dead one has no part; else until the end of that session.
func TestUnlinkThenDies(t *testing.T) {
	s := play(t, 1)
	text := strings.Repeat("still here\n", 100_000)
	s.must("write", func() error { return write(s.a+"/file", text) })
	s.must("mkdir", func() error { return os.Mkdir(s.a+"/own", 0o755) })
	s.Do("sync", s.a) // status knows what servers know
	before := s.Status().Drives[0]
	h := newHand(t)
	h.ok(order{Do: "open", Path: s.b + "/file"})
	if got := h.ok(order{Do: "read", N: 11}); got != text[:11] {
		t.Fatalf("read %q", got)
	}
	s.must("unlink", func() error { return syscall.Unlink(s.a + "/file") })
	if got := h.ok(order{Do: "read", N: len(text)}); got != text {
		t.Fatalf("the unlinked file shows %s", brief(got))
	}
	s.Do("sync", s.a)
	if st := s.Status().Drives[0]; st.Bytes < before.Bytes {
		t.Errorf("%d bytes are used while the file is open, %d before", st.Bytes, before.Bytes)
	}
	pid := s.pid(s.b)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.Gone(pid)
	begin := time.Now()
	// By its bytes: each round's own file is an inode without a name for a while,
	// too, and counts among the files.
	var st cluster.Drive
	defer func() {
		t.Logf("%d bytes of %d files before, %d of %d now", before.Bytes, before.Files, st.Bytes, st.Files)
	}()
	s.Eventually("end of the unlinked file", func() bool {
		s.must("create, read, unlink (other dead)", func() error {
			return errors.Join(write(s.a+"/own/x", "x"), shows(s.a+"/own/x", "x"), syscall.Unlink(s.a+"/own/x"))
		})
		s.Do("sync", s.a)
		st = s.Status().Drives[0]
		return st.Bytes+uint64(len(text)) <= before.Bytes+4096
	})
	t.Logf("the file went %v after its last client", time.Since(begin).Round(100*time.Millisecond))
}

// A client dies with data that it had not flushed: what it had synced is
// there, and after that all or nothing of each write.
func TestWriterDies(t *testing.T) {
	s := play(t, 1)
	h := newHand(t)
	h.ok(order{Do: "open", Path: s.b + "/file"})
	h.ok(order{Do: "write", Text: version(1)})
	h.ok(order{Do: "sync"})
	h.ok(order{Do: "write", Text: version(2)})
	if err := syscall.Kill(s.pid(s.b), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var got string
	s.must("read (the writer died)", func() (err error) {
		got, err = output(s.a, "cat", "file")
		return err
	})
	if got != version(1) && got != version(2) {
		t.Errorf("after fsync of version 1 and a write of version 2: %s", brief(got))
	}
	s.must("write (the writer died)", func() error { return write(s.a+"/file", version(3)) })
	s.must("read at a new mount", func() error { return shows(s.Mount("demo", "c")+"/file", version(3)) })
}

// still stops the daemon of mount b; the function it returns lets it go on.
func (s *scene) still() (on func()) {
	s.Helper()
	pid := s.pid(s.b)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		s.Fatal(err)
	}
	return func() {
		s.Helper()
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			s.Fatal(err)
		}
	}
}

// A client stands still for less than its session's life, with data that it
// had not flushed: the other waits for it, and sees that data.
func TestStandsStill(t *testing.T) {
	s := play(t, 1)
	s.must("write", func() error { return write(s.b+"/file", version(0)) })
	h, other := newHand(t), newHand(t)
	h.ok(order{Do: "open", Path: s.b + "/file"})
	for i := 1; i <= 3; i++ {
		h.ok(order{Do: "write", Text: version(i)})
		on := s.still()
		begin := time.Now()
		look := other.begin(order{Do: "readfile", Path: s.a + "/file"})
		time.Sleep(2 * time.Second) // how long it stands still
		on()
		got, err := look()
		if err != nil || got != version(i) {
			t.Fatalf("version %d: the other sees %s, %v", i, brief(got), err)
		}
		t.Logf("read after %v", time.Since(begin).Round(time.Millisecond))
	}
}

// A client stands still beyond its session's life. The other sees the file as
// it had been flushed, and goes on writing. Back again, the client shows what
// is true, its late writes do nothing, and whoever holds the file is told.
func TestSleepsBeyondSession(t *testing.T) {
	s := play(t, 1)
	s.must("write", func() error { return write(s.b+"/file", version(0)) })
	s.must("write", func() error { return write(s.b+"/calm", version(0)) })
	h, late, other := newHand(t), newHand(t), newHand(t)
	h.ok(order{Do: "open", Path: s.b + "/file"})
	h.ok(order{Do: "sync"}) // version 0 is safe
	late.ok(order{Do: "open", Path: s.b + "/calm"})
	late.ok(order{Do: "sync"})
	late.ok(order{Do: "read", N: 8192}) // in the kernel's cache
	pid := s.pid(s.b)
	h.ok(order{Do: "write", Text: version(1)})
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil { // at once: nothing in between
		t.Fatal(err)
	}
	var got string
	s.must("read (other asleep)", func() (err error) {
		got, err = other.do(order{Do: "readfile", Path: s.a + "/file"})
		return err
	})
	lost := got == version(0)
	if !lost && got != version(1) {
		t.Fatalf("the other sees %s", brief(got))
	}
	t.Logf("unflushed data lost: %v", lost)
	for _, name := range []string{"/file", "/calm"} { // which the other holds: its session has ended after this
		s.must("write (other asleep)", func() error {
			_, err := other.do(order{Do: "writefile", Path: s.a + name, Text: version(2)})
			return err
		})
	}
	calm := late.begin(order{Do: "read", N: 8192}) // while it sleeps
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if got, err := calm(); err == nil && got != version(2) {
		t.Errorf("an open file, clean, shows %s after waking up", brief(got))
	} else {
		t.Logf("an open file, clean, after waking up: %s, %v", brief(got), err)
	}
	_, werr := h.do(order{Do: "write", Text: "late ", Off: 100})
	_, serr := h.do(order{Do: "sync"})
	if lost && werr == nil && serr == nil {
		t.Error("data was lost, and neither write nor fsync of that file says so")
	}
	if lost {
		if err := shows(s.a+"/file", version(2)); err != nil {
			t.Errorf("after a late write: %v", err)
		}
	}
	_, err := h.do(order{Do: "close"})
	t.Logf("late write: %v, fsync: %v, close: %v", werr, serr, err)
	s.must("read after waking up", func() error {
		a, err := other.do(order{Do: "readfile", Path: s.a + "/file"})
		if err != nil {
			return err
		}
		return shows(s.b+"/file", a)
	})
	s.must("write after waking up", func() error { return write(s.b+"/file", version(3)) })
	s.must("read elsewhere", func() error { return shows(s.a+"/file", version(3)) })
}
