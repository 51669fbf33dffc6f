package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// crowd lets one mount alone, then both, create, rename and unlink in one
// directory, and prints rates and the longest calls.
func crowd(c config, a, b string) error {
	total := time.Duration(c.minutes * float64(time.Minute))
	fmt.Println("\n| in one directory | calls/s | slowest second, calls | p50, p99, max ms |")
	fmt.Println("|---|---|---|---|")
	alone, err := together(c, "alone", total/5, a)
	if err != nil {
		return err
	}
	alone[0].print("mount a alone")
	both, err := together(c, "both", total*4/5, a, b)
	if err != nil {
		return err
	}
	both[0].print("mount a of two")
	both[1].print("mount b of two")
	fmt.Printf("\nboth together: %.2f of one alone\n", (both[0].rate()+both[1].rate())/alone[0].rate())
	return nil
}

// tally is what the threads of one mount did.
type tally struct {
	length time.Duration
	calls  spread
	second map[int]int // calls that ended in each second
}

func (t *tally) rate() float64 { return float64(len(t.calls)) / t.length.Seconds() }

func (t *tally) print(name string) {
	slowest := len(t.calls)
	for s := range int(t.length.Seconds()) {
		slowest = min(slowest, t.second[s])
	}
	fmt.Printf("| %s | %.0f | %d | %s |\n", name, t.rate(), slowest, t.calls)
}

// together runs the work on all mounts at once for a while.
func together(c config, name string, length time.Duration, mounts ...string) ([]*tally, error) {
	if err := os.Mkdir(filepath.Join(mounts[0], name), 0o755); err != nil {
		return nil, err
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex // guards errs and the tallies
		errs  []error
		begin = time.Now()
		out   []*tally
	)
	for m, dir := range mounts {
		t := &tally{length: length, second: map[int]int{}}
		out = append(out, t)
		for w := range c.workers {
			wg.Go(func() {
				calls, ends, err := work(filepath.Join(dir, name), fmt.Sprintf("%d-%d", m, w), begin, length)
				mu.Lock()
				defer mu.Unlock()
				t.calls = append(t.calls, calls...)
				for _, e := range ends {
					t.second[int(e.Seconds())]++
				}
				errs = append(errs, err)
			})
		}
	}
	wg.Wait()
	return out, errors.Join(errs...)
}

// work creates, renames and unlinks files until the time is over. It gives how
// long each call took, and when it ended.
func work(dir, me string, begin time.Time, length time.Duration) (calls spread, ends []time.Duration, err error) {
	for n := 0; ; n++ {
		name := fmt.Sprintf("%s/%s-%d", dir, me, n)
		for _, do := range []func() error{
			func() error {
				f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
				if err != nil {
					return err
				}
				return f.Close()
			},
			func() error { return os.Rename(name, name+"-new") },
			func() error { return os.Remove(name + "-new") },
		} {
			start := time.Now()
			if err := do(); err != nil {
				return calls, ends, err
			}
			calls = append(calls, time.Since(start))
			ends = append(ends, time.Since(begin))
		}
		if time.Since(begin) >= length {
			return calls, ends, nil
		}
	}
}
