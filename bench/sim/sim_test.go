package sim

import (
	"bytes"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
)

var (
	seedFlag  = flag.Uint64("sim.seed", 0, "run only this seed; with -v its trace is printed")
	countFlag = flag.Int("sim.seeds", 0, "run so many seeds instead of the usual number")
	firstFlag = flag.Uint64("sim.first", 1, "begin with this seed")
	tailFlag  = flag.Int("sim.tail", 60, "print so many lines of a shrunk plan's trace")
	breakFlag = flag.String("sim.break", "none", "break this rule, see rules.go")
)

// seedsUsual is how many seeds a test runs: what CI has time for.
func seedsUsual() int {
	switch {
	case *countFlag > 0:
		return *countFlag
	case raceEnabled:
		return 40
	}
	return 1200
}

func theRule(t *testing.T) Rule {
	t.Helper()
	rule, ok := ParseRule(*breakFlag)
	if !ok {
		t.Fatalf("no rule %q; there are %v", *breakFlag, Rules())
	}
	return rule
}

// report prints what failed, the way to see it again, and a minimal plan.
func report(t *testing.T, p *Plan, rule Rule, f *Failure) {
	t.Helper()
	small := Shrink(p, 600, func(q *Plan) bool { g := Run(q, rule, nil).Failure; return g != nil && alike(f, g) })
	var trace bytes.Buffer
	res := Run(small, rule, &trace)
	t.Errorf("seed %d: %v\nreplay with: go test ./bench/sim -run TestSeeds -v -sim.seed=%d -sim.break=%v\n"+
		"shrunk to %d of %d steps, which fail with: %v\n%v\nlast lines of its trace:\n%s",
		p.Seed, f, p.Seed, rule, len(small.Steps), len(p.Steps), res.Failure, small, tail(trace.String(), *tailFlag, res.Failure))
}

// alike reports whether two failures look like one fault: shrinking must not
// wander from one to another.
func alike(a, b *Failure) bool {
	word := func(f *Failure) string {
		text := strings.Map(func(r rune) rune {
			if r >= '0' && r <= '9' {
				return -1
			}
			return r
		}, f.What)
		list := strings.Fields(text)
		return strings.Join(list[:min(len(list), 6)], " ")
	}
	return word(a) == word(b)
}

// tail gives the last lines up to a failure, without renewals.
func tail(text string, n int, f *Failure) string {
	over := false
	lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(text), "\n"), func(line string) bool {
		var at float64
		if k, _ := fmt.Sscanf(line, "%f", &at); k == 1 && f != nil {
			over = over || at > float64(f.At)/1e9+0.01
		}
		return over || strings.Contains(line, "*meta.Renew")
	})
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// TestSeeds runs the cores through the usual seeds, or through the one asked
// for.
func TestSeeds(t *testing.T) {
	rule := theRule(t)
	if *seedFlag != 0 {
		var trace bytes.Buffer
		p := NewPlan(*seedFlag)
		res := Run(p, rule, &trace)
		if testing.Verbose() {
			fmt.Print(trace.String())
		}
		t.Logf("%+v", res)
		if res.Failure != nil {
			report(t, p, rule, res.Failure)
		}
		return
	}
	var sum Stats
	failed, entries, checked := 0, 0, 0
	for i := range uint64(seedsUsual()) {
		p := NewPlan(*firstFlag + i)
		res := Run(p, rule, nil)
		entries += res.Entries
		checked += res.Checked
		sum.add(res.Stats)
		if res.Failure == nil {
			continue
		}
		if failed++; failed > 3 {
			t.Fatalf("seed %d: %v (and no more seeds after this one)", p.Seed, res.Failure)
		}
		report(t, p, rule, res.Failure)
	}
	t.Logf("%d entries, %d reads placed, %+v", entries, checked, sum)
	// A run in which nothing happens proves nothing.
	if sum.Requests == 0 || sum.Elections == 0 || sum.Crashes == 0 || sum.Evictions == 0 ||
		sum.Resumes == 0 || sum.Resent == 0 || sum.Orphans == 0 || sum.Blocks == 0 || checked == 0 {
		t.Errorf("the seeds leave something out: %+v", sum)
	}
}

// TestSameSeedSameTrace: a seed replays exactly.
func TestSameSeedSameTrace(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		var a, b bytes.Buffer
		first, second := Run(NewPlan(seed), NoRule, &a), Run(NewPlan(seed), NoRule, &b)
		if first.Hash != second.Hash || !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Fatalf("seed %d gives two traces: %x and %x, %d and %d bytes", seed, first.Hash, second.Hash, a.Len(), b.Len())
		}
	}
	if Run(NewPlan(1), NoRule, nil).Hash == Run(NewPlan(2), NoRule, nil).Hash {
		t.Fatal("two seeds give the same trace")
	}
}

// TestRulesAreNoticed breaks every rule: some seed of CI must catch it, soon.
func TestRulesAreNoticed(t *testing.T) {
	if raceEnabled {
		t.Skip("the same runs as without the race detector")
	}
	for _, rule := range Rules() {
		t.Run(rule.String(), func(t *testing.T) {
			if why := unnoticed[rule.String()]; why != "" {
				t.Skip(why)
			}
			t.Parallel()
			p, f := notice(rule)
			if p == nil {
				t.Fatalf("%d seeds do not notice that %v is broken", len(ruleSeeds(rule)), rule)
			}
			t.Logf("seed %d, %d steps: %v", p.Seed, len(p.Steps), f)
		})
	}
}

// ruleSeeds are the seeds that may notice a broken rule: the one that did last,
// then others.
func ruleSeeds(rule Rule) []uint64 {
	var list []uint64
	if seed := knownSeeds[rule.String()]; seed != 0 {
		list = append(list, seed)
	}
	n := 600
	if *countFlag > 0 {
		n = *countFlag
	}
	for i := range uint64(n) {
		list = append(list, *firstFlag+i)
	}
	return list
}

// TestShrink: a shrunk plan fails as well, and no step of it can go.
func TestShrink(t *testing.T) {
	const rule = ReclaimNothing
	bad := func(p *Plan) bool { return Run(p, rule, nil).Failure != nil }
	for seed := uint64(1); seed <= 3; seed++ {
		p := NewPlan(seed)
		if !bad(p) {
			continue
		}
		small := Shrink(p, 5000, bad)
		if !bad(small) {
			t.Fatalf("seed %d: the shrunk plan does not fail:\n%v", seed, small)
		}
		if len(small.Steps) > 12 {
			t.Errorf("seed %d: %d of %d steps are left:\n%v", seed, len(small.Steps), len(p.Steps), small)
		}
		for i := range small.Steps {
			q := *small
			if q.Steps = without(small.Steps, i, 1); bad(&q) {
				t.Errorf("seed %d: step %d is not needed", seed, i)
			}
		}
		t.Logf("seed %d, from %d steps:\n%v", seed, len(p.Steps), small)
	}
}

// TestNoFaultNoEviction: without faults nobody loses a session.
func TestNoFaultNoEviction(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		p := NewPlan(seed)
		var calm []Step
		for _, x := range p.Steps {
			if x.Kind < Crash {
				calm = append(calm, x)
			}
		}
		p.Steps = calm
		res := Run(p, NoRule, nil)
		if res.Failure != nil || res.Stats.Evictions != 0 {
			t.Errorf("seed %d: %v, %+v", seed, res.Failure, res.Stats)
		}
	}
}
