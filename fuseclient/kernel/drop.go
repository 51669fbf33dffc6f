package kernel

import (
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"agentdrive/metaserver/meta"
)

const pageSize = 4096

// span is a range of a file, in whole pages; end is exclusive.
type span struct{ off, end uint64 }

const endless = ^uint64(0)

// pages widens a range to whole pages.
func pages(off, n uint64) span {
	s := span{off: off &^ (pageSize - 1), end: endless}
	if end := off + n; end >= off && end <= endless-pageSize {
		s.end = (end + pageSize - 1) &^ (pageSize - 1)
	}
	return s
}

func (s span) meets(t span) bool { return s.off < t.end && t.off < s.end }

// minus cuts t out of each of spans.
func minus(spans []span, t span) (out []span) {
	for _, s := range spans {
		if !s.meets(t) {
			out = append(out, s)
			continue
		}
		if s.off < t.off {
			out = append(out, span{s.off, t.off})
		}
		if t.end < s.end {
			out = append(out, span{t.end, s.end})
		}
	}
	return out
}

// union sorts and merges spans.
func union(spans []span) (out []span) {
	slices.SortFunc(spans, func(a, b span) int {
		if a.off < b.off {
			return -1
		}
		return 1
	})
	for _, s := range spans {
		if n := len(out); n > 0 && s.off <= out[n-1].end {
			out[n-1].end = max(out[n-1].end, s.end)
			continue
		}
		out = append(out, s)
	}
	return out
}

// drop is a range of pages that the kernel must forget: those of a READ or
// WRITE without a lease, or those that an invalidation could not reach because
// an own request has them locked (C6). Requests for the inode's attributes
// wait for it, and so does every read(2), for it asks for them first.
type drop struct {
	ino   meta.Ino
	spans []span
	done  chan struct{}
}

// change is an own WRITE, or SETATTR of the size, from its arrival until its
// reply is written. The kernel may hold pages locked until then.
type change struct {
	ino   meta.Ino
	span  span // all with a SETATTR
	all   bool
	drops []*drop // due when it is over
}

// fileState is what the ledger knows of an inode's pages.
type fileState struct {
	changes []*change
	drops   []*drop       // not done
	due     []*drop       // part of drops: may be carried out now
	working bool          // a goroutine looks after due
	hurry   chan struct{} // closed when somebody waits for drops
	urgent  bool
}

func (l *ledger) file(ino meta.Ino) *fileState {
	f := l.files[ino]
	if f == nil {
		f = &fileState{hurry: make(chan struct{})}
		l.files[ino] = f
	}
	return f
}

func (l *ledger) tidy(ino meta.Ino, f *fileState) {
	if len(f.changes) == 0 && len(f.drops) == 0 && !f.working {
		delete(l.files, ino)
	}
}

// promise enters a drop that is not due yet.
func (l *ledger) promise(ino meta.Ino, spans ...span) *drop {
	d := &drop{ino: ino, spans: spans, done: make(chan struct{})}
	f := l.file(ino)
	f.drops = append(f.drops, d)
	l.busy.Add(1)
	return d
}

// enter registers a change; leave ends it and returns the drops that waited
// for it.
func (l *ledger) enter(ch *change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.file(ch.ino)
	f.changes = append(f.changes, ch)
}

func (l *ledger) leave(ch *change) []*drop {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.file(ch.ino)
	f.changes = slices.DeleteFunc(f.changes, func(x *change) bool { return x == ch })
	l.tidy(ch.ino, f)
	return ch.drops
}

// sift divides spans into what may be invalidated now and what an own change
// may keep locked; for the latter a drop is left with the change. With all, one
// change keeps everything. d, if any, is the drop that spans belong to: it goes
// on instead of a new one.
func (l *ledger) sift(ino meta.Ino, spans []span, all bool, d *drop) (free []span, deferred bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.files[ino]
	if f == nil || len(f.changes) == 0 {
		return spans, false
	}
	free = spans
	for _, ch := range f.changes {
		rest := minus(free, ch.span)
		if all || ch.all {
			rest = nil
		}
		if slices.Equal(rest, free) {
			continue
		}
		if d == nil {
			d = l.promise(ino)
		}
		if !deferred {
			d.spans, deferred = nil, true
		}
		kept := free
		for _, s := range rest {
			kept = minus(kept, s)
		}
		d.spans = append(d.spans, kept...)
		if !slices.Contains(ch.drops, d) {
			ch.drops = append(ch.drops, d)
		}
		free = rest
	}
	return free, deferred
}

// obstructed reports whether an own change is open on the inode.
func (l *ledger) obstructed(ino meta.Ino) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.files[ino]
	return f != nil && len(f.changes) > 0
}

// makeDue allows drops to be carried out. It reports whether the caller must
// start a goroutine for it.
func (l *ledger) makeDue(ino meta.Ino, drops []*drop) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.file(ino)
	for _, d := range drops {
		// A drop that two changes kept may be done when the second ends.
		if slices.Contains(f.drops, d) && !slices.Contains(f.due, d) {
			f.due = append(f.due, d)
		}
	}
	start := !f.working && len(f.due) > 0
	f.working = f.working || start
	l.tidy(ino, f)
	return start
}

