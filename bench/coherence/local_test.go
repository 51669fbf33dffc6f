package coherence

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	WorkerMain()
	flag.Parse()
	os.Exit(run(m))
}

var tmp string // for what all tests share

func run(m *testing.M) int {
	var err error
	if tmp, err = os.MkdirTemp("", "coherence"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(tmp)
	return m.Run()
}

// What a local filesystem does must pass: nothing is demanded that the kernel
// itself does not give.
func TestLocal(t *testing.T) {
	dir := t.TempDir()
	seed := uint64(time.Now().UnixNano())
	rep, err := Run(Plan{Mounts: []string{dir, dir}, Seed: seed, For: 3 * time.Second, Local: true, Most: 5})
	t.Log(rep)
	if err != nil {
		t.Error(err)
	}
	for _, v := range rep.Violations {
		t.Error(v.Text)
	}
}

// Mounts that show different drives are found out, whatever is worked on.
func TestTwoDrives(t *testing.T) {
	for _, group := range allGroups {
		t.Run(group, func(t *testing.T) {
			a, b := t.TempDir(), t.TempDir()
			pages := t.TempDir()
			rep, err := Run(Plan{
				Mounts: []string{a, b}, Seed: 1, Groups: []string{group}, For: 20 * time.Second, Local: true, Pages: pages, apart: true,
			})
			t.Log(rep)
			if err == nil && len(rep.Violations) == 0 {
				t.Error("nothing found")
			}
			for _, v := range rep.Violations {
				t.Log(v.Text)
				if v.Page != "" {
					if _, err := os.Stat(v.Page); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}
