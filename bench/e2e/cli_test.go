package e2e

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"agentdrive/bench/cluster"
)

// What scripts rely on: exit codes, errors as JSON, verbs that may be run
// twice. On the embedded default, one process.
func TestCommandLine(t *testing.T) {
	fit(t)
	c := start(t, 1)
	a := c.Mount("demo", "a")
	full := filepath.Join(c.Root, "full")
	write(t, full+"/file", "x")
	for _, tt := range []struct {
		code int
		kind string
		hint string // part of it
		args []string
	}{
		{2, "usage", "", []string{"frobnicate"}},
		{2, "usage", "status", []string{"statsu"}},
		{2, "usage", "--nodes", []string{"up", "--node", "3"}},
		{2, "usage", "--wait", []string{"status", "--for", "healthy"}},
		{2, "usage", "", []string{"drive", "create"}},
		{3, "not_exist", "", []string{"drive", "get", "nope"}},
		{3, "not_exist", "", []string{"drive", "delete", "nope"}},
		{3, "not_exist", "", []string{"mount", "nope", c.Root + "/m/nope"}},
		{3, "not_exist", "", []string{"umount", c.Root + "/m/nope"}},
		{3, "not_exist", "up", []string{"status", "--data", c.Root + "/nodata"}},
		{4, "exist", "", []string{"drive", "create", "demo"}},
		{4, "busy", "", []string{"drive", "delete", "demo"}},
		{4, "not_empty", "empty", []string{"mount", "demo", full}},
		{4, "busy", "umount", []string{"mount", "demo", a, "--read-only"}},
		{4, "locked", "down", []string{"up", "--data", c.Data}},
		{6, "refused", "nodes", []string{"up", "--detach", "--nodes", "3"}},
		{6, "name_too_long", "", []string{"drive", "create", strings.Repeat("x", 256)}},
	} {
		t.Run(strings.Join(tt.args[:min(2, len(tt.args))], " "), func(t *testing.T) {
			f := fault(t, c.Run(append(tt.args, "--json")...), tt.code, tt.kind)
			if !strings.Contains(f.Hint, tt.hint) {
				t.Errorf("hint %q does not say %q", f.Hint, tt.hint)
			}
		})
	}
	t.Run("twice", func(t *testing.T) { // harmless
		c.Do("drive", "create", "demo", "--if-not-exists")
		c.Do("mount", "demo", a)
		c.Do("up", "--detach")
		if n := len(cluster.Mounts(c.Root)); n != 1 {
			t.Errorf("%d mounts", n)
		}
	})
	t.Run("drives", func(t *testing.T) { drives(t, c, a) })
	t.Run("busy umount", func(t *testing.T) { busyUmount(t, c, a) })
}

func drives(t *testing.T, c *cluster.Cluster, a string) {
	c.Do("drive", "create", "second")
	write(t, a+"/data", strings.Repeat("x", 10_000))
	c.Do("sync", a) // drive get tells what the servers have
	var d cluster.Drive
	if err := json.Unmarshal([]byte(c.Do("drive", "get", "demo", "--json")), &d); err != nil || d.Name != "demo" || d.Bytes < 10_000 || d.Files < 2 {
		t.Errorf("drive get: %+v, %v", d, err)
	}
	st := c.Status()
	if len(st.Drives) != 2 || !st.Healthy || st.Version == "" || len(st.Servers) != 2 {
		t.Errorf("status %+v", st)
	}
	if len(st.Mounts) != 1 || st.Mounts[0].Dir != a || st.Mounts[0].Drive != "demo" || st.Mounts[0].Path != "/" || st.Mounts[0].Mode != "rw" || st.Mounts[0].Pid == 0 {
		t.Errorf("mounts %+v", st.Mounts)
	}
	c.Do("drive", "delete", "second")
	fault(t, c.Run("drive", "get", "second", "--json"), 3, "not_exist")
}

// A mount in use is not taken away, unless it is said to be.
func busyUmount(t *testing.T, c *cluster.Cluster, a string) {
	f, err := os.Create(a + "/open")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fault(t, c.Run("umount", a, "--json"), 4, "busy")
	c.Do("umount", a, "--lazy")
	if n := len(cluster.Mounts(c.Root)); n != 0 {
		t.Errorf("%d mounts after umount --lazy", n)
	}
	if _, err := f.WriteString("late"); err != nil {
		t.Errorf("write after umount --lazy: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Errorf("close after umount --lazy: %v", err)
	}
	again := c.Mount("demo", "again")
	if got := read(t, again+"/open"); got != "late" {
		t.Errorf("written after umount --lazy: %q", got)
	}
	c.Do("umount", again)
}

// down leaves nothing: no process, no mount; data stays.
func TestDown(t *testing.T) {
	fit(t)
	c := start(t, 3)
	a := c.Mount("demo", "a")
	c.Mount("demo", "sub", "--path", "/sub")
	write(t, a+"/sub/file", "kept")
	c.Do("down")
	if p, m := cluster.Processes(c.Root), cluster.Mounts(c.Root); len(p)+len(m) != 0 {
		t.Errorf("after down: processes %v, mounts %v", p, m)
	}
	c.Do("down") // twice is harmless
	fault(t, c.Run("status", "--json"), 5, "unavailable")
	c.Up()
	c.WaitFor("healthy")
	if got := read(t, c.Mount("demo", "a")+"/sub/file"); got != "kept" {
		t.Errorf("after down and up: %q", got)
	}
}

// status tells how much is away: nothing, little, a majority, all. Operations
// wait meanwhile, and can be interrupted.
func TestServersAway(t *testing.T) {
	fit(t)
	c := cluster.Start(t, cluster.Options{Bin: binary, Nodes: 3, NoRespawn: true})
	c.Do("drive", "create", "demo")
	a := c.Mount("demo", "a")
	write(t, a+"/file", "before")
	var again []func()
	away := func(code int) {
		t.Helper()
		for _, s := range c.Status().ByRole(cluster.Meta) {
			if s.State == "up" {
				again = append(again, c.Kill(s))
				break
			}
		}
		if r := c.Run("status", "--json"); r.Code != code {
			t.Errorf("with %d metadata servers away: exit %d, want %d\n%v", len(again), r.Code, code, r)
		}
	}
	if r := c.Run("status", "--json"); r.Code != 0 {
		t.Errorf("healthy: %v", r)
	}
	away(7)
	c.WaitFor("serving")
	away(7)
	if st := c.Status(); st.Serving || st.Healthy {
		t.Errorf("one metadata server of three: serving %v, healthy %v", st.Serving, st.Healthy)
	}
	fault(t, c.Run("status", "--wait", "--for", "serving", "--timeout", "500ms", "--json"), 5, "timeout")
	r := cluster.Exec(context.Background(), "/", 2*time.Second, nil, "touch", a+"/new")
	if r.Code == 0 || !strings.Contains(r.Stderr, "cut off") {
		t.Errorf("an operation without servers does not wait until it is killed: %v", r)
	}
	waiting := func() bool { m := c.Status().Mounts; return len(m) == 1 && m[0].State == "waiting" }
	c.Eventually("mount that waits, in status", waiting)
	away(5)
	for _, f := range again {
		f()
	}
	c.WaitFor("healthy")
	if got := read(t, a+"/file"); got != "before" {
		t.Errorf("through the same mount: %q", got)
	}
	write(t, a+"/after", "after")
}
