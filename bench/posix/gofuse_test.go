package posix

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
	"golang.org/x/sys/unix"
)

// lacking lists the tests that the product cannot pass, with a call that shows
// why. When the call gives something else, the entry must go.
var lacking = map[string]struct {
	reason string
	try    func(dir string) error
	errno  syscall.Errno
}{
	"Fallocate":         {"fallocate is not served yet", fallocate(0), unix.EOPNOTSUPP},
	"FallocateKeepSize": {"fallocate is not served yet", fallocate(unix.FALLOC_FL_KEEP_SIZE), unix.EOPNOTSUPP},
	"Tmpfile":           {"O_TMPFILE is not served yet", tmpfile, unix.EOPNOTSUPP},
	// POSIX locks of one process do not exclude each other, and a local
	// disk fails the test in the same way.
	"FcntlFlockLocksFile": {"the test contradicts POSIX", lockTwice, 0},
}

func fallocate(mode uint32) func(string) error {
	return func(dir string) error {
		f, err := os.Create(filepath.Join(dir, "f"))
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.Fallocate(int(f.Fd()), mode, 0, 4096)
	}
}

func tmpfile(dir string) error {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func lockTwice(dir string) error {
	for range 2 {
		f, err := os.Create(filepath.Join(dir, "f"))
		if err != nil {
			return err
		}
		defer f.Close()
		lock := unix.Flock_t{Type: unix.F_WRLCK}
		if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock); err != nil {
			return err
		}
	}
	return nil
}

// slowest is the test of go-fuse that takes most of the time. It runs beside
// other tests.
const slowest = "OpenSymlinkRace"

// TestSymlinkRace runs the slowest of them.
func TestSymlinkRace(t *testing.T) {
	t.Parallel()
	posixtest.All[slowest](t, newMount(t))
}

// TestGoFuse runs the conformance tests of go-fuse, each in a directory of its
// own. Nothing is skipped but what is listed in lacking.
func TestGoFuse(t *testing.T) {
	dir := newMount(t)
	var all []string
	for name := range posixtest.All {
		if name != slowest {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	for _, name := range all {
		t.Run(name, func(t *testing.T) {
			sub := subdir(t, dir, name)
			if l, ok := lacking[name]; ok {
				if err := l.try(sub); !errors.Is(err, l.errno) && (err != nil || l.errno != 0) {
					t.Fatalf("%s, but the call gives %v instead of %v", l.reason, err, l.errno)
				}
				t.Skip(l.reason)
			}
			defer func() {
				if t.Skipped() {
					t.Error("skipped itself, and is not in the list of what is lacking")
				}
			}()
			posixtest.All[name](t, sub)
		})
	}
}
