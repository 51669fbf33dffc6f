package cluster

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// sweep detaches the mounts below $1 and kills the processes that name it on
// their command line, once standard input ends. Reading nothing but /proc, it
// blocks on no mount.
const sweep = `
cat >/dev/null
for i in 1 2 3; do
  while read -r _ dir _; do
    case "$dir" in "$1"/*) umount -f "$dir"; umount -l "$dir" ;; esac
  done </proc/self/mounts
  for p in /proc/[0-9]*; do
    case "$(tr '\0' ' ' <"$p/cmdline" 2>/dev/null)" in
      *agentdrive*"$1"*) [ "${p#/proc/}" = $$ ] || kill -9 "${p#/proc/}" ;;
    esac
  done
done 2>/dev/null
`

// watch starts the watchdog of the directory root; stop ends it.
func watch(root string) (stop func(), err error) {
	r, w, err := os.Pipe() // w stays open, in no child, as long as this process
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command("sh", "-c", sweep, "sh", root)
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // outlives a Ctrl-C
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, err
	}
	return func() {
		cmd.Process.Kill()
		cmd.Wait()
		w.Close()
	}, nil
}

// clean ends everything below Root. What cannot be ended fails the test.
func (c *Cluster) clean() {
	c.checkLogs()
	for _, dir := range Mounts(c.Root) {
		// By force first, which fails while the mount is in use and ends what
		// waits in it all the same. A daemon that dies while it tells the
		// kernel of a change, which waits for a request of its own, would
		// never be gone otherwise.
		syscall.Unmount(dir, syscall.MNT_FORCE)
		if !slices.Contains(Mounts(c.Root), dir) {
			continue
		}
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			c.t.Errorf("umount -l %s: %v", dir, err)
		}
	}
	deadline := time.Now().Add(eventLimit)
	for {
		left := Processes(c.Root)
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			c.t.Errorf("processes %v do not end", left)
			break
		}
		for _, pid := range left {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(lookEvery)
	}
	if left := Mounts(c.Root); len(left) > 0 {
		c.t.Errorf("mounts %v are left", left)
	}
}

// crashes begin the lines by which the Go runtime tells that a process ended,
// or computes, wrongly. A server that is started again would hide it.
var crashes = []string{"panic: ", "fatal error: ", "WARNING: DATA RACE"}

// checkLogs fails the test if a process crashed, and shows the end of every
// log, and every crash, if the test failed.
func (c *Cluster) checkLogs() {
	const tail, crash = 3000, 6000
	texts := map[string]string{}
	for _, pattern := range []string{"up.out", "*.log", "data/logs/*.log"} {
		files, err := filepath.Glob(filepath.Join(c.Root, pattern))
		if err != nil {
			c.t.Error(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				c.t.Error(err)
			}
			texts[strings.TrimPrefix(f, c.Root)] = "\n" + string(b)
		}
	}
	for f, text := range texts {
		for _, begin := range crashes {
			if i := strings.Index(text, "\n"+begin); i >= 0 {
				c.t.Errorf("crash in %s:%s", f, text[i:min(len(text), i+crash)])
			}
		}
	}
	if !c.t.Failed() {
		return
	}
	for f, text := range texts {
		c.t.Logf("--- %s\n%s", f, text[max(0, len(text)-tail):])
	}
}

// Mounts returns the mount points below root, the latest first.
func Mounts(root string) []string {
	b, _ := os.ReadFile("/proc/self/mounts")
	var out []string
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], root+"/") {
			out = append([]string{f[1]}, out...)
		}
	}
	return out
}

// Processes returns the living agentdrive processes whose command line names
// root.
func Processes(root string) []int {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var out []int
	for _, dir := range dirs {
		b, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		args := bytes.Split(b, []byte{0})
		if filepath.Base(string(args[0])) != "agentdrive" || !bytes.Contains(b, []byte(root)) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && alive(pid) {
			out = append(out, pid)
		}
	}
	return out
}

// alive tells whether a process runs; one that nobody has waited for does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return rest != "" && rest[0] != 'Z' && rest[0] != 'X'
}
