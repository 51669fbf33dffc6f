package clock

import (
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"
)

func start() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

func TestRealMono(t *testing.T) {
	var c Real
	last := c.Mono()
	for range 10_000 {
		now := c.Mono()
		if now < last {
			t.Fatalf("went back from %d to %d", last, now)
		}
		last = now
	}
	// A real timer is not early by the clock that leases use. Both clocks
	// count nanoseconds of the same hardware.
	before := c.Mono()
	<-c.NewTimer(3 * time.Millisecond).C()
	if passed := time.Duration(c.Mono() - before); passed < 3*time.Millisecond {
		t.Errorf("a timer of 3 ms fired after %v", passed)
	}
}

func TestRealTimers(t *testing.T) {
	var c Real
	fired := make(chan struct{})
	f := c.AfterFunc(time.Hour, func() { close(fired) })
	if f.C() != nil {
		t.Error("AfterFunc has a channel")
	}
	if !f.Reset(0) {
		t.Error("Reset of a running timer says it did not run")
	}
	<-fired
	n := c.NewTimer(time.Hour)
	if !n.Stop() || n.Stop() {
		t.Error("Stop tells the wrong state")
	}
}

func TestFakeOrder(t *testing.T) {
	f := NewFake(start())
	mono := f.Mono()
	var got []string
	note := func(name string) func() {
		return func() {
			got = append(got, fmt.Sprintf("%s@%v/%v", name, f.Now().Sub(start()), time.Duration(f.Mono()-mono)))
		}
	}
	f.AfterFunc(3*time.Second, note("c"))
	f.AfterFunc(time.Second, func() {
		note("a")()
		f.AfterFunc(time.Second, note("b1")) // due within the same Advance
		f.AfterFunc(time.Hour, note("late"))
	})
	f.AfterFunc(2*time.Second, note("b0")) // same time as b1, started first
	stopped := f.AfterFunc(time.Second, note("stopped"))
	if !stopped.Stop() || stopped.Stop() {
		t.Error("Stop tells the wrong state")
	}
	f.Advance(999 * time.Millisecond)
	if len(got) != 0 {
		t.Fatalf("fired early: %v", got)
	}
	f.Advance(9 * time.Second)
	want := []string{"a@1s/1s", "b0@2s/2s", "b1@2s/2s", "c@3s/3s"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if w := f.Waiters(); w != 1 {
		t.Errorf("%d timers run, want 1", w)
	}
}

func TestFakeSetWall(t *testing.T) {
	f := NewFake(start())
	mono := f.Mono()
	timer := f.NewTimer(time.Minute)
	f.SetWall(start().Add(-time.Hour))
	if f.Mono() != mono {
		t.Error("a jump of the wall clock moved Mono")
	}
	f.Advance(time.Minute)
	if at := <-timer.C(); !at.Equal(start().Add(-59 * time.Minute)) {
		t.Errorf("fired at %v", at)
	}
}

func TestFakeChannelTimer(t *testing.T) {
	f := NewFake(start())
	timer := f.NewTimer(time.Second)
	f.Advance(time.Second)
	if !timer.Reset(time.Second) { // fired, never received: as if it still ran
		t.Error("Reset of a timer nobody received from says it did not run")
	}
	select {
	case <-timer.C():
		t.Fatal("a stale value after Reset")
	default:
	}
	f.Advance(time.Second)
	if at := <-timer.C(); !at.Equal(start().Add(2 * time.Second)) {
		t.Errorf("fired at %v", at)
	}
	if timer.Stop() {
		t.Error("Stop of a timer that was received from says it ran")
	}
	if timer.Reset(0) {
		t.Error("Reset of a stopped timer says it ran")
	}
	f.Advance(0)
	<-timer.C()
}

func TestFakeAwaitWaiters(t *testing.T) {
	f := NewFake(start())
	var wg sync.WaitGroup
	wg.Go(func() {
		<-f.NewTimer(time.Second).C()
		<-f.NewTimer(time.Second).C()
	})
	for range 2 {
		f.AwaitWaiters(1)
		f.Advance(time.Second)
	}
	wg.Wait()
}

func TestFakeMisuse(t *testing.T) {
	f := NewFake(start())
	mustPanic := func(name string, fn func()) {
		defer func() {
			if recover() == nil {
				t.Errorf("%s: no panic", name)
			}
		}()
		fn()
	}
	mustPanic("negative", func() { f.Advance(-1) })
	f.AfterFunc(0, func() { mustPanic("nested", func() { f.Advance(1) }) })
	f.Advance(1)
}
