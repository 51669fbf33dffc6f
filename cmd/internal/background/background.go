// Package background starts this program again as a daemon and reports how
// its start went.
//
// The daemon runs in a session of its own, with /dev/null as standard input
// and a log file as output. It inherits a pipe on descriptor 3 and says on it
// once, as a JSON line, that it is ready or why it failed. Until then the
// starter waits; a daemon that ends without a word has crashed, and the tail
// of its log is the explanation.
package background

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"agentdrive/cmd/internal/ctl"
	"agentdrive/internal/errs"
)

// ReadyFD is the descriptor of the pipe in the daemon.
const ReadyFD = 3

const logTail = 20 // lines shown of a daemon that died at its start

type notice struct {
	Failure *ctl.Failure `json:"failure,omitempty"`
}

// Spec says what to start.
type Spec struct {
	Args []string // command line after the program's name; paths absolute, it runs in /
	Log  string   // file that receives stdout and stderr, appended
	Env  []string // environment; nil inherits
}

// Start runs the daemon and returns its pid when it is ready. If it fails
// first, its error comes back with kind and hint. If ctx ends first, the
// daemon is killed: errs.Timeout.
func Start(ctx context.Context, s Spec) (pid int, err error) {
	exe, err := os.Executable()
	if err != nil {
		return 0, errs.E("background.start", errs.IO, "", err)
	}
	log, err := os.OpenFile(s.Log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return 0, errs.E("background.start", errs.IO, "", err)
	}
	defer log.Close()
	from, err := log.Seek(0, 2)
	if err != nil {
		return 0, errs.E("background.start", errs.IO, "", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return 0, errs.E("background.start", errs.IO, "", err)
	}
	defer r.Close()
	cmd := exec.Command(exe, s.Args...)
	cmd.Env = s.Env
	cmd.Dir = "/" // a daemon keeps no directory busy
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{w} // becomes ReadyFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := SealDescriptors(); err != nil {
		return 0, err
	}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return 0, errs.E("background.start", errs.IO, "", err)
	}

	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	line, _ := bufio.NewReader(r).ReadBytes('\n')
	stopped := stop()
	var n notice
	if len(line) > 0 && json.Unmarshal(line, &n) == nil {
		if n.Failure == nil {
			pid = cmd.Process.Pid
			return pid, releaseErr(cmd.Process.Release())
		}
		_ = cmd.Wait() // its exit code says less than its failure
		return 0, n.Failure.Err()
	}
	_ = cmd.Process.Kill() // a pipe closed without a word: dead or useless
	_ = cmd.Wait()
	if !stopped && ctx.Err() != nil {
		return 0, errs.E("background.start", errs.Timeout, "not ready in time; its log ends:\n"+tail(s.Log, from), ctx.Err())
	}
	return 0, errs.E("background.start", errs.Other, "ended during its start ("+cmd.ProcessState.String()+"); its log ends:\n"+tail(s.Log, from), nil)
}

// SealDescriptors marks every open descriptor above standard error close on
// exec. Those that Go opened are so already, but a shell may have handed down
// others, and a daemon that kept them would hold files, locks and mounts of
// strangers for its whole life.
func SealDescriptors() error {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return errs.E("background.seal", errs.IO, "", err)
	}
	for _, e := range fds {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
	return nil
}

func releaseErr(err error) error {
	if err != nil {
		return errs.E("background.start", errs.IO, "", err)
	}
	return nil
}

// tail returns the last lines that were written to path after offset from.
func tail(path string, from int64) string {
	b, err := os.ReadFile(path)
	if err != nil || int64(len(b)) <= from {
		return "(empty)"
	}
	lines := strings.Split(strings.TrimRight(string(b[from:]), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-logTail):], "\n")
}

// Notifier is the daemon's end of the pipe. The zero value and nil notify
// nobody. Only the first call counts. Not safe for concurrent use.
type Notifier struct {
	w *os.File
}

// NewNotifier takes over descriptor fd, inherited from Start; fd 0 means that
// nobody waits.
func NewNotifier(fd int) *Notifier {
	if fd == 0 {
		return &Notifier{}
	}
	syscall.CloseOnExec(fd)
	return &Notifier{w: os.NewFile(uintptr(fd), "ready")}
}

// Ready tells the starter that all is well.
func (n *Notifier) Ready() { n.send(notice{}) }

// Fail tells the starter why the daemon ends.
func (n *Notifier) Fail(err error) { n.send(notice{Failure: ctl.Fail(err)}) }

func (n *Notifier) send(v notice) {
	if n == nil || n.w == nil {
		return
	}
	b, err := json.Marshal(v)
	if err == nil {
		// A starter that no longer reads has given up on us and says so itself.
		_, _ = n.w.Write(append(b, '\n'))
	}
	_ = n.w.Close()
	n.w = nil
}
