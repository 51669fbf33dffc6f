package kernel

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"agentdrive/fuseclient/core"
	"agentdrive/metaserver/meta"
)

func (s *scene) open(name string, flags int) int {
	s.t.Helper()
	fd, err := unix.Open(s.path(name), flags, 0)
	must(s.t, err)
	return fd
}

func (s *scene) pread(fd int, off int64, n int) string {
	s.t.Helper()
	buf := make([]byte, n)
	got, err := unix.Pread(fd, buf, off)
	must(s.t, err)
	return string(buf[:got])
}

func (s *scene) set(change func(fs *memFS)) {
	s.fs.mu.Lock()
	defer s.fs.mu.Unlock()
	change(s.fs)
}

// sneak changes data without a trace in size or times, as a writer does that
// sets them back.
func (s *scene) sneak(ino meta.Ino, data string) func() {
	return func() {
		n := s.fs.inodes[ino]
		if len(n.data) != len(data) {
			s.t.Fatal("another size")
		}
		n.data = []byte(data)
	}
}

// TestPagesKeptAndDropped: pages read under a lease are read again only after
// an invalidation, of the inode or of their range.
func TestPagesKeptAndDropped(t *testing.T) {
	s := newScene(t, nil)
	a, b := strings.Repeat("a", 8192), strings.Repeat("b", 8192)
	ino := s.file("f", a)
	fd := s.open("f", unix.O_RDONLY)
	if s.pread(fd, 0, 8192) != a {
		t.Fatal("first read")
	}
	// A change that the kernel is not told of is not seen: so it does cache.
	s.set(func(*memFS) { s.sneak(ino, b)() })
	if s.pread(fd, 0, 8192) != a {
		t.Error("pages were not kept")
	}
	<-s.fs.invalidate(nil, core.Inval{Ino: ino, Attr: true})
	if s.pread(fd, 0, 8192) != a {
		t.Error("forgetting attributes dropped pages")
	}
	<-s.fs.invalidate(nil, core.Inval{Ino: ino, Off: 4096, Len: 1})
	if got := s.pread(fd, 0, 8192); got != a[:4096]+b[:4096] {
		t.Errorf("after the second page was dropped: %q... %q...", got[:1], got[4096:4097])
	}
	<-s.fs.invalidate(nil, core.Inval{Ino: ino})
	if s.pread(fd, 0, 8192) != b {
		t.Error("pages outlived the invalidation")
	}
	must(t, unix.Close(fd))
	s.end()
}

// TestPagesWithoutLease: what a READ without a lease brings is not shown to a
// read that begins later, even if size and times do not tell (C6).
func TestPagesWithoutLease(t *testing.T) {
	s := newScene(t, nil)
	s.set(func(fs *memFS) { fs.lives, fs.keep = core.Cache{}, false })
	ino := s.file("f", "aaaa")
	fd := s.open("f", unix.O_RDONLY)
	for i := range 200 {
		want := fmt.Sprintf("%04d", i)
		s.set(func(*memFS) { s.sneak(ino, want)() })
		if got := s.pread(fd, 0, 4); got != want {
			t.Fatalf("read %q, want %q", got, want)
		}
	}
	// Nobody asks for attributes: the pages go by themselves.
	until(t, "the pages are gone", func() bool {
		s.m.conn.led.mu.Lock()
		defer s.m.conn.led.mu.Unlock()
		return len(s.m.conn.led.files) == 0
	})
	must(t, unix.Close(fd))
	s.end()
}

// TestReadersWithoutLease: many readers of one file do not keep each other
// from their pages.
func TestReadersWithoutLease(t *testing.T) {
	s := newScene(t, nil)
	s.set(func(fs *memFS) { fs.lives, fs.keep = core.Cache{}, false })
	data := strings.Repeat("0123456789abcdef", 1<<14) // 256 KiB
	s.file("f", data)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				got, err := os.ReadFile(s.path("f"))
				if err != nil || string(got) != data {
					t.Errorf("%d bytes, %v", len(got), err)
					return
				}
			}
		})
	}
	wg.Wait()
	s.end()
}

