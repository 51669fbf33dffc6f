package procfs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"agentdrive/cmd/internal/procfs"
)

func TestParseMountinfo(t *testing.T) {
	const text = `23 28 0:21 / /proc rw,nosuid shared:13 - proc proc rw
90 28 0:55 / /mnt/a\040b\134c rw,nosuid,nodev - fuse.agentdrive agentdrive:demo rw,user_id=0
91 28 0:56 /sub /x rw master:1 shared:2 propagate_from:3 - ext4 /dev/sda1 rw
broken line
92 28 - ext4
`
	got := procfs.ParseMountinfo(text)
	want := []procfs.Mount{
		{Dir: "/proc", Type: "proc", Source: "proc"},
		{Dir: `/mnt/a b\c`, Type: "fuse.agentdrive", Source: "agentdrive:demo"},
		{Dir: "/x", Type: "ext4", Source: "/dev/sda1"},
	}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("line %d: %+v, want %+v", i, got[i], want[i])
		}
	}
}

func FuzzParseMountinfo(f *testing.F) {
	f.Add(`90 28 0:55 / /mnt/a\040b rw - fuse.agentdrive x rw`)
	f.Add(`a b c d \9 e - f \777`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, m := range procfs.ParseMountinfo(text) {
			if m.Dir == "" || m.Type == "" || m.Source == "" {
				t.Fatalf("%+v from %q", m, text)
			}
		}
	})
}

func TestMountAt(t *testing.T) {
	if _, ok, err := procfs.MountAt("/proc"); !ok || err != nil {
		t.Fatal("/proc is not mounted?", err)
	}
	if _, ok, _ := procfs.MountAt(t.TempDir()); ok {
		t.Fatal("a plain directory is a mount")
	}
}

func TestUsers(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	mine := func() bool {
		for _, u := range procfs.Users(dir) {
			if u.Pid == os.Getpid() && u.Name != "" {
				return true
			}
		}
		return false
	}
	if mine() {
		t.Fatal("in use before it is opened")
	}
	f, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	if !mine() {
		t.Fatal("open file not found")
	}
	f.Close()
	if mine() {
		t.Fatal("in use after close")
	}
}

func TestRuns(t *testing.T) {
	if !procfs.Runs(os.Getpid()) || procfs.Runs(1<<30) {
		t.Fatal("we do not run, or nobody does")
	}
	cmd := exec.Command("/bin/true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for procfs.Runs(cmd.Process.Pid) { // it ends, and stays a zombie until Wait
		if time.Now().After(deadline) {
			t.Fatal("a zombie runs")
		}
		time.Sleep(time.Millisecond)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}
