package posix

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"

	"golang.org/x/sys/unix"
)

const page = 4096

// twoMounts mounts one new drive twice.
func twoMounts(t *testing.T) (a, b string) {
	t.Helper()
	p := needMount(t)
	drive := p.drive(t)
	return p.mount(t, drive), p.mount(t, drive)
}

// mapFile opens and maps n bytes of a file, shared and writable.
func mapFile(t *testing.T, path string, flags, n int) (*os.File, []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	m, err := unix.Mmap(int(f.Fd()), 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(m); err != nil {
			t.Error(err)
		}
	})
	return f, m
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// holds wants a file to have this content.
func holds(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s holds %d bytes %.20q, want %d bytes %.20q", filepath.Base(path), len(got), got, len(want), want)
	}
}

// touch accesses memory; a fault is an error.
func touch(access func()) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("fault")
		}
	}()
	access()
	return nil
}

func fillBytes(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

// A mapping made after an open shows what another mount wrote before it.
func TestMapAfterRemoteWrite(t *testing.T) {
	t.Parallel()
	a, b := twoMounts(t)
	write(t, a+"/f", fillBytes('1', 3*page))
	_, m := mapFile(t, a+"/f", 0, 3*page)
	if m[page] != '1' {
		t.Fatalf("mapped %q", m[page])
	}
	for _, c := range []byte{'2', '3', '4'} {
		write(t, b+"/f", fillBytes(c, 3*page))
		_, again := mapFile(t, a+"/f", 0, 3*page)
		if !bytes.Equal(again, fillBytes(c, 3*page)) {
			t.Fatalf("a new mapping shows %q, %q was written", again[page], c)
		}
		if m[2*page] != c {
			t.Fatalf("the old mapping of the same file shows %q, %q was written before the last open", m[2*page], c)
		}
	}
}

// What is stored through a mapping is elsewhere after msync, or after close.
func TestMapWrite(t *testing.T) {
	t.Parallel()
	a, b := twoMounts(t)
	write(t, a+"/f", fillBytes('1', 3*page+100))
	f, m := mapFile(t, a+"/f", 0, 4*page)
	want := fillBytes('1', 3*page+100)
	store := func(at int, s string) {
		copy(m[at:], s)
		copy(want[at:], s)
	}
	store(page+7, "synced")
	store(3*page+90, "tail")
	copy(m[3*page+100:], "behind the end") // must not grow the file
	if err := unix.Msync(m, unix.MS_SYNC); err != nil {
		t.Fatal(err)
	}
	holds(t, b+"/f", want)
	store(0, "closed")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	holds(t, b+"/f", want)
	store(2*page, "read")
	holds(t, a+"/f", want) // one mount's reads and mappings share pages
	if err := unix.Msync(m, unix.MS_SYNC); err != nil {
		t.Fatal(err)
	}
	holds(t, b+"/f", want)
}

// Appending handles can be mapped as on a local disk.
func TestMapAppendHandle(t *testing.T) {
	t.Parallel()
	a, b := twoMounts(t)
	write(t, a+"/f", fillBytes('1', page))
	f, m := mapFile(t, a+"/f", os.O_APPEND, page)
	m[10] = 'm'
	if err := unix.Msync(m, unix.MS_SYNC); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("end"); err != nil {
		t.Fatal(err)
	}
	want := append(fillBytes('1', page), "end"...)
	want[10] = 'm'
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	holds(t, b+"/f", want)
}

// A file cut off under a mapping faults where there is nothing any more; it
// harms neither the daemon nor other mounts.
func TestMapTruncated(t *testing.T) {
	t.Parallel()
	a, b := twoMounts(t)
	write(t, a+"/own", fillBytes('1', 4*page))
	f, m := mapFile(t, a+"/own", 0, 4*page)
	if err := touch(func() { m[3*page] = 'x' }); err != nil {
		t.Fatal("fault before the file was cut off")
	}
	if err := f.Truncate(page + 10); err != nil {
		t.Fatal(err)
	}
	if err := touch(func() { m[3*page]++ }); err == nil {
		t.Error("no fault behind the end")
	}
	if err := touch(func() {
		if m[page+9] != '1' || m[page+10] != 0 {
			t.Errorf("around the end: %q", m[page+9:page+11])
		}
	}); err != nil {
		t.Error("fault before the end")
	}
	if err := f.Truncate(4 * page); err != nil {
		t.Fatal(err)
	}
	want := append(fillBytes('1', page+10), make([]byte, 3*page-10)...)
	if !bytes.Equal(m, want) {
		t.Error("the cut-off part is not zero after it grew again")
	}
	holds(t, b+"/own", want)

	write(t, a+"/other", fillBytes('1', 4*page))
	f, m = mapFile(t, a+"/other", 0, 4*page)
	m[3*page] = 'x'
	if err := os.Truncate(b+"/other", 5); err != nil {
		t.Fatal(err)
	}
	if fi, err := f.Stat(); err != nil || fi.Size() != 5 && fi.Size() != 3*page+page {
		t.Errorf("size %d, %v", fi.Size(), err)
	}
	// The dirty page was stored before or after the cut; nobody can tell.
	if err := touch(func() { m[3*page]++ }); err == nil {
		t.Log("the mapping did not fault: the page is stored behind the cut")
	}
	if err := unix.Msync(m[:page], unix.MS_SYNC); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	x, err := os.ReadFile(a + "/other")
	if err != nil {
		t.Fatal(err)
	}
	holds(t, b+"/other", x)
	if len(x) != 5 && len(x) != 4*page {
		t.Errorf("%d bytes", len(x))
	}
	write(t, a+"/alive", []byte("yes"))
	holds(t, b+"/alive", []byte("yes"))
}

// A mapping outlives the name of its file.
func TestMapUnlinked(t *testing.T) {
	t.Parallel()
	a, b := twoMounts(t)
	write(t, a+"/f", fillBytes('1', 2*page))
	f, m := mapFile(t, a+"/f", 0, 2*page)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(b + "/f"); err != nil {
		t.Fatal(err)
	}
	if err := touch(func() {
		m[0] = 'x'
		if m[page] != '1' {
			t.Errorf("mapped %q", m[page])
		}
	}); err != nil {
		t.Error(err)
	}
	if err := unix.Msync(m, unix.MS_SYNC); err != nil {
		t.Error(err)
	}
}
