package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"agentdrive/metaserver/meta"
)

func TestLargeData(t *testing.T) {
	for _, spin := range []bool{false, true} {
		t.Run(fmt.Sprintf("spin=%v", spin), func(t *testing.T) {
			fs := newMemFS()
			m := mount(t, fs, func(c *Config) {
				if spin {
					c.Spin = maxSpin
				}
			})
			f := filepath.Join(m.Dir(), "f")
			want := make([]byte, 9<<20+12345)
			rand.NewChaCha8([32]byte{1}).Read(want)
			must(t, os.WriteFile(f, want, 0o644))
			fs.mu.Lock()
			writes := fs.counts["write"]
			fs.mu.Unlock()
			if writes > 64 {
				t.Errorf("%d WRITEs for %d bytes: max_write is not in force", writes, len(want))
			}
			got, err := os.ReadFile(f)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("read back differs (%d bytes, %v)", len(got), err)
			}
			var wg sync.WaitGroup
			for i := range 4 { // parallel, unaligned, around the kernel's cache
				wg.Go(func() {
					fd, err := unix.Open(f, unix.O_RDONLY|unix.O_DIRECT, 0)
					if err != nil {
						t.Error(err)
						return
					}
					defer unix.Close(fd)
					buf := make([]byte, 3<<20)
					off := int64(i)*2<<20 + int64(i)
					n, err := unix.Pread(fd, buf, off)
					if err != nil || !bytes.Equal(buf[:n], want[off:off+int64(n)]) || n != len(buf) {
						t.Errorf("direct read at %d: %d %v", off, n, err)
					}
				})
			}
			wg.Wait()
			unmount(t, m, fs)
		})
	}
}

func TestReadAheadIsRaised(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may raise it")
	}
	fs := newMemFS()
	m := mount(t, fs, func(c *Config) { c.ReadAhead = 4 << 20 })
	b, err := os.ReadFile("/sys/class/bdi/" + m.dev + "/read_ahead_kb")
	if err != nil || strings.TrimSpace(string(b)) != "4096" {
		t.Errorf("read-ahead %q %v", b, err)
	}
	unmount(t, m, fs)
}

func TestSyncFlags(t *testing.T) {
	fs := newMemFS()
	m := mount(t, fs, nil)
	f, err := os.OpenFile(filepath.Join(m.Dir(), "f"), os.O_CREATE|os.O_RDWR|unix.O_DSYNC, 0o644)
	must(t, err)
	_, err = f.Write([]byte("x"))
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
	r, err := os.Open(filepath.Join(m.Dir(), "f"))
	must(t, err)
	must(t, r.Close())
	fs.mu.Lock()
	// After an O_DSYNC write through its pages the kernel sends FSYNC too; the
	// file of primePoll was closed too; closing a handle that only reads
	// flushes nothing.
	fsyncs := 2
	if m.conn.directWrites {
		fsyncs = 1
	}
	for what, want := range map[string]int{"sync write": 1, "fsync": fsyncs, "flush": 2} {
		if fs.counts[what] != want {
			t.Errorf("%s: %d, want %d", what, fs.counts[what], want)
		}
	}
	fs.mu.Unlock()
	unmount(t, m, fs)
}

const (
	appendRecord = 100
	appendCount  = 400
)

// appAppend appends records of one letter.
func appAppend(args []string) error {
	f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	for range appendCount {
		if _, err := f.Write(bytes.Repeat([]byte(args[1]), appendRecord)); err != nil {
			return err
		}
	}
	return f.Close()
}

func TestAppendFromTwoProcesses(t *testing.T) {
	fs := newMemFS()
	m := mount(t, fs, nil)
	f := filepath.Join(m.Dir(), "f")
	must(t, os.WriteFile(f, nil, 0o644))
	a, b := app(t, "append", f, "a"), app(t, "append", f, "b")
	must(t, a.Start())
	must(t, b.Start())
	must(t, a.Wait())
	must(t, b.Wait())
	got, err := os.ReadFile(f)
	must(t, err)
	if len(got) != 2*appendCount*appendRecord {
		t.Fatalf("%d bytes, want %d: records overwrote each other", len(got), 2*appendCount*appendRecord)
	}
	for i := 0; i < len(got); i += appendRecord {
		if rec := got[i : i+appendRecord]; bytes.Count(rec, rec[:1]) != appendRecord {
			t.Fatalf("record at %d is mixed", i)
		}
	}
	unmount(t, m, fs)
}

