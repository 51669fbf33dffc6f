package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"agentdrive/internal/errs"
)

// runInside runs the servers in this process until ctx ends. The first that
// fails stops the others.
func (s *Supervisor) runInside(ctx context.Context, fail func(error)) {
	var wg sync.WaitGroup
	for _, v := range s.servers {
		logf, err := OpenLog(s.dir.LogOf(v.Name()))
		if err != nil {
			fail(err)
			break
		}
		c := s.serverConfig(v.Entry)
		c.Log = logf
		s.setPid(v, os.Getpid(), "")
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer logf.Close()
			err := s.opt.Run(ctx, c)
			s.setPid(v, 0, "stopped")
			if err == nil && ctx.Err() == nil {
				err = errs.E("cluster.run", errs.Other, "ended by itself", nil)
			}
			if err != nil {
				fail(errs.E("cluster.run", errs.Other, v.Name(), err))
			}
		}()
	}
	<-ctx.Done()
	wg.Wait()
}

// runChildren keeps one child process for each server until ctx ends.
func (s *Supervisor) runChildren(ctx context.Context, fail func(error)) {
	sp, err := newSpawner(s.lock.File())
	if err != nil {
		fail(err)
		return
	}
	var wg sync.WaitGroup
	for _, v := range s.servers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := s.keep(ctx, sp, v); err != nil {
				fail(err)
			}
		}()
	}
	wg.Wait()
	<-ctx.Done() // with NoRespawn all servers may be dead: the cluster still exists
	sp.close()
}

// keep runs v, again and again, until ctx ends. It returns an error when the
// server refuses to start before the cluster ever served: trying again would
// change nothing.
func (s *Supervisor) keep(ctx context.Context, sp *spawner, v *server) error {
	logf, err := OpenLog(s.dir.LogOf(v.Name()))
	if err != nil {
		return err
	}
	defer logf.Close()
	for {
		out := &lastLines{next: logf}
		cmd, err := sp.start(s.exe, s.opt.Args(s.serverConfig(v.Entry)), out)
		if err != nil {
			return err
		}
		s.setPid(v, cmd.Process.Pid, "")
		s.await(ctx, cmd, v)
		how := cmd.ProcessState.String()
		s.setPid(v, 0, how)
		if ctx.Err() != nil {
			return nil
		}
		s.log.Printf("%s (process %d) ended: %s", v.Name(), cmd.Process.Pid, how)
		if kind, ok := s.opt.Hope(cmd.ProcessState.ExitCode()); !ok && !s.isReady() {
			return errs.E("cluster.run", kind, v.Name()+" refused to start: "+out.String(), nil).
				WithHint("its log is " + s.dir.LogOf(v.Name()))
		}
		if s.opt.NoRespawn {
			return nil
		}
		pause := time.NewTimer(s.opt.RespawnDelay)
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil
		case <-pause.C:
			s.log.Printf("starting %s again", v.Name())
		}
	}
}

// await waits for the end of cmd. When ctx ends first it asks the process to
// stop, and after stopGrace kills it.
func (s *Supervisor) await(ctx context.Context, cmd *exec.Cmd, v *server) {
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // ProcessState tells how it ended
		close(ended)
	}()
	select {
	case <-ended:
		return
	case <-ctx.Done():
	}
	_ = cmd.Process.Signal(syscall.SIGTERM) // fails only when it has ended
	grace := time.NewTimer(stopGrace)
	defer grace.Stop()
	select {
	case <-ended:
	case <-grace.C:
		s.log.Printf("%s (process %d) does not stop, killing it", v.Name(), cmd.Process.Pid)
		_ = cmd.Process.Kill()
		<-ended
	}
}

// lastLines passes output on to a log and remembers its end, to explain a
// start that failed. Safe for concurrent use.
type lastLines struct {
	next *LogFile

	mu  sync.Mutex // leaf; guards end
	end []byte
}

const rememberBytes = 2 << 10

func (l *lastLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	l.end = append(l.end, p...)
	l.end = l.end[max(0, len(l.end)-rememberBytes):]
	l.mu.Unlock()
	return l.next.Write(p)
}

// String gives the last lines on one line each.
func (l *lastLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(l.end)), "\n")
	lines = lines[max(0, len(lines)-5):]
	if len(lines) == 1 {
		return lines[0]
	}
	return fmt.Sprintf("\n%s", strings.Join(lines, "\n"))
}
