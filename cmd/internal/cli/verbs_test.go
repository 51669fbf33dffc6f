package cli

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"agentdrive/cmd/internal/cluster"
	"agentdrive/cmd/internal/doctor"
	"agentdrive/cmd/internal/mountd"
	"agentdrive/internal/errs"
)

func withMemory(m *memory) Deps {
	d := fakeDeps()
	d.Connect = func([]string) (Cluster, error) { return m, nil }
	return d
}

func TestDriveVerbs(t *testing.T) {
	m := &memory{drives: map[string]Drive{}, busy: "demo"}
	for _, step := range []struct {
		args string
		code int
		says string // on either stream
	}{
		{"drive list --json", ExitDone, `{"drives":[]}`},
		{"drive create demo", ExitDone, "created"},
		{"drive create demo", ExitInUse, "demo"},
		{"drive create demo --if-not-exists --json", ExitDone, `"created":false`},
		{"drive create other --if-not-exists --json", ExitDone, `"created":true`},
		{"drive get nosuch", ExitNotFound, "hint: `agentdrive drive list`"},
		{"drive get nosuch --json", ExitNotFound, `"kind":"not_exist"`},
		{"drive get demo --json", ExitDone, `{"name":"demo","id":1,"group":1,"bytes":0,"files":0,"max_bytes":0,"max_files":0}`},
		{"drive set demo --max-bytes 10GiB --max-files 500", ExitDone, "drive demo: 0 B of 10.0 GiB in 0 of 500 files"},
		{"drive set demo --max-bytes none", ExitDone, "drive demo: 0 B in 0 of 500 files"},
		{"drive set demo --max-bytes 5KB --json", ExitDone, `"max_bytes":5000,"max_files":500}`},
		{"drive list", ExitDone, "0 of 500"},
		{"drive set demo --max-files=0 --json", ExitDone, `"max_bytes":5000,"max_files":0}`},
		{"drive set nosuch --max-files 1", ExitNotFound, "nosuch"},
		{"drive list", ExitDone, "demo"},
		{"drive delete demo", ExitInUse, "mounted"},
		{"drive delete --force demo", ExitDone, "deleted"},
		{"drive delete demo", ExitNotFound, ""},
	} {
		r := runApp(withMemory(m), []string{"AGENTDRIVE_SERVERS=a:1,b:2"}, strings.Fields(step.args)...)
		if r.code != step.code || !strings.Contains(r.out+r.err, step.says) {
			t.Errorf("%s: %v", step.args, r)
		}
	}
}

// The shape of `status --json`: keys are added, never renamed.
func TestStatusShape(t *testing.T) {
	m := &memory{status: Status{
		Version: "v1", Serving: true, Degraded: []string{"chunkserver 2 is down"},
		Servers: []Server{{Role: "metaserver", ID: 1, Pid: 7, Address: "a:1", State: StateUp, Leader: true, Groups: []Group{{ID: 1, Leader: true}}}},
		Drives:  []Drive{{Name: "demo", ID: 3, Group: 1, Bytes: 5, Files: 2}},
		Mounts:  []Mount{{Drive: "demo", Path: "/", Dir: "/m", Pid: 9, Session: 4, Mode: "rw", State: "mounted"}},
		Repair:  Repair{Blocks: 1, Bytes: 2},
	}}
	r := runApp(withMemory(m), nil, "status", "--json", "--servers", "a:1", "--data", t.TempDir())
	if r.code != ExitDegraded || r.err != "" {
		t.Fatal(r)
	}
	var got map[string]any
	r.decode(t, &got)
	wantKeys(t, got, "version", "cluster", "healthy", "serving", "degraded", "servers", "drives", "mounts", "repair")
	first := func(key string) map[string]any { return got[key].([]any)[0].(map[string]any) }
	wantKeys(t, first("servers"), "role", "id", "pid", "address", "state", "leader", "groups")
	wantKeys(t, first("drives"), "name", "id", "group", "bytes", "files", "max_bytes", "max_files")
	wantKeys(t, first("mounts"), "drive", "path", "dir", "pid", "session", "mode", "state")
	wantKeys(t, got["repair"].(map[string]any), "blocks", "bytes")

	m.status = Status{Healthy: true, Serving: true}
	r = runApp(withMemory(m), nil, "status", "--json", "--servers", "a:1", "--data", t.TempDir())
	if r.code != ExitDone || strings.Contains(r.out, "null") {
		t.Errorf("empty lists must be []: %v", r)
	}
	for _, args := range []string{"status --wait", "status --wait --for serving --timeout 5s", "status"} {
		if r := runApp(withMemory(m), nil, append(strings.Fields(args), "--servers", "a:1", "--data", t.TempDir())...); r.code != ExitDone {
			t.Errorf("%s: %v", args, r)
		}
	}
}

