package disk_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"agentdrive/internal/disk"
	"agentdrive/internal/errs"
)

// Both implementations pass the same tests.
func TestConformance(t *testing.T) {
	backends := map[string]func(t *testing.T) (disk.FS, string){
		"mem": func(*testing.T) (disk.FS, string) { return disk.NewMem(), "/" },
		"os":  func(t *testing.T) (disk.FS, string) { return disk.OS{}, t.TempDir() },
	}
	tests := map[string]func(t *testing.T, fs disk.FS, dir string){
		"open": testOpen, "io": testIO, "namespace": testNamespace,
		"lock": testLock, "usage": testUsage, "concurrent": testConcurrent,
	}
	for bn, backend := range backends {
		for tn, test := range tests {
			t.Run(bn+"/"+tn, func(t *testing.T) {
				fs, dir := backend(t)
				test(t, fs, dir)
			})
		}
	}
}

func wantKind(t *testing.T, err error, kind errs.Kind) {
	t.Helper()
	if !errs.Is(err, kind) {
		t.Fatalf("error %v (kind %v), want kind %v", err, errs.KindOf(err), kind)
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, fs disk.FS, name, content string) {
	t.Helper()
	f, err := fs.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	ok(t, err)
	_, err = f.WriteAt([]byte(content), 0)
	ok(t, err)
	ok(t, f.Sync())
	ok(t, f.Close())
}

func read(t *testing.T, fs disk.FS, name string) string {
	t.Helper()
	f, err := fs.OpenFile(name, os.O_RDONLY, 0)
	ok(t, err)
	size, err := f.Size()
	ok(t, err)
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); int64(n) != size || err != nil && err != io.EOF {
		t.Fatalf("read %d of %d: %v", n, size, err)
	}
	ok(t, f.Close())
	return string(b)
}

