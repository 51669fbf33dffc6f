// Package locks keeps advisory file locks: those of fcntl(2), on byte ranges
// and owned by a process, and those of flock(2), on whole files and owned by an
// open file. The two kinds never meet, as on Linux.
//
// A Table is a pure data structure for step machines: no goroutine, clock or
// I/O, and nothing depends on the order of a Go map. The leader of a metadata
// group keeps one for its sessions; a client that holds a file exclusively
// keeps one of its own and decides locally.
package locks

import (
	"slices"

	"agentdrive/metaserver/meta"
)

// Owner is who holds or wants a lock: a lock owner of one session's kernel.
type Owner struct {
	Session meta.SessionID
	Flock   bool
	ID      uint64
}

func ownerOf(s meta.SessionID, l *meta.FileLock) Owner { return Owner{s, l.Flock, l.Owner} }

// Ticket names a blocked request; never reused in the life of a table.
type Ticket uint64

// Verdict says what became of a Set.
type Verdict uint8

// The verdicts.
const (
	Granted  Verdict = iota // the lock is set, or the range is unlocked
	Conflict                // somebody else's lock is in the way; see Blocker
	Queued                  // it waits: see Ticket
	Deadlock                // waiting would close a circle of waiters
)

// Result of a Set.
type Result struct {
	Verdict Verdict
	Blocker meta.FileLock // Conflict: a lock that stands in the way
	Ticket  Ticket        // Queued
	Woken   []Ticket      // waiters that got their locks by this, in order
}

// held is a lock in the table.
type held struct {
	owner      Owner
	kind       meta.LockKind
	start, end uint64
	pid        uint32
}

// waiter is a blocked request.
type waiter struct {
	ticket  Ticket
	session meta.SessionID
	lock    meta.FileLock
}

// file holds the locks of one inode: held ones by kind of lock and start,
// waiters in order of arrival.
type file struct {
	posix, flock []held
	waiters      []waiter
}

// Table holds the locks of one drive, or of one client. The zero value is not
// usable; see New. Not safe for concurrent use.
type Table struct {
	files map[meta.Ino]*file // look-up only; iterated through order
	order []meta.Ino         // ascending
	last  Ticket
	waits map[Owner]wait // fcntl owners that wait, for deadlock detection
	where map[Ticket]meta.Ino
}

type wait struct {
	ino    meta.Ino
	ticket Ticket
}

// New makes an empty table.
func New() *Table {
	return &Table{files: map[meta.Ino]*file{}, waits: map[Owner]wait{}, where: map[Ticket]meta.Ino{}}
}

func (t *Table) file(ino meta.Ino) *file {
	f := t.files[ino]
	if f == nil {
		f = &file{}
		t.files[ino] = f
		i, _ := slices.BinarySearch(t.order, ino)
		t.order = slices.Insert(t.order, i, ino)
	}
	return f
}

// tidy forgets an inode without locks and waiters.
func (t *Table) tidy(ino meta.Ino) {
	f := t.files[ino]
	if f == nil || len(f.posix)+len(f.flock)+len(f.waiters) > 0 {
		return
	}
	delete(t.files, ino)
	if i, ok := slices.BinarySearch(t.order, ino); ok {
		t.order = slices.Delete(t.order, i, i+1)
	}
}

func (f *file) list(flock bool) *[]held {
	if flock {
		return &f.flock
	}
	return &f.posix
}

// blocker finds a lock of another owner that l conflicts with.
func (f *file) blocker(o Owner, l *meta.FileLock) *held {
	if l.Kind == meta.Unlocked {
		return nil
	}
	list := *f.list(l.Flock)
	for i := range list {
		h := &list[i]
		if h.owner != o && h.start <= l.End && l.Start <= h.end && (h.kind == meta.LockExcl || l.Kind == meta.LockExcl) {
			return h
		}
	}
	return nil
}

func (h *held) lock(ino meta.Ino) meta.FileLock {
	return meta.FileLock{Ino: ino, Flock: h.owner.Flock, Owner: h.owner.ID, Kind: h.kind, Start: h.start, End: h.end, PID: h.pid}
}

// Get returns a lock of somebody else that stands in the way of l.
func (t *Table) Get(s meta.SessionID, l meta.FileLock) (meta.FileLock, bool) {
	l = normal(l)
	f := t.files[l.Ino]
	if f == nil {
		return meta.FileLock{}, false
	}
	if h := f.blocker(ownerOf(s, &l), &l); h != nil {
		return h.lock(l.Ino), true
	}
	return meta.FileLock{}, false
}