// takeDue hands out what is due; none ends the goroutine that asks.
func (l *ledger) takeDue(ino meta.Ino) []*drop {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.file(ino)
	due := f.due
	f.due = nil
	if len(due) == 0 {
		f.working = false
		l.tidy(ino, f)
	}
	return due
}

func (l *ledger) dropped(drops []*drop) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range drops {
		f := l.file(d.ino)
		i := slices.Index(f.drops, d)
		if i < 0 {
			// Two changes kept it, and the second ended while it was carried
			// out for the first: it was due twice.
			l.tidy(d.ino, f)
			continue
		}
		f.drops = slices.Delete(f.drops, i, i+1)
		l.busy.Add(-1)
		if len(f.drops) == 0 && f.urgent {
			f.urgent, f.hurry = false, make(chan struct{})
		}
		l.tidy(d.ino, f)
		close(d.done)
	}
}

// pending returns the drops of an inode and makes them urgent.
func (l *ledger) pending(ino meta.Ino) []*drop {
	if l.busy.Load() == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.files[ino]
	if f == nil || len(f.drops) == 0 {
		return nil
	}
	if !f.urgent {
		f.urgent = true
		close(f.hurry)
	}
	return slices.Clone(f.drops)
}

func (l *ledger) hurry(ino meta.Ino) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file(ino).hurry
}

// dropDelay is how long pages without a lease may stay if nobody asks for the
// inode's attributes: as long as whoever faulted them in needs to get at them.
// Dropped at once they would be gone before the reader wakes, and it would ask
// for them for ever.
const dropDelay = time.Millisecond

// How often an invalidation of pages is looked at: whether it is over, and
// whether it hangs at a page that an own request keeps locked.
const (
	quickLook  = 50 * time.Microsecond // while there is one, and for a while
	quickLooks = 20
	slowLook   = 2 * time.Millisecond
)

// release makes drops of one inode due.
func (c *conn) release(ino meta.Ino, drops ...*drop) {
	if len(drops) > 0 && c.led.makeDue(ino, drops) {
		if !c.note(func() { c.dropLoop(ino) }) {
			c.dropAll(ino) // the connection is over: nothing is cached
		}
	}
}

func (c *conn) dropAll(ino meta.Ino) {
	for due := c.led.takeDue(ino); len(due) > 0; due = c.led.takeDue(ino) {
		c.led.dropped(due)
	}
}

// dropLoop carries out the drops of one inode until none is due.
func (c *conn) dropLoop(ino meta.Ino) {
	for {
		t := time.NewTimer(dropDelay)
		select {
		case <-c.led.hurry(ino):
		case <-t.C:
		case <-c.gone:
		}
		t.Stop()
		due := c.led.takeDue(ino)
		if len(due) == 0 {
			return
		}
		var done []*drop
		for _, d := range due {
			if !c.dropPages(ino, union(d.spans), d) {
				done = append(done, d)
			}
		}
		c.led.dropped(done)
	}
}

// dropPages makes the kernel forget pages of an inode. If that hangs while an
// own WRITE or SETATTR of the size is open, which may keep a page locked and
// itself wait for the invalidation at the servers, its range is left for after
// its reply; if it hangs again, everything. (A page that such a request keeps
// locked shows nobody anything: a WRITE unlocks at once what is up to date.)
// dropPages reports whether something was left; then d, or a drop of its own,
// stands for it.
func (c *conn) dropPages(ino meta.Ino, spans []span, d *drop) (left bool) {
	for hung := 0; ; hung++ {
		free := spans
		if hung > 0 {
			c.invalInode(ino, nil) // who reads must ask, and be kept waiting
			var deferred bool
			free, deferred = c.led.sift(ino, spans, hung > 1, d)
			left = left || deferred
		}
		if len(free) == 0 || c.dropFree(ino, free) {
			return left
		}
	}
}

// dropFree invalidates spans and waits. It returns false when it hangs while an
// own change is open; the invalidation then goes on by itself.
func (c *conn) dropFree(ino meta.Ino, spans []span) bool {
	done := make(chan struct{})
	var thread atomic.Int64
	if !c.note(func() {
		defer close(done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		thread.Store(int64(unix.Gettid()))
		for i := range spans {
			c.invalInode(ino, &spans[i])
		}
	}) {
		return true
	}
	for try := 0; ; try++ {
		if c.led.obstructed(ino) && try < quickLooks {
			// Not a timer: Go's are too coarse.
			nap := unix.NsecToTimespec(int64(quickLook))
			_ = unix.Nanosleep(&nap, nil) // shorter if a signal comes: no harm
		} else {
			t := time.NewTimer(slowLook)
			select {
			case <-done:
			case <-t.C:
			}
			t.Stop()
		}
		select {
		case <-done:
			return true
		default:
		}
		if c.led.obstructed(ino) && sleepsInKernel(thread.Load()) {
			return false
		}
	}
}

// awaitDrops waits until the kernel has forgotten the pages of an inode that
// no lease covers. It reports false when the request was cancelled.
func (c *conn) awaitDrops(unique uint64, ino meta.Ino) bool {
	pending := c.led.pending(ino)
	if len(pending) == 0 {
		return true
	}
	cancel := c.call(unique).cancel
	for _, d := range pending {
		select {
		case <-d.done:
		case <-cancel:
			return false
		}
	}
	return true
}
