package cluster

import (
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"agentdrive/cmd/internal/background"
	"agentdrive/internal/errs"
)

// ParentFD is the descriptor on which a child server sees its supervisor's
// end: the read end of a pipe that nobody writes. Descriptor 4 is the
// supervisor's lock, which the child keeps by merely living.
const ParentFD = 3

// drainLimit bounds the wait for the output of a server that has ended.
const drainLimit = 2 * time.Second

// spawner starts processes from one thread that lives until close. The kernel
// sends the parent-death signal when the *thread* that forked ends, and Go
// ends threads at will unless a goroutine is locked to them.
type spawner struct {
	work chan func()
	lock *os.File // inherited by every child
	r, w *os.File // the pipe; children get r
}

func newSpawner(lock *os.File) (*spawner, error) {
	if err := background.SealDescriptors(); err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, errs.E("cluster.spawn", errs.IO, "", err)
	}
	s := &spawner{work: make(chan func()), lock: lock, r: r, w: w}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		for f := range s.work {
			f()
		}
	}()
	return s, nil
}

// start runs the program exe. Its output goes to out, which must be safe for
// concurrent use.
func (s *spawner) start(exe string, args []string, out io.Writer) (*exec.Cmd, error) {
	cmd := exec.Command(exe, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = drainLimit
	cmd.ExtraFiles = []*os.File{s.r, s.lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		Setpgid:   true, // Ctrl-C reaches the supervisor only, which stops in order
	}
	done := make(chan error)
	s.work <- func() { done <- cmd.Start() }
	if err := <-done; err != nil {
		return nil, errs.E("cluster.spawn", errs.IO, "", err)
	}
	return cmd, nil
}

// close ends the thread. All children must have been waited for.
func (s *spawner) close() {
	close(s.work)
	s.w.Close()
	s.r.Close()
}

// WatchParent calls gone, once, when the supervisor that handed down fd has
// ended. fd 0 means that there is none.
func WatchParent(fd int, gone func()) {
	if fd == 0 {
		return
	}
	syscall.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "parent")
	go func() {
		var b [1]byte
		_, _ = f.Read(b[:]) // returns only at end of file: nobody writes
		gone()
	}()
}
