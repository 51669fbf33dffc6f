package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"agentdrive/bench/cluster"
)

// Three drive groups, a drive in each, and the leader of one dies while all
// three are written: nobody sees an error, and nothing is missing.
func TestThreeGroups(t *testing.T) {
	fit(t)
	c := cluster.Start(t, cluster.Options{Bin: binary, Nodes: 3, Groups: 3})
	const files = 120
	dirs := map[uint32]string{}
	for i := range 3 {
		name := fmt.Sprintf("d%d", i)
		c.Do("drive", "create", name)
		for _, d := range c.Status().Drives {
			if d.Name == name {
				dirs[d.Group] = c.Mount(name, name)
			}
		}
	}
	if len(dirs) != 3 {
		t.Fatalf("three drives are in groups %v", dirs)
	}
	failed := make(chan error, 3)
	half := make(chan bool, 3)
	for _, dir := range dirs {
		go func() {
			for i := range files {
				if i == files/3 {
					half <- true
				}
				name := filepath.Join(dir, fmt.Sprint("f", i))
				if err := os.WriteFile(name, []byte(name), 0o644); err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
	}
	for range dirs {
		<-half
	}
	c.Kill(c.LeaderOf(2))
	for range dirs {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	for group, dir := range dirs {
		for i := range files {
			name := filepath.Join(dir, fmt.Sprint("f", i))
			if b, err := os.ReadFile(name); err != nil || string(b) != name {
				t.Fatalf("group %d: %s holds %q, %v", group, name, b, err)
			}
		}
	}
	c.WaitFor("healthy")
}