// TestAppendSeesForeignGrowth: the kernel's idea of the end of file is stale,
// the data goes to the true one.
func TestAppendSeesForeignGrowth(t *testing.T) {
	fs := newMemFS()
	m := mount(t, fs, nil)
	name := filepath.Join(m.Dir(), "f")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	must(t, err)
	_, err = f.Write([]byte("one"))
	must(t, err)
	r, err := fs.direct(&meta.Lookup{Parent: meta.RootIno, Name: "f"})
	must(t, err)
	setData(fs, r, "one two")
	_, err = f.Write([]byte(" three"))
	must(t, err)
	must(t, f.Close())
	if b, err := os.ReadFile(name); err != nil || string(b) != "one two three" {
		t.Errorf("%q %v", b, err)
	}
	unmount(t, m, fs)
}

// appMmap maps a file shared, checks its first byte, writes the second, syncs.
func appMmap(args []string) error {
	flags := os.O_RDWR
	if args[1] == "append" {
		flags |= os.O_APPEND
	}
	f, err := os.OpenFile(args[0], flags, 0)
	if err != nil {
		return err
	}
	b, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	if b[0] != 'r' || b[5000] != 'r' {
		return fmt.Errorf("mapping shows %q %q", b[0], b[5000])
	}
	b[1], b[5001] = 'w', 'w'
	if err := unix.Msync(b, unix.MS_SYNC); err != nil {
		return err
	}
	return errors.Join(unix.Munmap(b), f.Close())
}

func TestMmap(t *testing.T) {
	for _, mode := range []string{"plain", "append"} {
		t.Run(mode, func(t *testing.T) {
			fs := newMemFS()
			m := mount(t, fs, nil)
			if mode == "append" && m.Protocol().Flags>>36&1 == 0 {
				t.Skip("this kernel maps no O_APPEND handle (FUSE_DIRECT_IO_ALLOW_MMAP)")
			}
			f := filepath.Join(m.Dir(), "f")
			must(t, os.WriteFile(f, bytes.Repeat([]byte("r"), 8192), 0o644))
			must(t, app(t, "mmap", f, mode).Run())
			got, err := os.ReadFile(f)
			must(t, err)
			if len(got) != 8192 || got[1] != 'w' || got[5001] != 'w' {
				t.Errorf("%d bytes, %q %q", len(got), got[1], got[5001])
			}
			unmount(t, m, fs)
		})
	}
}

// TestForeignWriteIsSeen: with nothing cached, what another mount did shows at
// once: content, size, names, absence.
func TestForeignWriteIsSeen(t *testing.T) {
	fs := newMemFS()
	m := mount(t, fs, nil)
	name := filepath.Join(m.Dir(), "f")
	must(t, os.WriteFile(name, []byte("old"), 0o644))
	f, err := os.Open(name)
	must(t, err)
	defer f.Close()
	buf := make([]byte, 100)
	for _, data := range []string{"old", "new", "newer, longer", "s"} {
		r, err := fs.direct(&meta.Lookup{Parent: meta.RootIno, Name: "f"})
		must(t, err)
		setData(fs, r, data)
		n, err := f.ReadAt(buf, 0)
		if string(buf[:n]) != data || err != io.EOF {
			t.Errorf("open handle reads %q (%v), want %q", buf[:n], err, data)
		}
		if st := lstat(t, name); st.Size != int64(len(data)) {
			t.Errorf("size %d of %q", st.Size, data)
		}
	}
	_, err = os.Lstat(filepath.Join(m.Dir(), "late"))
	wantErrno(t, "absent", err, syscall.ENOENT)
	_, err = fs.direct(&meta.Make{Parent: meta.RootIno, Name: "late", Mode: meta.ModeRegular | 0o644})
	must(t, err)
	lstat(t, filepath.Join(m.Dir(), "late"))
	_, err = fs.direct(&meta.Unlink{Parent: meta.RootIno, Name: "late"})
	must(t, err)
	_, err = os.Lstat(filepath.Join(m.Dir(), "late"))
	wantErrno(t, "removed", err, syscall.ENOENT)
	must(t, f.Close())
	unmount(t, m, fs)
}
