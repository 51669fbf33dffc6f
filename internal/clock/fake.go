package clock

import (
	"sync"
	"time"
)

// Fake is a clock that stands until a test moves it. The zero value is not
// ready; use NewFake.
//
// Unlike Real it calls AfterFunc functions one after another in the goroutine
// that advances, in the order of their times, so that a test sees all their
// effects when Advance returns. Such a function may start and stop timers;
// Advance from within one is a programming error and panics.
type Fake struct {
	mu        sync.Mutex // guards all fields; not held while timers fire
	now       time.Time
	mono      int64
	seq       uint64 // orders timers of the same time by their start
	timers    map[*fakeTimer]struct{}
	advancing bool
	changed   chan struct{} // closed and replaced when a timer starts
}

var _ Clock = (*Fake)(nil)

// NewFake makes a clock that shows now; Mono starts at one hour, so that
// subtracting a lease does not meet zero by accident.
func NewFake(now time.Time) *Fake {
	return &Fake{now: now, mono: int64(time.Hour), timers: map[*fakeTimer]struct{}{}, changed: make(chan struct{})}
}

// Now implements Clock.
func (f *Fake) Now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

// Mono implements Clock.
func (f *Fake) Mono() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mono
}

// AfterFunc implements Clock.
func (f *Fake) AfterFunc(d time.Duration, fn func()) Timer {
	t := &fakeTimer{clock: f, fn: fn}
	t.Reset(d)
	return t
}

// NewTimer implements Clock.
func (f *Fake) NewTimer(d time.Duration) Timer {
	t := &fakeTimer{clock: f, ch: make(chan time.Time, 1)}
	t.Reset(d)
	return t
}

// Advance moves both times by d, stopping at each timer on the way to fire
// it. Timers started on the way fire too when their time has come.
func (f *Fake) Advance(d time.Duration) {
	if d < 0 {
		panic("clock: Advance by a negative duration; use SetWall")
	}
	f.mu.Lock()
	if f.advancing {
		f.mu.Unlock()
		panic("clock: Advance from a timer or from two goroutines")
	}
	f.advancing = true
	end := f.mono + int64(d)
	for {
		t := f.nextLocked(end)
		if t == nil {
			break
		}
		f.moveLocked(max(t.when, f.mono))
		delete(f.timers, t)
		if t.ch != nil {
			t.ch <- f.now // empty: Stop and Reset drain it
			continue
		}
		f.mu.Unlock()
		t.fn()
		f.mu.Lock()
	}
	f.moveLocked(end)
	f.advancing = false
	f.mu.Unlock()
}

// SetWall makes the wall clock jump; Mono and timers do not notice.
func (f *Fake) SetWall(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = now
}

// Waiters is the number of running timers.
func (f *Fake) Waiters() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.timers)
}

// AwaitWaiters blocks until at least n timers run. With it a test knows that
// the code under test sleeps before it advances the clock.
func (f *Fake) AwaitWaiters(n int) {
	for {
		f.mu.Lock()
		enough, changed := len(f.timers) >= n, f.changed
		f.mu.Unlock()
		if enough {
			return
		}
		<-changed
	}
}

func (f *Fake) moveLocked(mono int64) {
	f.now = f.now.Add(time.Duration(mono - f.mono))
	f.mono = mono
}

// nextLocked is the earliest timer due at end, or nil.
func (f *Fake) nextLocked(end int64) *fakeTimer {
	var first *fakeTimer
	for t := range f.timers {
		if t.when > end {
			continue
		}
		if first == nil || t.when < first.when || t.when == first.when && t.seq < first.seq {
			first = t
		}
	}
	return first
}

type fakeTimer struct {
	clock *Fake
	ch    chan time.Time // or
	fn    func()

	when int64  // guarded by clock.mu
	seq  uint64 // guarded by clock.mu
}

func (t *fakeTimer) C() <-chan time.Time { return t.ch }

func (t *fakeTimer) Stop() bool {
	f := t.clock
	f.mu.Lock()
	defer f.mu.Unlock()
	return t.stopLocked()
}

func (t *fakeTimer) stopLocked() bool {
	_, running := t.clock.timers[t]
	delete(t.clock.timers, t)
	select {
	case <-t.ch: // as time.Timer: no stale value after Stop; nil never receives
		running = true // it had fired, but nobody will see it
	default:
	}
	return running
}

// Reset starts the timer; one with d <= 0 fires at the next Advance, also by
// zero.
func (t *fakeTimer) Reset(d time.Duration) bool {
	f := t.clock
	f.mu.Lock()
	defer f.mu.Unlock()
	running := t.stopLocked()
	f.seq++
	t.when, t.seq = f.mono+int64(d), f.seq
	f.timers[t] = struct{}{}
	close(f.changed)
	f.changed = make(chan struct{})
	return running
}