// TestWrittenPagesWithoutLease: the kernel keeps no copy of what was written
// without a lease.
func TestWrittenPagesWithoutLease(t *testing.T) {
	s := newScene(t, cachedWrites)
	s.set(func(fs *memFS) { fs.keep = false })
	ino := s.file("f", strings.Repeat("a", 4096))
	fd := s.open("f", unix.O_RDWR)
	_, err := unix.Pwrite(fd, bytes.Repeat([]byte("w"), 4096), 0)
	must(t, err)
	s.set(func(*memFS) { s.sneak(ino, strings.Repeat("b", 4096))() })
	if got := s.pread(fd, 0, 4096); got[0] != 'b' {
		t.Errorf("read %q after another mount wrote", got[0])
	}
	must(t, unix.Close(fd))
	s.end()
}

// TestInvalidateBehindOwnWrite: the kernel holds a page locked while a WRITE
// of part of it is open, which may wait for the invalidation at the servers.
func TestInvalidateBehindOwnWrite(t *testing.T) {
	s := newScene(t, cachedWrites)
	ino := s.file("f", strings.Repeat("a", 1<<16))
	fd := s.open("f", unix.O_RDWR)
	s.pread(fd, 0, 4096)
	s.fs.hang(isOp(func(w core.WriteFile) bool { return true }))
	done := s.start(func() error {
		_, err := unix.Pwrite(fd, []byte("w"), 20_000)
		return err
	})
	<-s.fs.invalidate(s.sneak(ino, strings.Repeat("b", 1<<16)), core.Inval{Ino: ino})
	s.fs.letGo()
	must(t, <-done)
	if got := s.pread(fd, 0, 1); got != "b" {
		t.Errorf("read %q far from what was written", got)
	}
	if got := s.pread(fd, 19_999, 3); got != "bwb" {
		t.Errorf("read %q around what was written, want bwb", got)
	}
	must(t, unix.Close(fd))
	s.end()
}

// TestWriteIsNotSeenEarly: nobody beside the writer sees its bytes before the
// write is answered, everybody does afterwards: those who read meanwhile, too.
func TestWriteIsNotSeenEarly(t *testing.T) {
	s := newScene(t, nil)
	if !s.m.conn.directWrites {
		t.Skip("this kernel maps no handle that bypasses its pages")
	}
	ino := s.file("f", strings.Repeat("a", 8192))
	rd, fd := s.open("f", unix.O_RDONLY), s.open("f", unix.O_RDWR)
	p := startDirty(t, s.path("f"))
	if got := s.pread(rd, 4090, 10); got != "aaaaaaaaaa" {
		t.Errorf("read %q", got)
	}
	for i, off := range []int64{1, 4095} {
		s.fs.hang(isOp(func(core.WriteFile) bool { return true }))
		done := s.start(func() error {
			_, err := unix.Pwrite(fd, []byte{'w', byte('0' + i)}, off)
			return err
		})
		if got := s.pread(rd, off, 2); got != "aa" {
			t.Errorf("read %q while the write is open", got)
		}
		if got := p.ask(""); i == 0 && got != "a" {
			t.Errorf("the mapping shows %q while the write is open", got)
		}
		s.fs.letGo()
		must(t, <-done)
		// The mapping first: a read(2) makes the kernel look at times.
		until(t, "the mapping shows the write", func() bool { return p.ask("") == "w" })
		if got, want := s.pread(rd, off, 2), fmt.Sprint("w", i); got != want {
			t.Errorf("read %q after the write, want %q", got, want)
		}
	}
	s.set(func(fs *memFS) {
		if fs.counts["read"] == 0 || string(fs.inodes[ino].data[:3]) != "aw0" {
			t.Errorf("%d reads, data %q", fs.counts["read"], fs.inodes[ino].data[:3])
		}
	})
	p.end()
	must(t, unix.Close(fd))
	must(t, unix.Close(rd))
	s.end()
}

