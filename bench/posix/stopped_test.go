package posix

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestStoppedServers: while the servers do not answer, operations that need
// them wait; a signal that means "stop" ends each of them; afterwards all go
// on, and those that waited succeed.
func TestStoppedServers(t *testing.T) {
	p := needMount(t)
	drive := p.drive(t)
	// What the other mount made is known here only where it was looked at.
	dir, other := p.mount(t, drive), p.mount(t, drive)
	for _, d := range []string{"/d", "/seen", "/one", "/two"} {
		if err := os.Mkdir(other+d, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, other+d+"/f", []byte("content"))
	}
	cases := [][]string{
		{"cat", dir + "/seen/f"},
		{"ls", dir + "/seen"},
		{"cat", dir + "/d/f"},
		{"ls", dir + "/d"},
		{"stat", dir + "/d/f"},
		{"touch", dir + "/d/f"},
		{"mkdir", dir + "/new"},
		{"rm", dir + "/d/none"},
		{"dd", "if=/dev/zero", "of=" + dir + "/d/f", "count=1", "conv=notrunc,fsync"},
	}
	if _, err := os.Stat(dir + "/seen/f"); err != nil {
		t.Fatal(err)
	}
	thaw := p.freeze(t)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		for _, args := range cases {
			cmd, done := start(t, args...)
			blocked(t, cmd, done)
			dies(t, cmd, done, sig)
		}
	}
	var cmds []*exec.Cmd
	var dones []<-chan error
	for _, args := range [][]string{{"cat", dir + "/d/f"}, {"mkdir", dir + "/one/later"}, {"touch", dir + "/two/touched"}} {
		cmd, done := start(t, args...)
		blocked(t, cmd, done)
		cmds, dones = append(cmds, cmd), append(dones, done)
	}
	thaw()
	for i, done := range dones {
		if err := await(t, fmt.Sprintf("%q", cmds[i].Args), done); err != nil {
			t.Errorf("%q, which waited: %v", cmds[i].Args, err)
		}
	}
	for _, name := range []string{"/one/later", "/two/touched"} {
		if _, err := os.Stat(other + name); err != nil {
			t.Error(err)
		}
	}
	write(t, dir+"/after", []byte("yes"))
	holds(t, other+"/after", []byte("yes"))
}

// TestStoppedServersLocal: what a mount holds leases for goes on without the
// servers, until what they have not got becomes old (promise P2); then changes
// wait, and a signal ends them. Nothing of it is lost.
func TestStoppedServersLocal(t *testing.T) {
	p := needMount(t)
	drive := p.drive(t)
	dir, other := p.mount(t, drive), p.mount(t, drive)
	script := func(i int) string {
		return strings.ReplaceAll(`mkdir 755 dN
create 644 dN/a
write dN/a
rename dN/a dN/b
link dN/b dN/c
chmod 600 dN/b
create 600 dN/gone
unlink dN/gone
read dN/c
list dN
`, "N", fmt.Sprint(i))
	}
	want := func(i int) string {
		var b strings.Builder
		for line := range strings.Lines(script(i)) {
			line = strings.TrimSpace(line)
			out := ""
			switch {
			case strings.HasPrefix(line, "read"):
				out = `"text"`
			case strings.HasPrefix(line, "list"):
				out = "b c"
			}
			fmt.Fprintf(&b, "%s: %s\n", line, out)
		}
		return b.String()
	}
	// A new directory is known to be empty: a name that is not there needs no
	// question.
	dir, other = subdir(t, dir, "own"), other+"/own"
	if got := runAs(t, user{}, dir, script(0)); got != want(0) { // the leases are here now
		t.Fatalf("with servers:\n%s", got)
	}
	// A machine that is slow enough needs more than one try: half a second
	// after the first change the others wait.
	went, tries := false, 0
	var thaw func()
	for i := 1; i <= 5 && !went; i++ {
		tries = i
		p.must(t, "sync", filepath.Dir(dir))
		thaw = p.freeze(t)
		cmd := scripted(t, user{}, dir, script(i))
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		stuck := false
		select {
		case err := <-done:
			went = err == nil
		case <-time.After(5 * time.Second):
			stuck = true
			thaw()
			await(t, "the script", done)
		}
		if got := out.String(); got != want(i) {
			t.Fatalf("without servers (it had to wait: %v):\n%s\nwant:\n%s", stuck, got, want(i))
		}
	}
	if !went {
		t.Fatalf("%d tries to do without servers had to wait", tries)
	}
	time.Sleep(time.Second) // the oldest change without an answer is half a second old
	cmd, done := start(t, "mkdir", dir+"/late")
	blocked(t, cmd, done)
	dies(t, cmd, done, syscall.SIGTERM)
	cmd, done = start(t, "mkdir", dir+"/waited")
	blocked(t, cmd, done)
	thaw()
	if err := await(t, "mkdir", done); err != nil {
		t.Errorf("%q, which waited: %v", cmd.Args, err)
	}
	for i := range tries + 1 {
		if got := runAs(t, user{}, other, fmt.Sprintf("read d%d/c\nlist d%d\n", i, i)); got != fmt.Sprintf("read d%d/c: \"text\"\nlist d%d: b c\n", i, i) {
			t.Errorf("the other mount sees\n%s", got)
		}
	}
	if _, err := os.Stat(other + "/waited"); err != nil {
		t.Error(err)
	}
}

// TestLongStandstill: servers that stood still for longer than a session lives
// without them lose nothing and end no session when they go on.
func TestLongStandstill(t *testing.T) {
	p := needMount(t)
	drive := p.drive(t)
	dir, other := p.mount(t, drive), p.mount(t, drive)
	if err := os.Mkdir(dir+"/d", 0o755); err != nil {
		t.Fatal(err)
	}
	w := startWriter(t, dir+"/d/buffered")
	w.expect("opened")
	thaw := p.freeze(t)
	frozen := time.Now()
	w.say("go")
	w.expect("written")
	local, localDone := start(t, "mkdir", dir+"/d/local")
	if ok, err := waits(t, local, localDone); !ok {
		if err != nil {
			t.Fatal(err)
		}
		localDone = nil
	}
	far, farDone := start(t, "cat", other+"/d/buffered")
	blocked(t, far, farDone)
	// A session lives 15 s, by the servers' count a tenth more.
	time.Sleep(time.Until(frozen.Add(20 * time.Second)))
	thaw()
	if err := await(t, "cat", farDone); err != nil {
		t.Errorf("%q: %v", far.Args, err)
	}
	if localDone != nil {
		if err := await(t, "mkdir", localDone); err != nil {
			t.Errorf("%q: %v", local.Args, err)
		}
	}
	p.must(t, "sync", dir)
	w.say("close")
	if err := await(t, "the writer", w.done); err != nil {
		t.Errorf("the writer: %v", err)
	}
	holds(t, other+"/d/buffered", append([]byte("first"), bytes.Repeat([]byte("0"), 100_000)...))
	if _, err := os.Stat(other + "/d/local"); err != nil {
		t.Error(err)
	}
}
