package kernel

import (
	"bufio"
	"bytes"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// signalPoll is how often a process is looked at again whose request was
// interrupted by a signal that does not mean "stop". The kernel sends one
// FUSE_INTERRUPT for a request, whatever comes later, and tells nobody of
// further signals.
const signalPoll = 100 * time.Millisecond

// stopSignals end a wait: those by which people and supervisors stop a
// program. Any other signal that kills a process shows as SIGKILL pending.
const stopSignals = 1<<(syscall.SIGHUP-1) | 1<<(syscall.SIGINT-1) | 1<<(syscall.SIGQUIT-1) |
	1<<(syscall.SIGABRT-1) | 1<<(syscall.SIGKILL-1) | 1<<(syscall.SIGTERM-1)

// interrupt handles FUSE_INTERRUPT for the request unique. It reports whether
// the request was there.
func (c *conn) interrupt(unique uint64) bool {
	c.mu.Lock()
	req := c.calls[unique]
	c.mu.Unlock()
	if req == nil {
		return false
	}
	// A wait for a lock ends with any signal that has a handler: alarm(2)
	// around it is how programs bound it.
	if req.op == opSetLockWait || wantsStop(req.pid) {
		c.stop(req)
	} else {
		c.watch(req)
	}
	return true
}

// stop cancels a request; one that is parked is answered here.
func (c *conn) stop(req *request) {
	c.mu.Lock()
	parked := req.parked
	if parked {
		req.parked = false
		c.parked = slices.DeleteFunc(c.parked, func(r *request) bool { return r == req })
		delete(c.calls, req.unique)
		if req.watched != nil {
			close(req.watched)
			req.watched = nil
		}
	}
	c.cancelLocked(req)
	c.mu.Unlock()
	if parked {
		c.write(req.fd, errorReply(req.unique, syscall.EINTR))
		c.withdraw(req)
	}
}

// watch looks at the process from time to time until the request is over.
func (c *conn) watch(req *request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls[req.unique] != req || req.watched != nil || req.canceled {
		return
	}
	over := make(chan struct{})
	req.watched = over
	c.workers.Add(1)
	go func() {
		defer c.workers.Done()
		t := time.NewTicker(signalPoll)
		defer t.Stop()
		for {
			select {
			case <-over:
				return
			case <-req.cancel:
				return
			case <-t.C:
				if wantsStop(req.pid) {
					c.stop(req)
					return
				}
			}
		}
	}()
}

// letDie cancels a slow request of a process that a signal has killed and that
// closes its files now. The kernel waits for the answer without listening to
// signals, so that with the servers away nothing could end the process. Nobody
// reads the answer; what is buffered is published nevertheless. The function
// returned ends the watch.
func (c *conn) letDie(unique uint64) (done func()) {
	t := time.AfterFunc(signalPoll, func() {
		c.mu.Lock()
		req := c.calls[unique]
		c.mu.Unlock()
		if req != nil && wasKilled(req.pid) {
			c.stop(req)
		}
	})
	return func() { t.Stop() }
}

// wasKilled reports whether a thread is exiting because of a signal.
func wasKilled(tid uint32) bool {
	stat, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(tid), 10) + "/stat")
	return err == nil && exitingBySignal(stat)
}

// Fields of /proc/pid/stat, counted from the state, the first behind the name.
const (
	statFlags    = 6
	statExitCode = 49
	flagExiting  = 0x4 // PF_EXITING
	exitSignal   = 0x7f
)

// exitingBySignal reads /proc/pid/stat.
func exitingBySignal(stat []byte) bool {
	i := bytes.LastIndexByte(stat, ')') // the name may hold anything
	if i < 0 {
		return false
	}
	f := bytes.Fields(stat[i+1:])
	if len(f) <= statExitCode {
		return false
	}
	flags, err := strconv.ParseUint(string(f[statFlags]), 10, 32)
	if err != nil || flags&flagExiting == 0 {
		return false
	}
	code, err := strconv.ParseUint(string(f[statExitCode]), 10, 32)
	return err == nil && code&exitSignal != 0
}

// sleepsInKernel reports whether a thread of this process waits in the kernel
// for a lock (state D), and not merely for a processor. One that cannot be
// seen counts as waiting.
func sleepsInKernel(tid int64) bool {
	if tid == 0 {
		return false // not begun
	}
	state := threadState(strconv.FormatInt(tid, 10))
	return state == 'D' || state == 0
}

// wantsProcessor reports whether a thread could run, or does (state R).
func wantsProcessor(tid uint32) bool {
	return threadState(strconv.FormatUint(uint64(tid), 10)) == 'R'
}

// threadState is the letter of a thread's state, 0 if it cannot be seen.
func threadState(tid string) byte {
	stat, err := os.ReadFile("/proc/" + tid + "/stat")
	if err != nil {
		return 0
	}
	_, state, _ := bytes.Cut(stat[max(0, bytes.LastIndexByte(stat, ')')):], []byte(" "))
	if len(state) == 0 {
		return 0
	}
	return state[0]
}

// wantsStop reports whether a thread has a stop signal pending that it does
// not block. A thread that cannot be seen (another pid namespace) counts as
// stopping: better an interrupted call than one that cannot be ended.
func wantsStop(tid uint32) bool {
	if tid == 0 {
		return true
	}
	status, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(tid), 10) + "/status")
	if err != nil {
		return true
	}
	return stopPending(status)
}

// stopPending reads /proc/pid/status.
func stopPending(status []byte) bool {
	var pending, blocked uint64
	seen := 0
	s := bufio.NewScanner(bytes.NewReader(status))
	for s.Scan() {
		name, value, ok := bytes.Cut(s.Bytes(), []byte(":"))
		if !ok {
			continue
		}
		switch string(name) {
		case "SigPnd", "ShdPnd", "SigBlk":
			set, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 16, 64)
			if err != nil {
				return true
			}
			seen++
			if string(name) == "SigBlk" {
				blocked = set
			} else {
				pending |= set
			}
		}
	}
	return seen != 3 || pending&^blocked&stopSignals != 0
}