// TestForgetWhatAWriteShows: through the kernel's pages a WRITE shows its bytes
// as soon as they are there. A Backend that must ask the servers first forgets
// the page meanwhile; the WRITE itself does not stand in the way.
func TestForgetWhatAWriteShows(t *testing.T) {
	s := newScene(t, cachedWrites)
	ino := s.file("f", strings.Repeat("a", 4096))
	fd, rd := s.open("f", unix.O_RDWR), s.open("f", unix.O_RDONLY)
	s.pread(rd, 0, 10)
	s.fs.hang(isOp(func(w core.WriteFile) bool { return true }))
	done := s.start(func() error {
		_, err := unix.Pwrite(fd, []byte("w"), 5)
		return err
	})
	<-s.fs.invalidate(nil, core.Inval{Ino: ino})
	if got := s.pread(rd, 4, 3); got != "aaa" {
		t.Errorf("read %q while the write is open", got)
	}
	s.fs.letGo()
	must(t, <-done)
	if got := s.pread(rd, 4, 3); got != "awa" {
		t.Errorf("read %q after the write", got)
	}
	must(t, unix.Close(fd))
	must(t, unix.Close(rd))
	s.end()
}

func cachedWrites(c *Config) { c.CachedWrites = true }

// TestInvalidateBehindLateWrite: the WRITE comes while the invalidation waits
// for a READ, and would hang it in its turn.
func TestInvalidateBehindLateWrite(t *testing.T) {
	s := newScene(t, cachedWrites)
	ino := s.file("f", strings.Repeat("a", 1<<20))
	rd, wr := s.open("f", unix.O_RDONLY), s.open("f", unix.O_WRONLY)
	must(t, unix.Fadvise(rd, 0, 0, unix.FADV_RANDOM))
	s.fs.hang(func(op any) bool {
		switch op.(type) {
		case core.ReadFile, core.WriteFile:
			return true
		}
		return false
	})
	read := s.start(func() error {
		_, err := unix.Pread(rd, make([]byte, 100), 0)
		return err
	})
	told := s.fs.invalidate(s.sneak(ino, strings.Repeat("b", 1<<20)), core.Inval{Ino: ino})
	wrote := s.start(func() error {
		_, err := unix.Pwrite(wr, []byte("w"), 500_000)
		return err
	})
	<-told // READ and WRITE are still open
	s.fs.letGo()
	must(t, <-read)
	must(t, <-wrote)
	if got := s.pread(rd, 499_999, 3); got != "bwb" {
		t.Errorf("read %q, want bwb", got)
	}
	must(t, unix.Close(rd))
	must(t, unix.Close(wr))
	s.end()
}

// TestInvalidateBehindOwnTruncate: while a SETATTR of the size is open the
// kernel sends no dirty pages, and an invalidation would wait for them.
func TestInvalidateBehindOwnTruncate(t *testing.T) {
	s := newScene(t, nil)
	ino := s.file("f", strings.Repeat("a", 8192))
	p := startDirty(t, s.path("f"))
	if got := p.ask("x"); got != "a" {
		t.Errorf("the mapping shows %q", got)
	}
	fd := s.open("f", unix.O_RDWR)
	s.fs.hang(isOp(func(a *meta.SetAttr) bool { return a.Set&meta.SetSize != 0 }))
	done := s.start(func() error { return unix.Ftruncate(fd, 5000) })
	<-s.fs.invalidate(s.sneak(ino, strings.Repeat("b", 8192)), core.Inval{Ino: ino})
	s.fs.letGo()
	must(t, <-done)
	// The page that was dirty is written back as a whole: the mapping had it
	// before the other mount wrote.
	got := s.pread(fd, 0, 9000)
	if want := "x" + strings.Repeat("a", 4095) + strings.Repeat("b", 904); got != want {
		t.Errorf("%d bytes beginning with %q, ending with %q", len(got), got[:2], got[len(got)-1:])
	}
	p.end()
	must(t, unix.Close(fd))
	s.end()
}

