package posix

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// roleEnv makes this binary, started again, something else than the tests.
const roleEnv = "POSIX_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "janitor":
		janitor(os.Getenv("POSIX_DIR"))
		return
	case "writer":
		if err := writeSlowly(os.Getenv("POSIX_DIR")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	case "child":
		os.Exit(child())
	}
	code := m.Run()
	if real.cleaner != nil {
		if err := real.finish(); err != nil {
			fmt.Fprintln(os.Stderr, "cleaning up:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// startJanitor starts the process that cleans up behind the tests, also when
// they die: it waits for its input to end, which the kernel does then.
func startJanitor(dir string) (*exec.Cmd, io.Closer, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), roleEnv+"=janitor", "POSIX_DIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // an interrupt of the tests is not one of it
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	return cmd, in, cmd.Start()
}

// janitor takes down everything that runs below dir, whatever state it is in,
// and removes dir.
func janitor(dir string) {
	parent := os.Getppid()
	end := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(end)
	}()
	// A parent that dies in a call to the mount closes nothing.
	for dead := false; !dead; dead = dead || leaderDead(parent) {
		select {
		case <-end:
			dead = true
		case <-time.After(time.Second):
		}
	}
	signalAll(dir, unix.SIGCONT)
	for _, m := range mountsBelow(dir) {
		unix.Unmount(m, unix.MNT_DETACH)
	}
	down := exec.Command(filepath.Join(dir, "agentdrive"), "down", "--data", filepath.Join(dir, "data"))
	if down.Start() == nil {
		stop := time.AfterFunc(20*time.Second, func() { down.Process.Kill() })
		down.Wait()
		stop.Stop()
	}
	signalAll(dir, unix.SIGKILL)
	if os.Getenv("POSIX_KEEP") == "" {
		os.RemoveAll(dir)
	}
}

// leaderDead reports whether the first thread of a process is gone.
func leaderDead(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	i := bytes.LastIndexByte(stat, ')') // behind the name, which may hold anything
	return err != nil || i < 0 || bytes.HasPrefix(stat[i:], []byte(") Z"))
}

// mountsBelow lists mount points below dir, the deepest first.
func mountsBelow(dir string) (list []string) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			list = append([]string{f[4]}, list...)
		}
	}
	return list
}

// signalAll signals the processes of the program below dir: their arguments
// begin with its path.
func signalAll(dir string, sig unix.Signal) {
	all, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range all {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		args, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err == nil && bytes.HasPrefix(args, []byte(dir+"/")) {
			unix.Kill(pid, sig)
		}
	}
}
