package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"agentdrive/bench/limit"
	"agentdrive/fuseclient/kernel"
)

// serveLimit shows the filesystem in memory in a directory until standard input
// ends. It is a process of its own: none may open files on a mount that it
// serves.
func serveLimit(dir string) error {
	m, err := kernel.New(limit.NewMemory(uint32(os.Getuid()), uint32(os.Getgid())), kernel.Config{Dir: dir, Source: "limit"})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, m.Unmount())
}

// startLimit starts that process.
func startLimit(tmp string) (dir string, undo func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	dir = filepath.Join(tmp, "limit")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", nil, err
	}
	cmd := exec.Command(self, "serve-limit", dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		return "", nil, errors.Join(fmt.Errorf("the reference mount did not start: %q", line), err, cmd.Wait())
	}
	return dir, func() error { return errors.Join(in.Close(), cmd.Wait()) }, nil
}