func wantKeys(t *testing.T, got map[string]any, want ...string) {
	t.Helper()
	for _, k := range want {
		if _, ok := got[k]; !ok {
			t.Errorf("key %q is missing in %v", k, got)
		}
	}
}

func TestStatusWaitTimesOut(t *testing.T) {
	m := &memory{status: Status{Serving: true, Degraded: []string{"chunkserver 2 is down"}}}
	r := runApp(withMemory(m), nil, "status", "--wait", "--timeout", "50ms", "--servers", "a:1", "--data", t.TempDir())
	if r.code != ExitUnavailable || !strings.Contains(r.err, "chunkserver 2 is down") {
		t.Fatal(r)
	}
	r = runApp(withMemory(m), nil, "status", "--wait", "--for", "serving", "--servers", "a:1", "--data", t.TempDir())
	if r.code != ExitDone {
		t.Fatal(r)
	}
	// A last look that the end of the wait cuts off hides nothing.
	m = &memory{status: m.status, looks: 1}
	r = runApp(withMemory(m), nil, "status", "--wait", "--timeout", "400ms", "--servers", "a:1", "--data", t.TempDir())
	if r.code != ExitUnavailable || !strings.Contains(r.err, "chunkserver 2 is down") || strings.Contains(r.err, "no metaserver") {
		t.Fatal(r)
	}
}

func TestStatusOfNothing(t *testing.T) {
	data := t.TempDir()
	r := runApp(fakeDeps(), nil, "status", "--data", data)
	if r.code != ExitNotFound || !strings.Contains(r.err, "agentdrive up") {
		t.Fatal(r)
	}
	r = runApp(fakeDeps(), nil, "down", "--data", data, "--json")
	if r.code != ExitDone || !strings.Contains(r.out, `"stopped":false`) {
		t.Fatal(r)
	}
	if names, err := os.ReadDir(data); len(names) != 0 || err != nil {
		t.Errorf("asking left traces: %v, %v", names, err)
	}
}

// program runs the test binary as agentdrive, in a process of its own.
func program(t *testing.T, args ...string) result {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, envPrefix) })
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

func mustRun(t *testing.T, args ...string) result {
	t.Helper()
	r := program(t, args...)
	if r.code != ExitDone {
		t.Fatalf("%v: %v", args, r)
	}
	return r
}

func TestUpDetachedThenDown(t *testing.T) {
	data := filepath.Join(t.TempDir(), "new", "data")
	t.Cleanup(func() { program(t, "down", "--data", data) })
	if r := mustRun(t, "up", "--nodes", "3", "--detach", "--data", data); r.out != "ready\n" {
		t.Fatal(r)
	}
	r := mustRun(t, "up", "--detach", "--data", data)
	if r.out != "ready\n" || !strings.Contains(r.err, "runs already") {
		t.Fatal("second up:", r)
	}
	if r := program(t, "up", "--detach", "--nodes", "5", "--data", data, "--json"); r.code != ExitRefused || !strings.Contains(r.err, "refused") {
		t.Fatal("other number of nodes:", r)
	}
	if r := program(t, "up", "--data", data); r.code != ExitInUse || !strings.Contains(r.err, "agentdrive down") {
		t.Fatal("up in the foreground:", r)
	}
	var st Status
	mustRun(t, "status", "--json", "--data", data).decode(t, &st)
	if !st.Healthy || len(st.Servers) != 6 {
		t.Fatalf("%+v", st)
	}
	for _, s := range st.Servers {
		if s.Pid == 0 || syscall.Kill(s.Pid, 0) != nil {
			t.Errorf("%+v does not run", s)
		}
	}
	if r := mustRun(t, "logs", "metaserver-2", "--data", data); !strings.Contains(r.out, "metaserver 2 of cluster "+st.Cluster) || !strings.Contains(r.out, "3 peers, 3 copies") {
		t.Error(r)
	}
	if r := mustRun(t, "logs", "--data", data); !strings.Contains(r.out, "==> chunkserver-3 <==") {
		t.Error(r)
	}
	if r := program(t, "logs", "nosuch", "--data", data); r.code != ExitNotFound {
		t.Error(r)
	}
	if r := mustRun(t, "down", "--data", data); r.out != "stopped\n" {
		t.Fatal(r)
	}
	for _, s := range st.Servers {
		if syscall.Kill(s.Pid, 0) == nil {
			t.Errorf("%s-%d outlived down", s.Role, s.ID)
		}
	}
	if r := mustRun(t, "down", "--data", data); r.out != "nothing was running\n" {
		t.Fatal(r)
	}
	r = program(t, "status", "--json", "--data", data)
	r.decode(t, &st)
	if r.code != ExitUnavailable || st.Healthy || len(st.Servers) != 6 || st.Servers[0].State != StateDown {
		t.Error("status after down:", r)
	}
}

