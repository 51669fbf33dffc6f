package kernel

import (
	"slices"
	"sync"

	"agentdrive/fuseclient/core"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// memLocks are the advisory locks of a memFS: whole ranges, without splitting
// or deadlock detection.
type memLocks struct {
	mu      sync.Mutex // guards everything below
	held    []meta.FileLock
	changed chan struct{} // closed and replaced when a lock goes
	waiting chan struct{} // a token for each that begins to wait
}

func newMemLocks() *memLocks {
	return &memLocks{changed: make(chan struct{}), waiting: make(chan struct{}, 100)}
}

func (m *memLocks) conflict(l *meta.FileLock) *meta.FileLock {
	for i := range m.held {
		h := &m.held[i]
		if h.Ino == l.Ino && h.Flock == l.Flock && h.Owner != l.Owner && h.Start <= l.End && l.Start <= h.End &&
			(h.Kind == meta.LockExcl || l.Kind == meta.LockExcl) {
			return h
		}
	}
	return nil
}

func (m *memLocks) set(call *Call, x *meta.SetLock) core.Answer {
	answer := func(err error) core.Answer {
		if err != nil {
			return core.Answer{Err: err}
		}
		return core.Answer{Result: &meta.EmptyResult{}}
	}
	for {
		m.mu.Lock()
		if x.Lock.Kind == meta.Unlocked || m.conflict(&x.Lock) == nil {
			m.held = slices.DeleteFunc(m.held, func(h meta.FileLock) bool {
				return h.Ino == x.Lock.Ino && h.Flock == x.Lock.Flock && h.Owner == x.Lock.Owner &&
					h.Start >= x.Lock.Start && h.End <= x.Lock.End
			})
			if x.Lock.Kind != meta.Unlocked {
				m.held = append(m.held, x.Lock)
			} else {
				close(m.changed)
				m.changed = make(chan struct{})
			}
			m.mu.Unlock()
			return answer(nil)
		}
		changed := m.changed
		m.mu.Unlock()
		if !x.Wait {
			return answer(memErr(errs.WouldBlock))
		}
		m.waiting <- struct{}{}
		select {
		case <-changed:
		case <-call.Cancel():
			return answer(memErr(errs.Interrupted))
		}
	}
}

func (m *memLocks) get(x *meta.GetLock) *meta.LockResult {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h := m.conflict(&x.Lock); h != nil {
		return &meta.LockResult{Lock: *h}
	}
	return &meta.LockResult{Lock: meta.FileLock{Ino: x.Lock.Ino, Kind: meta.Unlocked}}
}

func (m *memLocks) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.held)
}
