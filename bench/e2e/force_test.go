package e2e

import (
	"os/exec"
	"path/filepath"
	"testing"

	"agentdrive/bench/cluster"
)

// With every server gone and a program waiting inside the mount, --force ends
// the mount, and with it the wait. (That it says what it discards is tested in
// cmd/internal/mountd: here every command that the test starts would flush the
// file that it holds open.)
func TestForceWithoutServers(t *testing.T) {
	fit(t)
	c := cluster.Start(t, cluster.Options{Bin: binary})
	c.Do("drive", "create", "demo")
	dir := c.Mount("demo", "a")
	c.KillAll()
	waiting := exec.Command("sh", "-c", ": > "+filepath.Join(dir, "f"))
	if err := waiting.Start(); err != nil {
		t.Fatal(err)
	}
	if r := c.Run("umount", dir, "--force", "--json"); r.Code != 0 {
		t.Errorf("%v", r)
	}
	if err := waiting.Wait(); err == nil {
		t.Error("the program that waited saw no error")
	}
	c.Up()
	c.Mount("demo", "a")
}
