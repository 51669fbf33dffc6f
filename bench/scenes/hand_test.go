package scenes

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// roleEnv makes this program, started again, a hand.
const roleEnv = "SCENES_ROLE"

// handLimit bounds a call of a hand: what takes longer hangs.
const handLimit = 90 * time.Second

// order is one call for a hand.
type order struct {
	Do   string // open, read, write, sync, close, stat, readfile, writefile
	Path string
	Text string
	Off  int64
	N    int
}

// answer is what came of it.
type answer struct {
	Text  string
	Errno syscall.Errno
}

// hand is a process that works on one file of a mount. The test starts no
// child while it holds files of a mount that does not answer, since the child
// would wait for the mount: the hand holds them.
type hand struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func newHand(t testing.TB) *hand {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h := &hand{t: t, cmd: exec.Command(exe)}
	h.cmd.Env = append(os.Environ(), roleEnv+"=hand")
	h.cmd.Stderr = os.Stderr
	in, err := h.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.in, h.out = in, bufio.NewReader(out)
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		h.cmd.Process.Kill()
	})
	return h
}

// begin gives an order; the function it returns waits for the answer.
func (h *hand) begin(o order) (end func() (string, error)) {
	h.t.Helper()
	if err := json.NewEncoder(h.in).Encode(o); err != nil {
		h.t.Fatal(err)
	}
	type result struct {
		answer
		err error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		line, err := h.out.ReadBytes('\n')
		r.err = err
		if err == nil {
			r.err = json.Unmarshal(line, &r.answer)
		}
		done <- r
	}()
	return func() (string, error) {
		select {
		case r := <-done:
			if r.err == nil && r.Errno != 0 {
				return r.Text, r.Errno
			}
			return r.Text, r.err
		case <-time.After(handLimit):
			return "", fmt.Errorf("%s %s: no answer after %v", o.Do, o.Path, handLimit)
		}
	}
}

func (h *hand) do(o order) (string, error) {
	h.t.Helper()
	return h.begin(o)()
}

// ok is do for what must succeed.
func (h *hand) ok(o order) string {
	h.t.Helper()
	text, err := h.do(o)
	if err != nil {
		h.t.Fatalf("%s %s: %v", o.Do, o.Path, err)
	}
	return text
}

// hold is the life of a hand.
func hold() {
	var file *os.File
	in, out := bufio.NewReader(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			os.Exit(0)
		}
		var o order
		if err := json.Unmarshal(line, &o); err != nil {
			panic(err) // the test wrote it
		}
		var a answer
		a.Text, err = o.carryOut(&file)
		if err != nil && !errors.As(err, &a.Errno) {
			a.Errno = syscall.EPROTO // no errno: a mistake in the test
			fmt.Fprintln(os.Stderr, err)
		}
		if err := out.Encode(a); err != nil {
			os.Exit(0)
		}
	}
}

func (o order) carryOut(file **os.File) (text string, err error) {
	switch o.Do {
	case "open":
		*file, err = os.OpenFile(o.Path, os.O_RDWR|os.O_CREATE, 0o644)
		return "", err
	case "readfile":
		b, err := os.ReadFile(o.Path)
		return string(b), err
	case "writefile":
		return "", os.WriteFile(o.Path, []byte(o.Text), 0o644)
	case "stat":
		_, err := os.Lstat(o.Path)
		return "", err
	}
	switch f := *file; o.Do {
	case "read":
		b := make([]byte, o.N)
		n, err := f.ReadAt(b, o.Off)
		if err == io.EOF {
			err = nil
		}
		return string(b[:n]), err
	case "write":
		_, err := f.WriteAt([]byte(o.Text), o.Off)
		return "", err
	case "sync":
		return "", f.Sync()
	case "close":
		return "", f.Close()
	}
	return "", errors.New("no such order: " + o.Do)
}
