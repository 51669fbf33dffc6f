package scenes

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// version is a page of text that tells which one it is.
func version(i int) string {
	return strings.Repeat(fmt.Sprintf("version %06d\n", i), 8192/15+1)[:8192]
}

// One holds a file open for writing while the other reads, back and forth:
// through an open file, a new one, and a mapping.
func TestBackAndForth(t *testing.T) {
	s := play(t, 1)
	s.must("write", func() error { return write(s.a+"/file", version(0)) })
	var files [2]*os.File
	var pages [2][]byte
	for i, dir := range []string{s.a, s.b} {
		f, err := os.OpenFile(dir+"/file", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
		if pages[i], err = syscall.Mmap(int(f.Fd()), 0, 8192, syscall.PROT_READ, syscall.MAP_SHARED); err != nil {
			t.Fatal(err)
		}
		defer syscall.Munmap(pages[i])
	}
	for i := 1; i <= 200; i++ {
		want := version(i)
		writer, reader := i%2, 1-i%2
		if i%7 == 0 {
			writer, reader = reader, writer // twice the same
		}
		s.must("write, no fsync", func() error {
			_, err := files[writer].WriteAt([]byte(want), 0)
			return err
		})
		how := []string{"read of an open file", "read of a new file", "load from a mapping"}[i%3]
		s.must(how, func() error {
			got := make([]byte, len(want))
			switch i % 3 {
			case 0:
				if _, err := files[reader].ReadAt(got, 0); err != nil {
					return err
				}
			case 1:
				return shows([]string{s.a, s.b}[reader]+"/file", want)
			case 2:
				copy(got, pages[reader])
			}
			if string(got) != want {
				return fmt.Errorf("round %d: %s, want %s", i, brief(string(got)), brief(want))
			}
			return nil
		})
	}
}

// Sizes and times are true right after a write elsewhere returned.
func TestSizeAndTime(t *testing.T) {
	s := play(t, 1)
	f, err := os.OpenFile(s.a+"/file", os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	last, err := stat(s.b + "/file")
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 300; i++ {
		s.must("write", func() error {
			_, err := f.WriteString("0123456789")
			return err
		})
		s.must("stat elsewhere", func() error {
			st, err := stat(s.b + "/file")
			if err != nil {
				return err
			}
			if st.Size != int64(10*i) || st.Mtim.Nano() <= last.Mtim.Nano() {
				return fmt.Errorf("after write %d: size %d, mtime %d after %d", i, st.Size, st.Mtim.Nano(), last.Mtim.Nano())
			}
			last = st
			return nil
		})
		if i%50 != 0 {
			continue
		}
		s.must("read elsewhere", func() error { return shows(s.b+"/file", strings.Repeat("0123456789", i)) })
	}
}

// All mounts append to one file at once: every record is there once, whole,
// and in its writer's order, at every mount.
func TestAppend(t *testing.T) {
	s := play(t, 1)
	third := s.Mount("demo", "c")
	const each, records = 2, 150
	var wg sync.WaitGroup
	for m, dir := range []string{s.a, s.b, third} {
		for w := range each {
			wg.Go(func() {
				f, err := os.OpenFile(dir+"/log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
				if err != nil {
					t.Error(err)
					return
				}
				defer f.Close()
				for i := range records {
					rec := fmt.Sprintf("%d.%d %d %s\n", m, w, i, strings.Repeat("x", i%40))
					if err := s.timed("append", func() error { _, err := f.WriteString(rec); return err }); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	for _, dir := range []string{s.a, s.b, third} {
		b, err := os.ReadFile(dir + "/log")
		if err != nil {
			t.Fatal(err)
		}
		next := map[string]int{}
		for line := range strings.Lines(string(b)) {
			who, rest, _ := strings.Cut(line, " ")
			if want := fmt.Sprintf("%d %s\n", next[who], strings.Repeat("x", next[who]%40)); rest != want {
				t.Fatalf("%s: record %q, want %q of %s", dir, line, want, who)
			}
			next[who]++
		}
		if len(next) != 3*each {
			t.Errorf("%s: %v", dir, next)
		}
		for who, n := range next {
			if n != records {
				t.Errorf("%s: %d records of %s, want %d", dir, n, who, records)
			}
		}
	}
}

// Rename over a file that the other has open and mapped: what is open stays
// what it was, the name leads to the new file at once.
func TestRenameOverOpen(t *testing.T) {
	s := play(t, 1)
	s.must("write", func() error { return write(s.a+"/name", version(0)) })
	for i := 1; i <= 40; i++ {
		f, err := os.Open(s.b + "/name")
		if err != nil {
			t.Fatal(err)
		}
		page, err := syscall.Mmap(int(f.Fd()), 0, 8192, syscall.PROT_READ, syscall.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 && !bytes.Equal(page, []byte(version(i-1))) { // else mapped, but not read yet
			t.Fatalf("round %d: mapping shows %s", i, brief(string(page)))
		}
		s.must("write and rename", func() error {
			return errors.Join(write(s.a+"/new", version(i)), os.Rename(s.a+"/new", s.a+"/name"))
		})
		s.must("open elsewhere", func() error { return shows(s.b+"/name", version(i)) })
		old := make([]byte, 8192)
		if _, err := f.ReadAt(old, 0); err != nil || string(old) != version(i-1) {
			t.Fatalf("round %d: open file shows %s, %v", i, brief(string(old)), err)
		}
		if string(page) != version(i-1) {
			t.Fatalf("round %d: mapping of the replaced file shows %s", i, brief(string(page)))
		}
		if fi, err := f.Stat(); err != nil || fi.Sys().(*syscall.Stat_t).Nlink != 0 {
			t.Fatalf("round %d: stat of the replaced file: %+v, %v", i, fi, err)
		}
		if err := errors.Join(syscall.Munmap(page), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// The other changes modes, links and directories inside a directory that the
// first works in; each sees the other's change at once.
func TestInsideAnothersDirectory(t *testing.T) {
	s := play(t, 1)
	s.must("mkdir", func() error { return os.Mkdir(s.a+"/d", 0o755) })
	for i := range 60 {
		f, g, sub := fmt.Sprintf("/d/f%d", i), fmt.Sprintf("/d/g%d", i), fmt.Sprintf("/d/s%d", i)
		s.must("create, mkdir", func() error { return errors.Join(write(s.a+f, "x"), os.Mkdir(s.a+sub, 0o755)) })
		s.must("chmod elsewhere", func() error { return os.Chmod(s.b+f, 0o600) })
		s.must("link elsewhere", func() error { return os.Link(s.b+f, s.b+g) })
		s.must("rmdir elsewhere", func() error { return syscall.Rmdir(s.b + sub) })
		s.must("stat", func() error {
			st, err := stat(s.a + f)
			if err == nil && (st.Mode&0o777 != 0o600 || st.Nlink != 2) {
				err = fmt.Errorf("%s: mode %o, %d links", f, st.Mode, st.Nlink)
			}
			return err
		})
		if err := os.WriteFile(s.a+sub+"/x", nil, 0o644); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("create in a removed directory: %v", err)
		}
		s.must("unlink, mkdir again", func() error { return errors.Join(os.Remove(s.a+f), os.Mkdir(s.a+sub, 0o755)) })
		s.must("stat elsewhere", func() error {
			st, err := stat(s.b + g)
			if err == nil && st.Nlink != 1 {
				err = fmt.Errorf("%s: %d links", g, st.Nlink)
			}
			return err
		})
		if _, err := os.Lstat(s.b + f); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("stat of what was removed: %v", err)
		}
	}
	for _, dir := range []string{s.a, s.b} {
		if list, err := os.ReadDir(filepath.Join(dir, "d")); err != nil || len(list) != 120 {
			t.Errorf("%s: %d names, %v", dir, len(list), err)
		}
	}
}

// Both count in one file under a lock; no step is lost.
func TestCountUnderLock(t *testing.T) {
	s := play(t, 1)
	s.must("write", func() error { return write(s.a+"/count", "00000000") })
	const steps = 100
	s.both(func(dir string) error {
		f, err := os.OpenFile(dir+"/count", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		for range steps {
			if err := s.timed("wait for the lock", func() error { return flock(f, syscall.LOCK_EX) }); err != nil {
				return err
			}
			b := make([]byte, 8)
			var n int
			if _, err := f.ReadAt(b, 0); err != nil {
				return err
			}
			if _, err := fmt.Sscanf(string(b), "%d", &n); err != nil {
				return err
			}
			if _, err := f.WriteAt(fmt.Appendf(nil, "%08d", n+1), 0); err != nil {
				return err
			}
			if err := flock(f, syscall.LOCK_UN); err != nil {
				return err
			}
		}
		return nil
	})
	for _, dir := range []string{s.a, s.b} {
		if err := shows(dir+"/count", fmt.Sprintf("%08d", 2*steps)); err != nil {
			t.Error(err)
		}
	}
}

// A file that is closed, and a process that ends, give their locks back: the
// other, which waits for them, gets them.
func TestLockedFileClosed(t *testing.T) {
	s := play(t, 1)
	s.must("write", func() error { return write(s.a+"/file", "") })
	for range 20 {
		f, err := os.OpenFile(s.a+"/file", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		g, err := os.OpenFile(s.b+"/file", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		s.must("flock", func() error { return flock(f, syscall.LOCK_EX) })
		if err := flock(g, syscall.LOCK_EX|syscall.LOCK_NB); err != syscall.EWOULDBLOCK {
			t.Fatalf("flock of a file that the other has locked: %v", err)
		}
		got := make(chan error, 1)
		go func() { got <- flock(g, syscall.LOCK_EX) }()
		s.must("close, and the other gets the lock", func() error { return errors.Join(f.Close(), <-got) })
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// a process with a lock is killed
	cmd := exec.Command("flock", s.a+"/file", "sh", "-c", "echo locked; exec cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // flock and what it runs
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	if _, err := out.Read(make([]byte, 7)); err != nil {
		t.Fatal(err)
	}
	g, err := os.OpenFile(s.b+"/file", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := flock(g, syscall.LOCK_EX|syscall.LOCK_NB); err != syscall.EWOULDBLOCK {
		t.Errorf("flock of a file that the other's process has locked: %v", err)
	}
	s.must("kill, and the other gets the lock", func() error {
		return errors.Join(syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL), flock(g, syscall.LOCK_EX))
	})
	cmd.Wait() // it was killed
}

// flock waits on, whatever signals the Go runtime sends itself.
func flock(f *os.File, how int) error {
	for {
		if err := syscall.Flock(int(f.Fd()), how); err != syscall.EINTR {
			return err
		}
	}
}
