package kernel

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

func TestPosix(t *testing.T) {
	// What the adapter does not serve yet: the kernel has no emulation.
	unserved := map[string]string{
		"Fallocate":           "fallocate",
		"FallocateKeepSize":   "fallocate",
		"Tmpfile":             "O_TMPFILE",
		"LseekHoleSeeksToEOF": "SEEK_HOLE",
		"LseekEnxioCheck":     "SEEK_DATA",
	}
	fs := newMemFS()
	m := mount(t, fs, nil)
	for name, f := range posixtest.All {
		t.Run(name, func(t *testing.T) {
			if what, ok := unserved[name]; ok {
				t.Skip("not served: " + what)
			}
			dir := filepath.Join(m.Dir(), name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			f(t, dir)
		})
	}
	unmount(t, m, fs)
}