func testOpen(t *testing.T, fs disk.FS, dir string) {
	a := filepath.Join(dir, "a")
	_, err := fs.OpenFile(a, os.O_RDWR, 0)
	wantKind(t, err, errs.NotExist)
	if !strings.Contains(err.Error(), a) {
		t.Errorf("error %q does not name the file", err)
	}
	write(t, fs, a, "hello")
	_, err = fs.OpenFile(a, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	wantKind(t, err, errs.Exist)
	_, err = fs.OpenFile(filepath.Join(a, "b"), os.O_RDWR, 0)
	wantKind(t, err, errs.NotDir)
	f, err := fs.OpenFile(a, os.O_RDWR|os.O_TRUNC, 0)
	ok(t, err)
	if size, err := f.Size(); size != 0 || err != nil {
		t.Errorf("after O_TRUNC size %d, %v", size, err)
	}
	if f.Name() != a {
		t.Errorf("Name %q, want %q", f.Name(), a)
	}
	ok(t, f.Close())
	if f.Close() == nil {
		t.Error("a second Close is silent")
	}
	r, err := fs.OpenFile(a, os.O_RDONLY, 0)
	ok(t, err)
	if _, err := r.WriteAt([]byte("x"), 0); err == nil {
		t.Error("a write through a read-only file is accepted")
	}
	ok(t, r.Close())
}

func testIO(t *testing.T, fs disk.FS, dir string) {
	f, err := fs.OpenFile(filepath.Join(dir, "f"), os.O_RDWR|os.O_CREATE, 0o644)
	ok(t, err)
	_, err = f.WriteAt([]byte("world"), 3)
	ok(t, err)
	b := make([]byte, 8)
	n, err := f.ReadAt(b, 0)
	if n != 8 || err != nil || string(b) != "\x00\x00\x00world" {
		t.Errorf("read %d %q, %v", n, b, err)
	}
	n, err = f.ReadAt(b, 6)
	if n != 2 || err != io.EOF {
		t.Errorf("short read: %d, %v; want 2 and bare io.EOF", n, err)
	}
	if n, err = f.ReadAt(b, 100); n != 0 || err != io.EOF {
		t.Errorf("read past the end: %d, %v", n, err)
	}
	ok(t, f.Truncate(4))
	ok(t, f.Truncate(6))
	if n, _ = f.ReadAt(b, 0); string(b[:n]) != "\x00\x00\x00w\x00\x00" {
		t.Errorf("after cut and growth: %q", b[:n])
	}
	ok(t, f.Sync())
	ok(t, f.Close())
}

func testNamespace(t *testing.T, fs disk.FS, dir string) {
	p := func(names ...string) string { return filepath.Join(append([]string{dir}, names...)...) }
	ok(t, fs.MkdirAll(p("d", "e"), 0o755))
	ok(t, fs.MkdirAll(p("d", "e"), 0o755))
	write(t, fs, p("d", "y"), "y")
	write(t, fs, p("d", "x"), "x")
	names, err := fs.ReadDir(p("d"))
	ok(t, err)
	if want := []string{"e", "x", "y"}; !slices.Equal(names, want) {
		t.Errorf("ReadDir %v, want %v", names, want)
	}
	ok(t, fs.Rename(p("d", "x"), p("d", "e", "y")))
	ok(t, fs.Rename(p("d", "y"), p("d", "e", "y")))
	if got := read(t, fs, p("d", "e", "y")); got != "y" {
		t.Errorf("after rename over: %q", got)
	}
	wantKind(t, fs.Rename(p("d", "x"), p("d", "z")), errs.NotExist)
	wantKind(t, fs.Remove(p("d", "e")), errs.NotEmpty)
	ok(t, fs.SyncDir(p("d")))
	ok(t, fs.SyncDir(p("d", "e")))
	info, err := fs.Stat(p("d", "e", "y"))
	if err != nil || info.Dir || info.Size != 1 {
		t.Errorf("Stat %+v, %v", info, err)
	}
	if info, err = fs.Stat(p("d")); err != nil || !info.Dir {
		t.Errorf("Stat of a directory %+v, %v", info, err)
	}
	ok(t, fs.Remove(p("d", "e", "y")))
	ok(t, fs.Remove(p("d", "e")))
	_, err = fs.Stat(p("d", "e"))
	wantKind(t, err, errs.NotExist)
	_, err = fs.ReadDir(p("nowhere"))
	wantKind(t, err, errs.NotExist)
	wantKind(t, fs.Remove(p("nowhere")), errs.NotExist)
	wantKind(t, fs.SyncDir(p("nowhere")), errs.NotExist)
}

func testLock(t *testing.T, fs disk.FS, dir string) {
	name := filepath.Join(dir, "LOCK")
	l, err := fs.Lock(name)
	ok(t, err)
	_, err = fs.Lock(name)
	wantKind(t, err, errs.Locked)
	if pid := strconv.Itoa(os.Getpid()); !strings.Contains(err.Error(), pid) {
		t.Errorf("error %q does not name the holder %s", err, pid)
	}
	if errs.HintOf(err) == "" {
		t.Error("no hint")
	}
	ok(t, l.Close())
	l, err = fs.Lock(name)
	ok(t, err)
	ok(t, l.Close())
}

func testUsage(t *testing.T, fs disk.FS, dir string) {
	u, err := fs.Usage(dir)
	if err != nil || u.Total <= 0 || u.Free < 0 || u.Free > u.Total {
		t.Errorf("Usage %+v, %v", u, err)
	}
}

func testConcurrent(t *testing.T, fs disk.FS, dir string) {
	f, err := fs.OpenFile(filepath.Join(dir, "f"), os.O_RDWR|os.O_CREATE, 0o644)
	ok(t, err)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			piece := bytes.Repeat([]byte{byte(i)}, 1000)
			for j := range 20 {
				off := int64(i*20+j) * 1000
				got := make([]byte, 1000)
				if _, err := f.WriteAt(piece, off); err != nil {
					t.Error(err)
				}
				if _, err := f.ReadAt(got, off); err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(got, piece) {
					t.Errorf("piece %d/%d: %v", i, j, err)
				}
			}
		})
	}
	wg.Wait()
	ok(t, f.Close())
}
