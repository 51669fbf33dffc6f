package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"agentdrive/metaserver/meta"
)

// TestReaddirUnderChange lists 50,000 names while others come and go: those
// present all the time appear exactly once, no other twice.
func TestReaddirUnderChange(t *testing.T) {
	const stable, churn = 50_000, 500
	fs := newMemFS()
	mk := func(name string) {
		_, err := fs.direct(&meta.Make{Parent: meta.RootIno, Name: name, Mode: meta.ModeRegular | 0o644, Excl: true})
		must(t, err)
	}
	fs.fill("stable-", stable)
	m := mount(t, fs, nil)
	dir, err := os.Open(m.Dir())
	must(t, err)
	defer dir.Close()
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	present := map[int]bool{}
	seen := map[string]int{}
	for {
		names, err := dir.Readdirnames(700)
		for _, n := range names {
			seen[n]++
		}
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		for range 20 {
			i := rng.IntN(churn)
			name := fmt.Sprintf("churn-%d", i)
			if present[i] {
				_, err := fs.direct(&meta.Unlink{Parent: meta.RootIno, Name: name})
				must(t, err)
			} else {
				mk(name)
			}
			present[i] = !present[i]
		}
	}
	for i := range stable {
		if n := seen[fmt.Sprintf("stable-%d", i)]; n != 1 {
			t.Fatalf("seed %d: stable-%d was seen %d times", seed, i, n)
		}
	}
	for name, n := range seen {
		if n > 1 {
			t.Fatalf("seed %d: %s was seen %d times", seed, name, n)
		}
	}
	must(t, dir.Close())
	unmount(t, m, fs)
}

// TestReaddirPins lists with attributes long names that never end a page
// evenly: what the pages gave beyond the reply must come back.
func TestReaddirPins(t *testing.T) {
	fs := newMemFS()
	m := mount(t, fs, nil)
	for i := range 300 {
		must(t, os.WriteFile(filepath.Join(m.Dir(), strings.Repeat("n", 1+i%250)+fmt.Sprint(i)), nil, 0o644))
	}
	entries, err := os.ReadDir(m.Dir())
	if err != nil || len(entries) != 300 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for _, e := range entries {
		if _, err := e.Info(); err != nil {
			t.Error(err)
		}
	}
	// What the adapter counts is what the Backend believes.
	fs.mu.Lock()
	m.conn.nodes.mu.Lock()
	for ino, n := range fs.pins {
		if c := m.conn.nodes.m[uint64(ino)].lookups; int64(c) != n {
			t.Errorf("inode %d: %d lookups counted, %d pins given", ino, c, n)
		}
	}
	m.conn.nodes.mu.Unlock()
	fs.mu.Unlock()
	unmount(t, m, fs)
}

func TestReaddirDots(t *testing.T) {
	fs := newMemFS()
	m := mount(t, fs, nil)
	sub := filepath.Join(m.Dir(), "sub")
	must(t, os.Mkdir(sub, 0o755))
	got := rawNames(t, sub)
	if strings.Join(got, " ") != ". .." {
		t.Errorf("empty directory lists %q", got)
	}
	must(t, os.WriteFile(filepath.Join(sub, "f"), nil, 0o644))
	if got := rawNames(t, sub); strings.Join(got, " ") != ". .. f" {
		t.Errorf("directory lists %q", got)
	}
	unmount(t, m, fs)
}

// rawNames reads a directory with getdents64, the two dots included.
func rawNames(t *testing.T, dir string) []string {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	defer unix.Close(fd)
	var names []string
	buf := make([]byte, 4096)
	for {
		n, err := unix.Getdents(fd, buf)
		must(t, err)
		if n == 0 {
			return names
		}
		for b := buf[:n]; len(b) > 0; {
			size := binary.NativeEndian.Uint16(b[16:])
			name, _, _ := strings.Cut(string(b[19:size]), "\x00")
			names = append(names, name)
			b = b[size:]
		}
	}
}
