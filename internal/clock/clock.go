// Package clock is the seam between Agent Drive and time.
//
// Two times are told apart. Wall time (Now) stamps inodes and logs and may
// jump. Mono never goes back, counts through a suspend of the host
// (CLOCK_BOOTTIME) and is the only time that leases, timeouts and rates may
// compare; its zero is arbitrary and differs between hosts and boots. Go's
// own monotonic clock stops during suspend, which is why time.Since decides
// nothing about leases.
//
// Timers run on Go's monotonic clock: after a suspend they fire late. Code
// that a timer wakes therefore looks at Mono again before it trusts anything.
//
// Code that decides takes a Clock; Real is for the adapters and main, Fake
// for tests.
package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// Clock tells time and wakes. Safe for concurrent use.
type Clock interface {
	// Now is the wall time.
	Now() time.Time
	// Mono is nanoseconds of CLOCK_BOOTTIME.
	Mono() int64
	// AfterFunc calls f in a goroutine of its own once d has passed.
	AfterFunc(d time.Duration, f func()) Timer
	// NewTimer makes a timer that sends on its channel once d has passed.
	NewTimer(d time.Duration) Timer
}

// Timer is one timer. As with time.Timer since Go 1.23, no stale value is
// received from C after Stop or Reset returned.
type Timer interface {
	// C delivers the wall time at which the timer fired; nil for AfterFunc.
	C() <-chan time.Time
	// Stop reports whether it kept the timer from firing.
	Stop() bool
	// Reset starts the timer again; it reports whether it was still running.
	Reset(d time.Duration) bool
}

// Real is the clock of the host.
type Real struct{}

var _ Clock = Real{}

// Now implements Clock.
func (Real) Now() time.Time { return time.Now() }

// Mono implements Clock.
func (Real) Mono() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("clock: CLOCK_BOOTTIME: " + err.Error()) // Linux has had it since 2.6.39
	}
	return ts.Nano()
}

// AfterFunc implements Clock.
func (Real) AfterFunc(d time.Duration, f func()) Timer {
	return realTimer{time.AfterFunc(d, f)}
}

// NewTimer implements Clock.
func (Real) NewTimer(d time.Duration) Timer { return realTimer{time.NewTimer(d)} }

type realTimer struct{ t *time.Timer }

func (t realTimer) C() <-chan time.Time        { return t.t.C }
func (t realTimer) Stop() bool                 { return t.t.Stop() }
func (t realTimer) Reset(d time.Duration) bool { return t.t.Reset(d) }
