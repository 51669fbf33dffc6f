package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Close-to-open between two mounts, and what is atomic at the server.
func TestTwoMounts(t *testing.T) {
	fit(t)
	c := start(t, 3)
	a, b := c.Mount("demo", "a"), c.Mount("demo", "b")
	for _, tt := range []struct {
		name string
		run  func(t *testing.T, a, b string)
	}{
		{"append", appendBoth},
		{"exclusive create", exclusive},
		{"rename", renameAtomic},
		{"unlink open file", unlinkOpen},
		{"truncate", truncateSeen},
		{"mmap", mmapSeen},
		{"attributes", attributesSeen},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := strings.ReplaceAll(tt.name, " ", "-")
			if err := os.Mkdir(filepath.Join(a, dir), 0o755); err != nil {
				t.Fatal(err)
			}
			tt.run(t, filepath.Join(a, dir), filepath.Join(b, dir))
		})
	}
}

// No record is lost, torn or doubled, and each writer's stay in order.
func appendBoth(t *testing.T, a, b string) {
	const records = 200
	var wg sync.WaitGroup
	for _, dir := range []string{a, b} {
		wg.Go(func() {
			f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
			if err != nil {
				t.Error(err)
				return
			}
			for i := range records {
				rec := fmt.Sprintf("%s %d %s\n", filepath.Base(filepath.Dir(dir)), i, strings.Repeat("x", i%50))
				if n, err := f.WriteString(rec); err != nil || n != len(rec) {
					t.Errorf("append: %d, %v", n, err)
				}
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, dir := range []string{a, b} {
		next := map[string]int{}
		for line := range strings.Lines(read(t, filepath.Join(dir, "log"))) {
			var who, fill string
			var i int
			fmt.Sscan(line, &who, &i, &fill)
			if i != next[who] || len(fill) != i%50 {
				t.Fatalf("%s: record %q, expected number %d of %s", dir, line, next[who], who)
			}
			next[who]++
		}
		if next["a"] != records || next["b"] != records {
			t.Errorf("%s: %v records, want %d of each", dir, next, records)
		}
	}
}

// Of two creations with O_EXCL exactly one wins.
func exclusive(t *testing.T, a, b string) {
	for i := range 30 {
		var wg sync.WaitGroup
		errc := make(chan error, 2)
		go_ := make(chan struct{})
		for _, dir := range []string{a, b} {
			wg.Go(func() {
				<-go_
				f, err := os.OpenFile(fmt.Sprintf("%s/x%d", dir, i), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
				if err == nil {
					f.Close()
				}
				errc <- err
			})
		}
		close(go_)
		wg.Wait()
		x, y := <-errc, <-errc
		if (x == nil) == (y == nil) || x != nil && !errors.Is(x, os.ErrExist) || y != nil && !errors.Is(y, os.ErrExist) {
			t.Fatalf("two exclusive creations: %v and %v", x, y)
		}
	}
}

// A name that is replaced by renaming is always there, and what it names is
// always whole.
func renameAtomic(t *testing.T, a, b string) {
	const rounds = 40
	text := func(i int) string { return strings.Repeat(fmt.Sprintf("version %d\n", i), 2000) }
	write(t, filepath.Join(a, "name"), text(0))
	done := make(chan error, 1)
	go func() {
		for i := 1; i <= rounds; i++ {
			tmp := fmt.Sprintf("%s/tmp%d", a, i)
			if err := os.WriteFile(tmp, []byte(text(i)), 0o644); err != nil {
				done <- err
				return
			}
			if err := os.Rename(tmp, filepath.Join(a, "name")); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	last := 0
	for ended := false; !ended; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			ended = true // and look once more
		default:
		}
		got := read(t, filepath.Join(b, "name"))
		var i int
		fmt.Sscanf(got, "version %d", &i)
		if got != text(i) || i < last {
			t.Fatalf("after version %d: %d bytes that begin with %.20q", last, len(got), got)
		}
		last = i
	}
	if last != rounds {
		t.Errorf("the last version seen is %d, want %d", last, rounds)
	}
}

// A file unlinked at one mount stays usable where it is open.
func unlinkOpen(t *testing.T, a, b string) {
	text := strings.Repeat("still here\n", 100_000)
	write(t, filepath.Join(a, "file"), text)
	f, err := os.OpenFile(filepath.Join(b, "file"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Remove(filepath.Join(a, "file")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(b, "file")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("stat of the unlinked name: %v", err)
	}
	got := make([]byte, len(text))
	if n, err := f.ReadAt(got, 0); err != nil || string(got) != text {
		t.Errorf("read of the unlinked file: %d bytes, %v; want %d", n, err, len(text))
	}
	if _, err := f.WriteAt([]byte("STILL"), 5); err != nil {
		t.Errorf("write to the unlinked file: %v", err)
	}
	if err := f.Sync(); err != nil {
		t.Errorf("fsync of the unlinked file: %v", err)
	}
	if _, err := f.ReadAt(got[:10], 0); err != nil || string(got[:10]) != "stillSTILL" {
		t.Errorf("read after write: %q, %v", got[:10], err)
	}
	if fi, err := f.Stat(); err != nil || fi.Sys().(*syscall.Stat_t).Nlink != 0 {
		t.Errorf("stat of the unlinked file: %+v, %v", fi, err)
	}
}

func truncateSeen(t *testing.T, a, b string) {
	name := func(dir string) string { return filepath.Join(dir, "file") }
	write(t, name(a), strings.Repeat("0123456789", 1000))
	if got := read(t, name(b)); len(got) != 10_000 {
		t.Fatalf("%d bytes", len(got))
	}
	for _, size := range []int64{1234, 5000, 0} {
		if err := os.Truncate(name(b), size); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(name(a))
		if err != nil || fi.Size() != size {
			t.Errorf("after truncate to %d: %v, %v", size, fi, err)
		}
		got := read(t, name(a))
		want := strings.Repeat("0123456789", 124)[:min(size, 1234)] + strings.Repeat("\x00", int(max(0, size-1234)))
		if got != want {
			t.Errorf("contents after truncate to %d: %d bytes that differ", size, len(got))
		}
	}
	write(t, name(a), "new") // O_TRUNC
	if got := read(t, name(b)); got != "new" {
		t.Errorf("after O_TRUNC: %q", got)
	}
}

// Mapped pages refresh when the file is opened again.
func mmapSeen(t *testing.T, a, b string) {
	mapped := func() string {
		f, err := os.Open(filepath.Join(b, "file"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		p, err := syscall.Mmap(int(f.Fd()), 0, 8192, syscall.PROT_READ, syscall.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Munmap(p)
		return string(p)
	}
	for _, letter := range []string{"a", "b", "c"} {
		want := strings.Repeat(letter, 8192)
		f, err := os.OpenFile(filepath.Join(a, "file"), os.O_CREATE|os.O_WRONLY, 0o644) // in place
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(want); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if got := mapped(); got != want {
			t.Errorf("mapped pages begin with %.3q, want %.3q", got, want)
		}
	}
	// written through a shared mapping at b, read at a
	f, err := os.OpenFile(filepath.Join(b, "file"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	p, err := syscall.Mmap(int(f.Fd()), 0, 8192, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	copy(p[4096:], "mapped")
	if err := errors.Join(syscall.Munmap(p), f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(a, "file")); got[4096:4102] != "mapped" {
		t.Errorf("written through a mapping: %q", got[4096:4102])
	}
}

func attributesSeen(t *testing.T, a, b string) {
	name := func(dir string) string { return filepath.Join(dir, "file") }
	write(t, name(a), "x")
	for _, mode := range []os.FileMode{0o600, 0o755, 0o444} {
		if err := os.Chmod(name(a), mode); err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Stat(name(b)); err != nil || fi.Mode().Perm() != mode {
			t.Errorf("after chmod %o: %v, %v", mode, fi.Mode(), err)
		}
	}
	if err := os.Chown(name(b), 1234, 4321); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(name(a))
	if err != nil {
		t.Fatal(err)
	}
	if st := fi.Sys().(*syscall.Stat_t); st.Uid != 1234 || st.Gid != 4321 {
		t.Errorf("after chown: %d:%d", st.Uid, st.Gid)
	}
	if err := os.Mkdir(filepath.Join(a, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"one", "two", "three"} {
		write(t, filepath.Join(a, "dir", n), n)
		var names []string
		entries, err := os.ReadDir(filepath.Join(b, "dir"))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		if !slices.Contains(names, n) {
			t.Errorf("%s is not listed: %v", n, names)
		}
	}
}
