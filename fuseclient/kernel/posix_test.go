package kernel

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

func TestPosix(t *testing.T) {
	unserved := map[string]string{
		"Fallocate":         "fallocate is not served yet",
		"FallocateKeepSize": "fallocate is not served yet",
		"FcntlFlockLocksFile": "wants two descriptors of one process to conflict, " +
			"which fcntl locks do not",
	}
	if raceDetector {
		unserved["OpenSymlinkRace"] = "takes long under the race detector"
	}
	fs := newMemFS()
	m := mount(t, fs, nil)
	for name, f := range posixtest.All {
		t.Run(name, func(t *testing.T) {
			if what, ok := unserved[name]; ok {
				t.Skip(what)
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
