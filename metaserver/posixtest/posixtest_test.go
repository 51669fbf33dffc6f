package posixtest

import (
	"os"
	"testing"

	"agentdrive/metaserver/metatest"
	"agentdrive/metaserver/model"
)

func TestModel(t *testing.T) {
	Run(t, Options{Users: true, Xattrs: true}, func(*testing.T) metatest.Target { return model.New(0o755, 1) })
}

// TestLocal runs the suite over a local filesystem: it is the oracle for the
// table of cases.
func TestLocal(t *testing.T) {
	probe := metatest.NewOS(t.TempDir())
	if out := probe.Do(create("f", 0o644)); out.Errno != 0 {
		t.Fatal(out.Errno)
	}
	if out := probe.Do(create("g", 0o644)); out.Errno != 0 {
		t.Fatal(out.Errno)
	}
	o := Options{
		Users:      os.Geteuid() == 0,
		Xattrs:     probe.Do(setxattr("f", "user.a", 1, 0)).Errno == 0,
		NoExchange: probe.Do(exchange("f", "g")).Errno != 0,
	}
	probe.Close()
	Run(t, o, func(t *testing.T) metatest.Target {
		dir := t.TempDir()
		if o.Users { // other users must reach it
			openUp(t, dir)
		}
		disk := metatest.NewOS(dir)
		t.Cleanup(disk.Close)
		return disk
	})
}

// openUp lets others search a directory and those above it that this test
// made.
func openUp(t *testing.T, dir string) {
	for range 2 {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		dir += "/.."
	}
}
