package locks

import (
	"flag"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"agentdrive/metaserver/meta"
)

var seed = flag.Uint64("locks.seed", uint64(time.Now().UnixNano()), "seed of the random test")

func lock(ino meta.Ino, owner uint64, k meta.LockKind, start, end uint64) meta.FileLock {
	return meta.FileLock{Ino: ino, Owner: owner, Kind: k, Start: start, End: end}
}

func flockOf(ino meta.Ino, owner uint64, k meta.LockKind) meta.FileLock {
	return meta.FileLock{Ino: ino, Owner: owner, Kind: k, Flock: true, End: meta.LockEOF}
}

func TestRangesSplitAndJoin(t *testing.T) {
	tb := New()
	set := func(k meta.LockKind, a, b uint64) {
		t.Helper()
		if r := tb.Set(1, lock(5, 9, k, a, b), false); r.Verdict != Granted {
			t.Fatalf("verdict %d", r.Verdict)
		}
	}
	set(meta.LockShared, 0, 99)
	set(meta.LockExcl, 40, 59)
	want := []meta.FileLock{
		lock(5, 9, meta.LockShared, 0, 39), lock(5, 9, meta.LockExcl, 40, 59), lock(5, 9, meta.LockShared, 60, 99),
	}
	if got := tb.Owned(1); !slices.Equal(got, want) {
		t.Fatalf("got %+v", got)
	}
	set(meta.LockShared, 40, 59)
	if got := tb.Owned(1); !slices.Equal(got, []meta.FileLock{lock(5, 9, meta.LockShared, 0, 99)}) {
		t.Fatalf("not joined: %+v", got)
	}
	set(meta.LockShared, 100, meta.LockEOF)
	set(meta.Unlocked, 10, 19)
	want = []meta.FileLock{lock(5, 9, meta.LockShared, 0, 9), lock(5, 9, meta.LockShared, 20, meta.LockEOF)}
	if got := tb.Owned(1); !slices.Equal(got, want) {
		t.Fatalf("got %+v", got)
	}
	set(meta.Unlocked, 0, meta.LockEOF)
	if tb.Len() != 0 {
		t.Fatal("an inode without locks is kept")
	}
}

func TestConflictWaitWake(t *testing.T) {
	tb := New()
	tb.Set(1, lock(5, 1, meta.LockExcl, 0, 9), false)
	if r := tb.Set(2, lock(5, 1, meta.LockShared, 9, 20), false); r.Verdict != Conflict || r.Blocker.End != 9 {
		t.Fatalf("%+v", r)
	}
	a := tb.Set(2, lock(5, 1, meta.LockShared, 9, 20), true)
	b := tb.Set(3, lock(5, 1, meta.LockShared, 0, 3), true)
	if a.Verdict != Queued || b.Verdict != Queued || !tb.Foreign(5, 1) {
		t.Fatalf("%+v %+v", a, b)
	}
	// flock and fcntl never meet.
	if r := tb.Set(4, flockOf(5, 1, meta.LockExcl), false); r.Verdict != Granted {
		t.Fatalf("%+v", r)
	}
	r := tb.Set(1, lock(5, 1, meta.LockShared, 0, 9), false)
	if !slices.Equal(r.Woken, []Ticket{a.Ticket, b.Ticket}) {
		t.Fatalf("a downgrade woke %v", r.Woken)
	}
	if tb.Cancel(a.Ticket) {
		t.Fatal("a granted request was cancelled")
	}
	c := tb.Set(1, lock(5, 1, meta.LockExcl, 0, 30), true)
	if c.Verdict != Queued || !tb.Cancel(c.Ticket) || tb.Waiters(5) != 0 {
		t.Fatalf("%+v", c)
	}
	d := tb.Set(1, lock(5, 1, meta.LockExcl, 0, 30), true)
	if w := tb.DropSession(2); len(w) != 0 {
		t.Fatal(w)
	}
	if w := tb.DropSession(3); !slices.Equal(w, []Ticket{d.Ticket}) {
		t.Fatalf("end of a session woke %v", w)
	}
}

func TestFlockConversionGivesUpFirst(t *testing.T) {
	tb := New()
	tb.Set(1, flockOf(5, 1, meta.LockShared), false)
	tb.Set(2, flockOf(5, 7, meta.LockShared), false)
	if r := tb.Set(1, flockOf(5, 1, meta.LockExcl), false); r.Verdict != Conflict {
		t.Fatalf("%+v", r)
	}
	if n := len(tb.Owned(1)); n != 0 {
		t.Fatal("flock(2) gives the old lock up before it converts")
	}
}

