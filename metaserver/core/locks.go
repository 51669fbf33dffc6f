package core

import (
	"agentdrive/internal/errs"
	"agentdrive/metaserver/locks"
	"agentdrive/metaserver/meta"
)

// Locks are leader memory, as leases: sessions declare theirs to a new leader,
// and lose them when they end. They meet no gates and no leases: what a holder
// may believe of the file is another matter.

// fileLocks are the locks of a drive.
type fileLocks struct {
	table *locks.Table
	waits map[locks.Ticket]*read // blocked requests; look-up only
}

// lockOp is the part of a read that is a SetLock.
type lockOp struct {
	ticket    locks.Ticket // 0: not blocked
	cancelled bool
}

func (d *drive) lockTable() *fileLocks {
	if d.locks == nil {
		d.locks = &fileLocks{table: locks.New(), waits: map[locks.Ticket]*read{}}
	}
	return d.locks
}

// lockAsked notes a SetLock that arrived, so that it can be cancelled.
func (s *Server) lockAsked(st *stream, f *meta.OpFrame) *read {
	r := &read{stream: st, id: f.ID, op: f.Op, lock: &lockOp{}}
	if st.lockOps == nil {
		st.lockOps = map[meta.OpID]*read{}
	}
	st.lockOps[f.ID] = r
	return r
}

// lockConfirmed carries out a SetLock or GetLock.
func (s *Server) lockConfirmed(r *read) {
	if !s.alive(r) {
		return
	}
	se := r.stream.session
	d := se.drive
	if d.undeclared > 0 && !s.breaks.noReclaimWait {
		s.park(d, func() { s.lockConfirmed(r) })
		return
	}
	t := d.lockTable()
	if op, ok := r.op.(*meta.GetLock); ok {
		l, found := t.table.Get(se.ID, op.Lock)
		if !found {
			l = meta.FileLock{Ino: op.Lock.Ino, Flock: op.Lock.Flock, Kind: meta.Unlocked, End: meta.LockEOF}
		}
		s.answer(r, meta.Outcome{Result: &meta.LockResult{Lock: l}}, nil)
		return
	}
	if r.lock.cancelled {
		s.lockAnswer(r, interrupted())
		return
	}
	op := r.op.(*meta.SetLock)
	res := t.table.Set(se.ID, op.Lock, op.Wait)
	switch res.Verdict {
	case locks.Granted:
		s.lockAnswer(r, nil)
	case locks.Conflict:
		s.lockAnswer(r, errs.E("lock.set", errs.WouldBlock, "", nil))
	case locks.Deadlock:
		s.lockAnswer(r, errs.E("lock.set", errs.Deadlock, "", nil))
	case locks.Queued:
		r.lock.ticket = res.Ticket
		t.waits[res.Ticket] = r
		s.stats.LockWaits++
	}
	s.lockWoken(d, res.Woken)
}

func interrupted() error { return errs.E("lock.set", errs.Interrupted, "", nil) }

func (s *Server) lockAnswer(r *read, err error) {
	delete(r.stream.lockOps, r.id)
	if !s.alive(r) {
		return // the client asks again, and finds the lock set
	}
	o := meta.Outcome{Result: &meta.EmptyResult{}}
	if err != nil {
		o = meta.Failed(err)
	}
	s.answer(r, o, nil)
}

// lockWoken answers requests whose locks came.
func (s *Server) lockWoken(d *drive, woken []locks.Ticket) {
	for _, k := range woken {
		if r := d.locks.waits[k]; r != nil {
			delete(d.locks.waits, k)
			s.lockAnswer(r, nil)
		}
	}
}

// onCancelOp ends a blocked SetLock.
func (s *Server) onCancelOp(st *stream, se *session, f *meta.CancelOp) {
	r := st.lockOps[f.ID]
	if r == nil {
		return // answered, or no lock
	}
	if r.lock.cancelled = true; r.lock.ticket == 0 {
		return // answered when it is confirmed
	}
	t := se.drive.lockTable()
	if t.table.Cancel(r.lock.ticket) {
		delete(t.waits, r.lock.ticket)
		s.lockAnswer(r, interrupted())
	}
}

// dropLockWaits forgets blocked requests of a stream that broke: the client
// makes them again on another.
func (s *Server) dropLockWaits(st *stream) {
	if st.session == nil || st.session.drive.locks == nil {
		return
	}
	t := st.session.drive.locks
	for _, r := range st.lockOps { // order does not matter: nobody is woken
		if r.lock.ticket != 0 && t.table.Cancel(r.lock.ticket) {
			delete(t.waits, r.lock.ticket)
		}
	}
	st.lockOps = nil
}

// dropLocks takes an ended session's locks away.
func (s *Server) dropLocks(se *session) {
	if t := se.drive.locks; t != nil {
		s.lockWoken(se.drive, t.table.DropSession(se.ID))
	}
}

// claimLocks makes the locks of a session those that it declared. It reports
// false if another session holds one of them.
func (s *Server) claimLocks(se *session) bool {
	claims := se.lockClaims
	se.lockClaims = nil
	if len(claims) == 0 && se.drive.locks == nil {
		return true
	}
	d := se.drive
	t := d.lockTable()
	before := t.table.Owned(se.ID)
	for _, l := range claims {
		if !t.table.Restore(se.ID, l) {
			return false
		}
	}
	for _, l := range before {
		for _, gone := range uncovered(l, claims) {
			gone.Kind = meta.Unlocked
			s.lockWoken(d, t.table.Set(se.ID, gone, false).Woken)
		}
	}
	return true
}

// uncovered gives the parts of a lock that no claim of its owner covers.
func uncovered(l meta.FileLock, claims []meta.FileLock) []meta.FileLock {
	parts := []meta.FileLock{l}
	for _, c := range claims {
		if c.Ino != l.Ino || c.Flock != l.Flock || c.Owner != l.Owner {
			continue
		}
		if c.Flock {
			c.Start, c.End = 0, meta.LockEOF
		}
		var rest []meta.FileLock
		for _, p := range parts {
			if c.End < p.Start || p.End < c.Start {
				rest = append(rest, p)
				continue
			}
			if p.Start < c.Start {
				left := p
				left.End = c.Start - 1
				rest = append(rest, left)
			}
			if c.End < p.End {
				right := p
				right.Start = c.End + 1
				rest = append(rest, right)
			}
		}
		parts = rest
	}
	return parts
}