func TestUpEmbeddedInForeground(t *testing.T) {
	data := t.TempDir()
	cmd := exec.Command(os.Args[0], "up", "--data", data, "--json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	var ready struct {
		Ready         bool
		Nodes, Copies int
	}
	if err := json.NewDecoder(out).Decode(&ready); err != nil || !ready.Ready || ready.Nodes != 1 || ready.Copies != 1 {
		t.Fatalf("%+v, %v", ready, err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal("stopped by a signal:", err)
	}
}

// A start that fails in the background is explained in the foreground.
func TestDetachedStartFails(t *testing.T) {
	data := t.TempDir()
	dir := filepath.Join(data, "chunkserver-1")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := lockOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	r := program(t, "up", "--detach", "--data", data, "--json")
	var e errorJSON
	(result{out: r.err}).decode(t, &e)
	if r.code != ExitInUse || e.Kind != "locked" || !strings.Contains(e.Error, "chunkserver-1") {
		t.Fatal(r)
	}
}

func TestMountReportsTheDaemonsError(t *testing.T) {
	data, dir := t.TempDir(), filepath.Join(t.TempDir(), "m")
	r := program(t, "mount", "nosuch", dir, "--data", data, "--servers", "127.0.0.1:1", "--json")
	var e errorJSON
	(result{out: r.err}).decode(t, &e)
	if r.code != ExitNotFound || e.Hint != "create it" {
		t.Fatal(r)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Error("the new directory was left:", err)
	}
	if r := program(t, "mount", "demo", filepath.Dir(data), "--data", data, "--servers", "127.0.0.1:1"); r.code != ExitRefused {
		t.Error("a mount over the data directory:", r)
	}
	if r := program(t, "umount", dir, "--data", data); r.code != ExitNotFound {
		t.Error(r)
	}
	if r := program(t, "sync", dir, "--data", data); r.code != ExitNotFound {
		t.Error(r)
	}
}

func TestServerRefusal(t *testing.T) {
	data := t.TempDir()
	lock, err := lockOf(data)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	r := runApp(fakeDeps(), nil, "metaserver", "--data", data, "--listen", "127.0.0.1:0", "--id", "1", "--peers", "1=127.0.0.1:1")
	if r.code != ExitInUse {
		t.Fatal(r)
	}
}

func TestVersionAndDoctor(t *testing.T) {
	var v map[string]string
	runApp(fakeDeps(), nil, "version", "--json").decode(t, &v)
	if v["version"] != "test" || v["go"] == "" {
		t.Error(v)
	}
	r := runApp(fakeDeps(), nil, "doctor", "--json", "--data", t.TempDir())
	var report doctor.Report
	r.decode(t, &report)
	if (report.Missing() > 0) != (r.code != ExitDone) || len(report.Features) != 5 {
		t.Error(r)
	}
	if r := runApp(fakeDeps(), nil, "doctor", "--data", t.TempDir()); !strings.Contains(r.out, "INC_EPOCH") || !strings.Contains(r.out, "holds no cluster") {
		t.Error(r)
	}
}

func TestMergeOfMounts(t *testing.T) {
	st := Status{Mounts: []Mount{{Drive: "demo", Session: 4}, {Drive: "demo", Session: 5}}}
	r := mountd.Registry(t.TempDir())
	if err := addMounts(context.Background(), &st, r); err != nil || len(st.Mounts) != 2 {
		t.Fatal(st, err)
	}
	config := cluster.Config{Cluster: "00", Servers: []cluster.Entry{{Role: cluster.Chunkserver, ID: 1}, {Role: cluster.Metaserver, ID: 1}}}
	addServers(&st, cluster.Dir(t.TempDir()), config)
	if len(st.Servers) != 2 || st.Servers[0].Role != cluster.Metaserver || st.Servers[1].State != StateDown || st.Servers[1].Groups == nil {
		t.Fatalf("%+v", st.Servers)
	}
}

func TestHopeFollowsTheTable(t *testing.T) {
	for code := range len(exitMeanings) {
		kind, ok := hope(code)
		if !ok && ExitCode(errs.E("", kind, "", nil)) != code {
			t.Errorf("code %d becomes kind %v, which is code %d", code, kind, ExitCode(errs.E("", kind, "", nil)))
		}
	}
}
