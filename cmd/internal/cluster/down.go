package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"agentdrive/cmd/internal/ctl"
	"agentdrive/cmd/internal/lockfile"
	"agentdrive/cmd/internal/procfs"
	"agentdrive/internal/errs"
)

// Down stops the supervisor of d with all its servers and waits until they
// are gone. It reports whether anything ran. A supervisor that does not react
// before ctx ends is killed, and its servers with it.
func Down(ctx context.Context, d Dir) (ran bool, err error) {
	_, held, err := lockfile.Held(d.Lock())
	if err != nil || !held {
		return false, err
	}
	// errs.Unavailable: it was killed and its last servers are ending, or it
	// stopped between the two lines. The lock tells.
	if err := ctl.Call(ctx, d.Socket(), "stop", nil, nil); err != nil && !errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.Timeout) {
		return true, err
	}
	lock, err := lockfile.Wait(ctx, d.Lock())
	if errs.Is(err, errs.Timeout) {
		lock, err = kill(d)
	}
	if err != nil {
		return true, err
	}
	defer lock.Close()
	// What a killed supervisor left behind.
	if err := os.Remove(d.Socket()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return true, errs.E("cluster.down", errs.IO, "", err)
	}
	if c, err := Load(d); err == nil {
		for _, e := range c.Servers {
			_ = os.Remove(d.PidFile(e)) // for display only; often gone already
		}
	}
	return true, nil
}

// kill ends every process that holds the lock of d: only the supervisor and
// its servers ever open that file for long.
func kill(d Dir) (*lockfile.Lock, error) {
	users := procfs.Users(d.Lock())
	for _, u := range users {
		if u.Pid != os.Getpid() {
			_ = syscall.Kill(u.Pid, syscall.SIGKILL) // ended by itself: fine
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	lock, err := lockfile.Wait(ctx, d.Lock())
	if err != nil {
		return nil, errs.E("cluster.down", errs.Timeout, fmt.Sprintf("processes %v do not end", users), err)
	}
	return lock, nil
}
