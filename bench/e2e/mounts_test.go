package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"agentdrive/bench/cluster"
)

// Read-only mounts, subtree mounts, other users.
func TestKindsOfMount(t *testing.T) {
	fit(t)
	c := start(t, 1)
	a := c.Mount("demo", "a")
	write(t, a+"/top", "top")
	write(t, a+"/projects/alpha/file", "alpha")
	t.Run("read-only", func(t *testing.T) { readOnly(t, a, c.Mount("demo", "ro", "--read-only")) })
	t.Run("subtree", func(t *testing.T) { subtree(t, c, a) })
	t.Run("other users", func(t *testing.T) { otherUsers(t, c, a) })
}

func readOnly(t *testing.T, rw, ro string) {
	if got := read(t, ro+"/top"); got != "top" {
		t.Errorf("read %q", got)
	}
	f, err := os.Open(ro + "/top")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, err := range map[string]error{
		"create":   os.WriteFile(ro+"/new", nil, 0o644),
		"write":    os.WriteFile(ro+"/top", []byte("x"), 0o644),
		"mkdir":    os.Mkdir(ro+"/dir", 0o755),
		"unlink":   os.Remove(ro + "/top"),
		"rmdir":    syscall.Rmdir(ro + "/projects"),
		"rename":   os.Rename(ro+"/top", ro+"/pot"),
		"link":     os.Link(ro+"/top", ro+"/pot"),
		"symlink":  os.Symlink("top", ro+"/pot"),
		"chmod":    os.Chmod(ro+"/top", 0o600),
		"truncate": os.Truncate(ro+"/top", 0),
		"setxattr": syscall.Setxattr(ro+"/top", "user.x", []byte("y"), 0),
	} {
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("%s: %v, want EROFS", name, err)
		}
	}
	write(t, rw+"/top", "changed")
	if got := read(t, ro+"/top"); got != "changed" {
		t.Errorf("after a change elsewhere: %q", got)
	}
}

func subtree(t *testing.T, c *cluster.Cluster, a string) {
	alpha := c.Mount("demo", "alpha", "--path", "/projects/alpha")
	entries, err := os.ReadDir(alpha)
	if err != nil || len(entries) != 1 || entries[0].Name() != "file" {
		t.Errorf("entries %v, %v", entries, err)
	}
	write(t, alpha+"/sub/new", "from below")
	if got := read(t, a+"/projects/alpha/sub/new"); got != "from below" {
		t.Errorf("seen above: %q", got)
	}
	if _, err := os.Stat(alpha + "/../top"); err == nil {
		t.Error(".. leads out of the subtree")
	}
	if err := os.Symlink("/top", alpha+"/absolute"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(alpha + "/absolute"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an absolute symlink is followed inside the drive: %v", err)
	}
	// made when missing, unless read-only
	deep := c.Mount("demo", "deep", "--path", "/new/sub/tree")
	write(t, deep+"/x", "y")
	if got := read(t, a+"/new/sub/tree/x"); got != "y" {
		t.Errorf("in the new subtree: %q", got)
	}
	r := c.Run("mount", "demo", filepath.Join(c.Root, "m", "none"), "--path", "/not/there", "--read-only", "--json")
	fault(t, r, 3, "not_exist")
	if _, err := os.Stat(a + "/not"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a read-only mount made its subtree: %v", err)
	}
}

// as runs a shell command as another user.
func as(uid uint32, command string) (string, error) {
	cmd := exec.Command("timeout", "20", "sh", "-c", command)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func otherUsers(t *testing.T, c *cluster.Cluster, a string) {
	for dir := c.Root; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const uid = 54321
	shared := c.Mount("demo", "shared", "--allow-other")
	write(t, a+"/public", "for all")
	write(t, a+"/private", "for root")
	if err := errors.Join(os.Chmod(a+"/private", 0o600), os.Mkdir(a+"/open", 0o777), syscall.Chmod(a+"/open", 0o1777)); err != nil {
		t.Fatal(err)
	}
	if out, err := as(uid, "cat "+a+"/public"); err == nil {
		t.Errorf("another user read %q on a mount without --allow-other", out)
	}
	if out, err := as(uid, "cat "+shared+"/public"); err != nil || out != "for all" {
		t.Errorf("public file: %q, %v", out, err)
	}
	if out, err := as(uid, "cat "+shared+"/private"); err == nil {
		t.Errorf("private file: %q", out)
	}
	if out, err := as(uid, "echo x > "+shared+"/public"); err == nil {
		t.Errorf("write without permission: %q", out)
	}
	if out, err := as(uid, "echo mine > "+shared+"/open/mine && cat "+shared+"/open/mine && stat -c %u:%g "+shared+"/open/mine"); err != nil || out != "mine\n54321:54321" {
		t.Errorf("own file: %q, %v", out, err)
	}
	if out, err := as(uid+1, "rm -f "+shared+"/open/mine"); err == nil {
		t.Errorf("removed another's file in a sticky directory: %q", out)
	}
}