// Set sets, changes or (Kind Unlocked) removes a lock of session s. With wait a
// conflict queues the request. A queued request for the same owner is not
// joined: each blocked call waits on its own.
//
// flock(2) converts a lock by giving the old one up first (as Linux does): a
// conversion that must wait, or fails, leaves the owner without a lock.
func (t *Table) Set(s meta.SessionID, l meta.FileLock, wait bool) Result {
	l = normal(l)
	o := ownerOf(s, &l)
	f := t.file(l.Ino)
	defer t.tidy(l.Ino)
	var res Result
	if l.Flock && l.Kind != meta.Unlocked && f.converts(o, l.Kind) {
		f.set(o, &meta.FileLock{Flock: true, Kind: meta.Unlocked, End: meta.LockEOF})
		res.Woken = t.wake(l.Ino, f)
	}
	h := f.blocker(o, &l)
	switch {
	case h == nil:
		f.set(o, &l)
		res.Woken = append(res.Woken, t.wake(l.Ino, f)...)
	case !wait:
		res.Verdict, res.Blocker = Conflict, h.lock(l.Ino)
	case !l.Flock && t.circle(o, l.Ino, &l):
		res.Verdict = Deadlock
	default:
		t.last++
		res.Verdict, res.Ticket = Queued, t.last
		f.waiters = append(f.waiters, waiter{t.last, s, l})
		t.where[t.last] = l.Ino
		if !l.Flock {
			t.waits[o] = waitOf(l.Ino, t.last)
		}
	}
	return res
}

func waitOf(ino meta.Ino, k Ticket) wait { return wait{ino, k} }

// normal makes a flock cover the whole file.
func normal(l meta.FileLock) meta.FileLock {
	if l.Flock {
		l.Start, l.End = 0, meta.LockEOF
	}
	return l
}

// converts reports whether o holds a flock of another kind.
func (f *file) converts(o Owner, k meta.LockKind) bool {
	for i := range f.flock {
		if f.flock[i].owner == o {
			return f.flock[i].kind != k
		}
	}
	return false
}

// set makes the range of o what l says: own locks in it are cut, and equal
// neighbours are joined.
func (f *file) set(o Owner, l *meta.FileLock) {
	p := f.list(l.Flock)
	n := held{owner: o, kind: l.Kind, start: l.Start, end: l.End, pid: l.PID}
	out := make([]held, 0, len(*p)+2)
	for _, h := range *p {
		if h.owner != o {
			out = append(out, h)
			continue
		}
		touches := (h.start <= n.end || h.start == n.end+1) && (n.start <= h.end || n.start == h.end+1)
		switch {
		case !touches:
			out = append(out, h)
		case h.kind == n.kind: // neighbours and overlaps become one
			n.start, n.end = min(n.start, h.start), max(n.end, h.end)
		default:
			if h.start < n.start {
				left := h
				left.end = min(h.end, n.start-1)
				out = append(out, left)
			}
			if h.end > n.end {
				right := h
				right.start = max(h.start, n.end+1)
				out = append(out, right)
			}
		}
	}
	if n.kind != meta.Unlocked {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b held) int {
		switch {
		case a.start != b.start:
			return cmp(a.start, b.start)
		case a.owner.Session != b.owner.Session:
			return cmp(uint64(a.owner.Session), uint64(b.owner.Session))
		}
		return cmp(a.owner.ID, b.owner.ID)
	})
	*p = out
}

func cmp(a, b uint64) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

// wake grants what waiters of an inode can have now, in order of arrival. A
// waiter that still conflicts does not hold up those behind it.
func (t *Table) wake(ino meta.Ino, f *file) []Ticket {
	var woken []Ticket
	for again := true; again; {
		again = false
		for i := range f.waiters {
			w := f.waiters[i]
			o := ownerOf(w.session, &w.lock)
			if f.blocker(o, &w.lock) != nil {
				continue
			}
			f.waiters = slices.Delete(f.waiters, i, i+1)
			t.unwait(w)
			f.set(o, &w.lock)
			woken = append(woken, w.ticket)
			again = true // a downgrade may have let earlier ones in
			break
		}
	}
	return woken
}

func (t *Table) unwait(w waiter) {
	delete(t.where, w.ticket)
	o := ownerOf(w.session, &w.lock)
	if t.waits[o].ticket == w.ticket {
		delete(t.waits, o)
	}
}

// circle reports whether o, waiting for l, would wait for itself: through
// owners that hold what is waited for and wait themselves. A process may hold
// several waits through its threads; the newest counts, as an approximation
// that never reports a circle that is none.
func (t *Table) circle(o Owner, ino meta.Ino, l *meta.FileLock) bool {
	seen := map[Owner]bool{}
	var blocked func(who Owner, ino meta.Ino, l *meta.FileLock) bool
	blocked = func(who Owner, ino meta.Ino, l *meta.FileLock) bool {
		f := t.files[ino]
		if f == nil {
			return false
		}
		for i := range f.posix {
			h := &f.posix[i]
			if h.owner == who || h.start > l.End || l.Start > h.end || (h.kind != meta.LockExcl && l.Kind != meta.LockExcl) {
				continue
			}
			if h.owner == o {
				return true
			}
			if seen[h.owner] {
				continue
			}
			seen[h.owner] = true
			w, waiting := t.waits[h.owner]
			if !waiting {
				continue
			}
			if x := t.waiter(w); x != nil && blocked(h.owner, w.ino, &x.lock) {
				return true
			}
		}
		return false
	}
	return blocked(o, ino, l)
}