func TestDeadlock(t *testing.T) {
	tb := New()
	tb.Set(1, lock(5, 1, meta.LockExcl, 0, 0), false)
	tb.Set(2, lock(6, 1, meta.LockExcl, 0, 0), false)
	tb.Set(3, lock(7, 1, meta.LockExcl, 0, 0), false)
	for s, ino := range map[meta.SessionID]meta.Ino{1: 6, 2: 7} {
		if r := tb.Set(s, lock(ino, 1, meta.LockShared, 0, 0), true); r.Verdict != Queued {
			t.Fatalf("%+v", r)
		}
	}
	if r := tb.Set(3, lock(5, 1, meta.LockShared, 0, 0), true); r.Verdict != Deadlock {
		t.Fatalf("%+v", r)
	}
	if r := tb.Set(4, lock(5, 1, meta.LockShared, 0, 0), true); r.Verdict != Queued {
		t.Fatalf("an innocent waiter: %+v", r)
	}
}

func TestRestore(t *testing.T) {
	tb := New()
	tb.Set(1, lock(5, 1, meta.LockExcl, 0, 9), false)
	tb.Set(1, flockOf(8, 2, meta.LockShared), false)
	other := New()
	for _, l := range tb.Owned(1) {
		if !other.Restore(1, l) {
			t.Fatal("refused")
		}
	}
	if !slices.Equal(other.Owned(1), tb.Owned(1)) {
		t.Fatal("not the same")
	}
	if other.Restore(2, lock(5, 1, meta.LockShared, 3, 3)) {
		t.Fatal("two sessions hold what only one can")
	}
}

// naive keeps one entry for each (owner, byte).
type naive map[Owner][16]meta.LockKind

func (n naive) conflict(o Owner, l meta.FileLock) bool {
	for p, bytes := range n {
		for b := l.Start; b <= l.End; b++ {
			if p != o && p.Flock == o.Flock && bytes[b] != 0 && (bytes[b] == meta.LockExcl || l.Kind == meta.LockExcl) {
				return true
			}
		}
	}
	return false
}

func (n naive) set(o Owner, l meta.FileLock) {
	bytes := n[o]
	for b := l.Start; b <= l.End; b++ {
		bytes[b] = l.Kind
	}
	n[o] = bytes
}

// TestAgainstBytes compares the table with one that looks at every byte.
func TestAgainstBytes(t *testing.T) {
	t.Logf("seed %d", *seed)
	r := rand.New(rand.NewPCG(*seed, 1))
	for range 300 {
		tb, oracle := New(), naive{}
		queued := map[Ticket]meta.FileLock{}
		session := map[Ticket]meta.SessionID{}
		grant := func(list []Ticket) {
			for _, k := range list {
				l, ok := queued[k]
				if !ok || oracle.conflict(Owner{session[k], false, l.Owner}, l) {
					t.Fatalf("ticket %d woken wrongly: %+v", k, l)
				}
				oracle.set(Owner{session[k], false, l.Owner}, l)
				delete(queued, k)
			}
		}
		for range 200 {
			s := meta.SessionID(1 + r.IntN(3))
			a := r.Uint64N(16)
			l := lock(1, r.Uint64N(2), meta.LockKind(r.UintN(3)), a, a+r.Uint64N(16-a))
			o := Owner{s, false, l.Owner}
			conflict := l.Kind != meta.Unlocked && oracle.conflict(o, l)
			wait := r.IntN(3) == 0
			if _, got := tb.Get(s, l); got != conflict {
				t.Fatalf("Get says %v of %+v", got, l)
			}
			res := tb.Set(s, l, wait)
			switch {
			case !conflict && res.Verdict != Granted, conflict && res.Verdict == Granted, conflict && !wait && res.Verdict != Conflict:
				t.Fatalf("verdict %d, conflict %v", res.Verdict, conflict)
			case res.Verdict == Granted:
				oracle.set(o, l)
				grant(res.Woken)
			case res.Verdict == Queued:
				queued[res.Ticket], session[res.Ticket] = l, s
			}
			for k, l := range queued {
				if !oracle.conflict(Owner{session[k], false, l.Owner}, l) {
					t.Fatalf("ticket %d waits for nothing", k)
				}
			}
			if r.IntN(20) == 0 {
				s := meta.SessionID(1 + r.IntN(3))
				for k := range queued {
					if session[k] == s {
						delete(queued, k)
					}
				}
				for o := range oracle {
					if o.Session == s {
						delete(oracle, o)
					}
				}
				grant(tb.DropSession(s))
			}
		}
	}
}
