package posix

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"agentdrive/fuseclient"
	"agentdrive/metaserver/meta"
)

// dirent is an entry as getdents64 gives it.
type dirent struct {
	name string
	off  int64 // telldir behind it
}

// getdents reads a buffer full of entries; none at the end.
func getdents(t *testing.T, fd, size int) (list []dirent) {
	t.Helper()
	buf := make([]byte, size)
	n, err := unix.Getdents(fd, buf)
	if err != nil {
		t.Fatal(err)
	}
	for b := buf[:n]; len(b) > 0; {
		size := binary.NativeEndian.Uint16(b[16:])
		name, _, _ := strings.Cut(string(b[19:size]), "\x00")
		if name != "." && name != ".." {
			list = append(list, dirent{name, int64(binary.NativeEndian.Uint64(b[8:]))})
		}
		b = b[size:]
	}
	return list
}

func openDir(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// listAll reads the whole directory; each is called after each buffer.
func listAll(t *testing.T, fd int, each func()) (list []dirent) {
	t.Helper()
	for {
		page := getdents(t, fd, 8<<10)
		if len(page) == 0 {
			return list
		}
		list = append(list, page...)
		each()
	}
}

// together runs an operation for each name, many at a time: the servers commit
// them together.
func together(t *testing.T, c *fuseclient.Client, names []string, op func(name string) meta.Op) {
	t.Helper()
	const workers = 64
	errs := make(chan error, workers)
	for w := range workers {
		go func() {
			for i := w; i < len(names); i += workers {
				if _, err := c.Exec(op(names[i])); err != nil {
					errs <- fmt.Errorf("%s: %w", names[i], err)
					return
				}
			}
			errs <- nil
		}()
	}
	for range workers {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
}

// TestLargeDirectory lists a directory of 5,000 entries while others are made
// and removed: those that stay are seen exactly once, and positions told
// before remain good.
func TestLargeDirectory(t *testing.T) {
	t.Parallel()
	p := needMount(t)
	drive := p.drive(t)
	dir := p.mount(t, drive)
	c := p.session(t, drive)
	var stay, leave []string
	for i := range 5000 {
		stay = append(stay, fmt.Sprintf("stay-%04d", i))
	}
	for i := range 200 {
		leave = append(leave, fmt.Sprintf("go-%04d", i))
	}
	ino := mkdir(t, c, c.Root().Ino, "big")
	together(t, c, slices.Concat(stay, leave), func(name string) meta.Op {
		return &meta.Make{Parent: ino, Name: name, Mode: meta.ModeRegular | 0o644, Excl: true}
	})
	big := filepath.Join(dir, "big")

	n := 0
	list := listAll(t, openDir(t, big), func() {
		if n < len(leave) {
			if err := os.Remove(filepath.Join(big, leave[n])); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(big, fmt.Sprintf("come-%04d", n)), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			n++
		}
	})
	if n < 20 {
		t.Fatalf("only %d buffers were read: the test changed next to nothing meanwhile", n)
	}
	checkListing(t, list, stay)

	t.Run("seekdir", func(t *testing.T) {
		fd := openDir(t, big)
		list := listAll(t, fd, func() {})
		checkListing(t, list, stay)
		for i := 0; i < len(list)-1; i += 97 {
			if _, err := unix.Seek(fd, list[i].off, unix.SEEK_SET); err != nil {
				t.Fatal(err)
			}
			page := getdents(t, fd, 1024)
			if len(page) == 0 || page[0].name != list[i+1].name {
				t.Fatalf("behind %s: %v, want %s", list[i].name, page, list[i+1].name)
			}
			// The entry before the position goes; the position stays.
			if err := os.Remove(filepath.Join(big, list[i].name)); err != nil {
				t.Fatal(err)
			}
			if _, err := unix.Seek(fd, list[i].off, unix.SEEK_SET); err != nil {
				t.Fatal(err)
			}
			if page = getdents(t, fd, 1024); page[0].name != list[i+1].name {
				t.Fatalf("behind removed %s: %s, want %s", list[i].name, page[0].name, list[i+1].name)
			}
		}
		if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
			t.Fatal(err)
		}
		if again := listAll(t, fd, func() {}); again[0].name == list[0].name {
			t.Errorf("after rewinding, removed %s is listed", list[0].name)
		}
	})

	t.Run("remove all", func(t *testing.T) {
		// One at a time takes long; some are left for the mount.
		var most []string
		for _, e := range listAll(t, openDir(t, big), func() {}) {
			if len(most) < 4500 {
				most = append(most, e.name)
			}
		}
		together(t, c, most, func(name string) meta.Op { return &meta.Unlink{Parent: ino, Name: name} })
		if err := os.RemoveAll(big); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(big); !os.IsNotExist(err) {
			t.Errorf("the directory is still there: %v", err)
		}
	})
}

// checkListing wants every name of stay once, and none twice.
func checkListing(t *testing.T, list []dirent, stay []string) {
	t.Helper()
	seen := map[string]int{}
	for _, e := range list {
		if seen[e.name]++; seen[e.name] > 1 {
			t.Errorf("%s is listed %d times", e.name, seen[e.name])
		}
	}
	for _, name := range stay {
		if seen[name] != 1 {
			t.Errorf("%s is listed %d times", name, seen[name])
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

// TestManyMakers makes files in one directory from several threads at once;
// O_EXCL lets one win.
func TestManyMakers(t *testing.T) {
	t.Parallel()
	p := needMount(t)
	drive := p.drive(t)
	mounts := []string{p.mount(t, drive), p.mount(t, drive)}
	const names, makers = 40, 4
	won := make([][]string, makers)
	var wg sync.WaitGroup
	for m := range makers {
		wg.Go(func() {
			for i := range names {
				name := fmt.Sprintf("f%d", (i+m*7)%names)
				fd, err := unix.Open(filepath.Join(mounts[m%2], name), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
				switch err {
				case nil:
					won[m] = append(won[m], name)
					unix.Close(fd)
				case unix.EEXIST:
				default:
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	wg.Wait()
	all := slices.Sorted(slices.Values(slices.Concat(won...)))
	if len(all) != names || len(slices.Compact(all)) != names {
		t.Errorf("%d names were won, want each of %d once", len(all), names)
	}
}

// TestNames makes names of every byte and of every length that is allowed.
func TestNames(t *testing.T) {
	t.Parallel()
	dir := newMount(t)
	want := map[string]bool{}
	for b := 1; b < 256; b++ {
		if b == '/' {
			continue
		}
		for _, name := range []string{string([]byte{byte(b)}), string([]byte{'x', byte(b), 'y'})} {
			if name != "." {
				want[name] = true
			}
		}
	}
	for _, n := range []int{2, 127, 128, 254, 255} {
		want[strings.Repeat("\xff", n)] = true
		want[strings.Repeat("é", n/2)] = true
	}
	want["..."], want[". "], want["-rf"] = true, true, true
	for name := range want {
		if err := os.WriteFile(dir+"/"+name, []byte(name), 0o644); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, e := range entries {
		got[e.Name()] = true
		if data, err := os.ReadFile(dir + "/" + e.Name()); err != nil || string(data) != e.Name() {
			t.Errorf("%q holds %q, %v", e.Name(), data, err)
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("%d names are listed, want %d", len(got), len(want))
	}
	long := dir + "/" + strings.Repeat("n", 256)
	for what, err := range map[string]error{
		"create":   os.WriteFile(long, nil, 0o644),
		"mkdir":    unix.Mkdir(long, 0o755),
		"symlink":  unix.Symlink("t", long),
		"mknod":    unix.Mknod(long, unix.S_IFIFO|0o644, 0),
		"link":     unix.Link(dir+"/x", long),
		"rename":   unix.Rename(dir+"/x", long),
		"stat":     unix.Stat(long, new(unix.Stat_t)),
		"unlink":   unix.Unlink(long),
		"rmdir":    unix.Rmdir(long),
		"long way": unix.Stat(dir+strings.Repeat("/x", 2100), new(unix.Stat_t)),
	} {
		if !errors.Is(err, unix.ENAMETOOLONG) {
			t.Errorf("%s: %v, want ENAMETOOLONG", what, err)
		}
	}
	if err := unix.Symlink(strings.Repeat("t", 4095), dir+"/link"); err != nil {
		t.Errorf("symlink of 4,095 bytes: %v", err)
	}
	if to, err := os.Readlink(dir + "/link"); err != nil || len(to) != 4095 {
		t.Errorf("it leads to %d bytes, %v", len(to), err)
	}
}
