package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// commandLimit bounds every command; the verbs' own --timeout is shorter.
const commandLimit = 90 * time.Second

// Build compiles the binary into dir, with more flags of `go build`, and
// returns its path.
func Build(dir string, flags ...string) (string, error) {
	bin := filepath.Join(dir, "agentdrive")
	out, err := exec.Command("go", append(append([]string{"build", "-o", bin}, flags...), "agentdrive/cmd/agentdrive")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, nil
}

// Unfit says why this host cannot run real mounts, or "".
func Unfit() string {
	if os.Geteuid() != 0 {
		return "real mounts are tested as root"
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Sprintf("no FUSE here: %v", err)
	}
	f.Close()
	return ""
}

// Result is how a command ended.
type Result struct {
	Args   []string
	Code   int // exit code; -1: killed, or never started
	Stdout string
	Stderr string
}

// String shows the command, its exit code and what it printed.
func (r Result) String() string {
	return fmt.Sprintf("%s: exit %d\nstdout: %s\nstderr: %s", strings.Join(r.Args, " "), r.Code, r.Stdout, r.Stderr)
}

// Fault is an error as `--json` prints it.
type Fault struct {
	Error string `json:"error"`
	Kind  string `json:"kind"`
	Hint  string `json:"hint"`
}

// Fault reads standard error as the JSON of an error.
func (r Result) Fault() (Fault, error) {
	var f Fault
	err := json.Unmarshal([]byte(strings.TrimSpace(r.Stderr)), &f)
	return f, err
}

// Exec runs any program in dir for at most limit. A program that fails or is
// cut off is told by its Result, not by an error.
func Exec(ctx context.Context, dir string, limit time.Duration, env []string, args ...string) Result {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = 5 * time.Second // a grandchild may hold the pipes
	err := cmd.Run()
	r := Result{Args: args, Stdout: stdout.String(), Stderr: stderr.String()}
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		r.Code = exit.ExitCode()
		if ctx.Err() != nil {
			r.Stderr += fmt.Sprintf("\n[cut off after %v]", limit)
		}
	default:
		r.Code = -1
		r.Stderr += fmt.Sprintf("\n[%v]", err)
	}
	return r
}