// TestAppliedLateReads: reads race with changes and their invalidations; no
// read shows what was over before it began.
func TestAppliedLateReads(t *testing.T) {
	s := newScene(t, nil)
	ino := s.file("f", "00000000")
	var wg sync.WaitGroup
	var mu sync.Mutex
	truth := 0 // completed changes
	stop := make(chan struct{})
	for range 3 {
		fd := s.open("f", unix.O_RDONLY)
		wg.Go(func() {
			defer unix.Close(fd)
			buf := make([]byte, 8)
			for {
				select {
				case <-stop:
					return
				default:
				}
				mu.Lock()
				least := truth
				mu.Unlock()
				if _, err := unix.Pread(fd, buf, 0); err != nil {
					t.Error(err)
					return
				}
				if got, err := strconv.Atoi(string(buf)); err != nil || got < least {
					t.Errorf("read %q (%v) after change %d was complete", buf, err, least)
					return
				}
			}
		})
	}
	for i := 1; i <= 500; i++ {
		<-s.fs.invalidate(s.sneak(ino, fmt.Sprintf("%08d", i)), core.Inval{Ino: ino})
		mu.Lock()
		truth = i
		mu.Unlock()
	}
	close(stop)
	wg.Wait()
	s.end()
}

// appDirty maps a file shared, writes a byte for each line that it is sent,
// and shows the byte after it.
func appDirty(args []string) error {
	f, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	b, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if in.Text() != "" {
			b[0] = in.Text()[0]
		}
		fmt.Printf("%c\n", b[1])
	}
	return unix.Munmap(b)
}

// dirtyApp is a running appDirty.
type dirtyApp struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startDirty(t *testing.T, path string) *dirtyApp {
	t.Helper()
	p := &dirtyApp{t: t, cmd: app(t, "dirty", path)}
	in, err := p.cmd.StdinPipe()
	must(t, err)
	out, err := p.cmd.StdoutPipe()
	must(t, err)
	p.in, p.out = in, bufio.NewScanner(out)
	must(t, p.cmd.Start())
	return p
}

// ask sends a line and returns the answer.
func (p *dirtyApp) ask(line string) string {
	p.t.Helper()
	_, err := io.WriteString(p.in, line+"\n")
	must(p.t, err)
	if !p.out.Scan() {
		p.t.Fatal("the program ended")
	}
	return p.out.Text()
}

func (p *dirtyApp) end() {
	p.t.Helper()
	must(p.t, p.in.Close())
	must(p.t, p.cmd.Wait())
}

// TestMappedPages: an invalidation brings the dirty pages of a mapping (C7)
// and makes the next load ask; pages without a lease leave a mapping, too.
func TestMappedPages(t *testing.T) {
	s := newScene(t, nil)
	ino := s.file("f", strings.Repeat("a", 4096))
	p := startDirty(t, s.path("f"))
	ask := p.ask
	if got := ask("x"); got != "a" {
		t.Errorf("the mapping shows %q", got)
	}
	<-s.fs.invalidate(nil, core.Inval{Ino: ino})
	s.set(func(fs *memFS) {
		if n := fs.inodes[ino]; n.data[0] != 'x' {
			t.Errorf("what was written through the mapping did not come: %q", n.data[0])
		}
		if fs.counts["writeback"] == 0 {
			t.Error("no WRITE was flagged as writeback")
		}
	})
	<-s.fs.invalidate(func() { s.fs.inodes[ino].data[1] = 'b' }, core.Inval{Ino: ino})
	if got := ask(""); got != "b" {
		t.Errorf("the mapping shows %q after another mount wrote b", got)
	}
	// Without a lease the page goes by itself.
	s.set(func(fs *memFS) { fs.keep = false })
	<-s.fs.invalidate(nil, core.Inval{Ino: ino})
	if got := ask(""); got != "b" {
		t.Errorf("the mapping shows %q", got)
	}
	s.set(func(fs *memFS) { fs.inodes[ino].data[1] = 'c' })
	until(t, "the mapping shows c", func() bool { return ask("") == "c" })
	p.end()
	s.end()
}