func (t *Table) waiter(w wait) *waiter {
	f := t.files[w.ino]
	if f == nil {
		return nil
	}
	for i := range f.waiters {
		if f.waiters[i].ticket == w.ticket {
			return &f.waiters[i]
		}
	}
	return nil
}

// Cancel takes a blocked request back. It reports false if it is not blocked:
// it was granted, or its owner is gone. A waiter never holds up others, so
// nobody is woken.
func (t *Table) Cancel(k Ticket) bool {
	ino, ok := t.where[k]
	if !ok {
		return false
	}
	f := t.files[ino]
	for i := range f.waiters {
		if f.waiters[i].ticket == k {
			w := f.waiters[i]
			f.waiters = slices.Delete(f.waiters, i, i+1)
			t.unwait(w)
			break
		}
	}
	t.tidy(ino)
	return true
}

// DropSession takes all locks and blocked requests of a session away and
// returns the requests of others that got their locks by this, in order.
func (t *Table) DropSession(s meta.SessionID) []Ticket {
	return t.drop(slices.Clone(t.order), func(x meta.SessionID) bool { return x == s })
}

// DropInode is DropSession for one inode only.
func (t *Table) DropInode(ino meta.Ino, s meta.SessionID) []Ticket {
	return t.drop([]meta.Ino{ino}, func(x meta.SessionID) bool { return x == s })
}

func (t *Table) drop(inos []meta.Ino, gone func(meta.SessionID) bool) []Ticket {
	var woken []Ticket
	for _, ino := range inos {
		f := t.files[ino]
		if f == nil {
			continue
		}
		f.waiters = slices.DeleteFunc(f.waiters, func(w waiter) bool {
			if gone(w.session) {
				t.unwait(w)
				return true
			}
			return false
		})
		mine := func(h held) bool { return gone(h.owner.Session) }
		f.posix = slices.DeleteFunc(f.posix, mine)
		f.flock = slices.DeleteFunc(f.flock, mine)
		woken = append(woken, t.wake(ino, f)...)
		t.tidy(ino)
	}
	return woken
}

// Owned lists the locks that a session holds, by inode and start: what it
// declares to a new leader, or with a lease.
func (t *Table) Owned(s meta.SessionID) []meta.FileLock { return t.owned(s, t.order) }

// OwnedOn is Owned for one inode.
func (t *Table) OwnedOn(ino meta.Ino, s meta.SessionID) []meta.FileLock {
	return t.owned(s, []meta.Ino{ino})
}

func (t *Table) owned(s meta.SessionID, inos []meta.Ino) []meta.FileLock {
	var out []meta.FileLock
	for _, ino := range inos {
		f := t.files[ino]
		if f == nil {
			continue
		}
		for _, list := range [][]held{f.posix, f.flock} {
			for i := range list {
				if list[i].owner.Session == s {
					out = append(out, list[i].lock(ino))
				}
			}
		}
	}
	return out
}

// Restore sets a lock that a session declares to hold. It reports false, and
// changes nothing, if another session's lock is in the way: one of the two
// cannot be true.
func (t *Table) Restore(s meta.SessionID, l meta.FileLock) bool {
	l = normal(l)
	f := t.file(l.Ino)
	defer t.tidy(l.Ino)
	o := ownerOf(s, &l)
	if f.blocker(o, &l) != nil {
		return false
	}
	f.set(o, &l)
	return true
}

// Foreign reports whether sessions other than s hold or wait for locks on the
// inode: then s must not decide about them on its own.
func (t *Table) Foreign(ino meta.Ino, s meta.SessionID) bool {
	f := t.files[ino]
	if f == nil {
		return false
	}
	other := func(h held) bool { return h.owner.Session != s }
	return slices.ContainsFunc(f.posix, other) || slices.ContainsFunc(f.flock, other) ||
		slices.ContainsFunc(f.waiters, func(w waiter) bool { return w.session != s })
}

// Waiters counts the blocked requests on an inode.
func (t *Table) Waiters(ino meta.Ino) int {
	if f := t.files[ino]; f != nil {
		return len(f.waiters)
	}
	return 0
}

// Len counts the inodes that have locks or waiters.
func (t *Table) Len() int { return len(t.order) }
