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
	if wantsStop(req.pid) {
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
