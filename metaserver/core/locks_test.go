package core

import (
	"fmt"
	"testing"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

func posixLock(owner uint64, kind meta.LockKind, start, end uint64) meta.FileLock {
	return meta.FileLock{Ino: 7, Owner: owner, Kind: kind, Start: start, End: end}
}

func lockOf(owner uint64, wait bool) *meta.SetLock {
	return &meta.SetLock{Lock: posixLock(owner, meta.LockExcl, 0, 9), Wait: wait}
}

func unlockOf(owner uint64) *meta.SetLock {
	return &meta.SetLock{Lock: posixLock(owner, meta.Unlocked, 0, meta.LockEOF)}
}

func wantLock(t *testing.T, r *meta.Reply, kind errs.Kind) {
	t.Helper()
	got := errs.Kind(0)
	if r.Outcome.Err != nil {
		got = r.Outcome.Err.Kind
	}
	if got != kind {
		t.Fatalf("outcome %+v, want %v", r.Outcome, kind)
	}
}

func TestLocksAcrossSessions(t *testing.T) {
	w, _, _ := two(t, "")
	wantLock(t, w.call(1, 1, lockOf(1, false)), 0)
	wantLock(t, w.call(2, 1, lockOf(1, false)), errs.WouldBlock)
	r := w.call(2, 2, &meta.GetLock{Lock: posixLock(1, meta.LockExcl, 5, 5)})
	if l := r.Outcome.Result.(*meta.LockResult).Lock; l.Kind != meta.LockExcl || l.End != 9 {
		t.Fatalf("in the way: %+v", l)
	}
	w.op(2, 3, lockOf(1, true))
	w.op(2, 4, lockOf(2, true))
	w.nothing(2)
	w.frame(2, &meta.CancelOp{ID: 3})
	wantLock(t, take[*meta.Reply](w, 2), errs.Interrupted)
	wantLock(t, w.call(1, 2, unlockOf(1)), 0)
	if r := take[*meta.Reply](w, 2); r.ID != 4 || r.Outcome.Err != nil {
		t.Fatalf("%+v", r)
	}
	w.op(1, 3, lockOf(1, true))
	w.nothing(1)
	w.frame(2, &meta.Close{})
	wantLock(t, take[*meta.Reply](w, 1), 0)
	r = w.call(1, 4, &meta.GetLock{Lock: posixLock(1, meta.LockExcl, 5, 5)})
	if l := r.Outcome.Result.(*meta.LockResult).Lock; l.Kind != meta.Unlocked {
		t.Fatalf("in its own way: %+v", l)
	}
}

func TestLockDeadlock(t *testing.T) {
	w, _, _ := two(t, "")
	at := func(start uint64) *meta.SetLock {
		return &meta.SetLock{Lock: posixLock(1, meta.LockExcl, start, start), Wait: true}
	}
	wantLock(t, w.call(1, 1, at(1)), 0)
	wantLock(t, w.call(2, 1, at(2)), 0)
	w.op(1, 2, at(2))
	w.nothing(1)
	wantLock(t, w.call(2, 2, at(1)), errs.Deadlock)
}

// A cancellation that overtakes the confirmation is not lost.
func TestLockCancelledEarly(t *testing.T) {
	w, _, _ := two(t, "")
	w.hold = holdConfirms
	w.op(1, 1, lockOf(1, true))
	w.frame(1, &meta.CancelOp{ID: 1})
	w.nothing(1)
	w.release()
	wantLock(t, take[*meta.Reply](w, 1), errs.Interrupted)
	wantLock(t, w.call(2, 1, lockOf(1, false)), 0)
}

// Blocked requests die with their stream; what a client declares is what it
// holds, and nobody slips in between.
func TestLocksOfAResumedSession(t *testing.T) {
	w, _, _ := two(t, "")
	wantLock(t, w.call(1, 1, &meta.SetLock{Lock: posixLock(1, meta.LockExcl, 0, 20)}), 0)
	w.op(2, 1, lockOf(1, true))
	w.step(StreamClosed{2})
	w.resume(2, 12)
	w.op(12, 1, lockOf(1, true))
	w.op(12, 2, &meta.SetLock{Lock: posixLock(2, meta.LockExcl, 15, 20), Wait: true})
	w.nothing(12)
	w.step(StreamClosed{1})
	w.step(StreamOpened{Stream: 11})
	se := w.s.sessions[w.ids[1]]
	w.frame(11, &meta.Resume{Session: se.ID, Epoch: se.Epoch, Nonce: se.Nonce})
	take[*meta.Welcome](w, 11)
	w.frame(11, &meta.Reclaim{Locks: []meta.FileLock{posixLock(1, meta.LockExcl, 0, 12)}, Last: true})
	if r := take[*meta.Reply](w, 12); r.ID != 2 {
		t.Fatalf("%+v", r)
	}
	w.nothing(12)
	// A new leader hears the same, before it gives a lock to anybody.
	w.step(LostLeadership{})
	w.sent = map[StreamID][]meta.Frame{}
	w.lead()
	w.step(StreamOpened{Stream: 22})
	se = w.s.sessions[w.ids[2]]
	w.frame(22, &meta.Resume{Session: se.ID, Epoch: se.Epoch, Nonce: se.Nonce})
	take[*meta.Welcome](w, 22)
	w.frame(22, &meta.Reclaim{Locks: []meta.FileLock{posixLock(2, meta.LockExcl, 15, 20)}, Last: true})
	w.op(22, 9, lockOf(1, false))
	w.nothing(22)
	w.ids[21] = w.ids[1]
	w.step(StreamOpened{Stream: 21})
	se = w.s.sessions[w.ids[1]]
	w.frame(21, &meta.Resume{Session: se.ID, Epoch: se.Epoch, Nonce: se.Nonce})
	take[*meta.Welcome](w, 21)
	w.frame(21, &meta.Reclaim{Locks: []meta.FileLock{posixLock(1, meta.LockExcl, 0, 12)}, Last: true})
	wantLock(t, take[*meta.Reply](w, 22), errs.WouldBlock)
}

func TestUncovered(t *testing.T) {
	show := func(list []meta.FileLock) string {
		out := ""
		for _, l := range list {
			out += fmt.Sprintf("[%d,%d]", l.Start, l.End)
		}
		return out
	}
	l := posixLock(1, meta.LockExcl, 10, 20)
	for _, c := range []struct {
		claims []meta.FileLock
		want   string
	}{
		{nil, "[10,20]"},
		{[]meta.FileLock{posixLock(1, meta.LockExcl, 0, meta.LockEOF)}, ""},
		{[]meta.FileLock{posixLock(2, meta.LockExcl, 0, meta.LockEOF)}, "[10,20]"},
		{[]meta.FileLock{posixLock(1, meta.LockShared, 12, 13), posixLock(1, meta.LockExcl, 18, 30)}, "[10,11][14,17]"},
		{[]meta.FileLock{posixLock(1, meta.LockExcl, 0, 10)}, "[11,20]"},
	} {
		if got := show(uncovered(l, c.claims)); got != c.want {
			t.Errorf("%v leaves %s, want %s", c.claims, got, c.want)
		}
	}
}
