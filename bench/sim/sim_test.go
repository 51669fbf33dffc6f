package sim

import (
	"flag"
	"os"
	"testing"
)

var (
	seedFlag  = flag.Uint64("sim.seed", 0, "run this seed only and print its trace")
	countFlag = flag.Int("sim.seeds", 0, "number of seeds instead of the usual one")
	breakFlag = flag.String("sim.break", "none", "break this rule")
)

func TestSeed(t *testing.T) {
	rule, ok := ParseRule(*breakFlag)
	if !ok {
		t.Fatalf("no rule %q", *breakFlag)
	}
	if *seedFlag != 0 {
		res := Run(NewPlan(*seedFlag), rule, os.Stdout)
		t.Logf("%+v", res)
		if res.Failure != nil {
			t.Fatal(res.Failure)
		}
		return
	}
	n := 300
	if *countFlag > 0 {
		n = *countFlag
	}
	bad := 0
	var sum Stats
	events := 0
	for seed := uint64(1); seed <= uint64(n); seed++ {
		res := Run(NewPlan(seed), rule, nil)
		events += res.Events
		sum.add(res.Stats)
		if res.Failure != nil {
			t.Errorf("seed %d: %v", seed, res.Failure)
			if bad++; bad > 20 {
				break
			}
		}
	}
	t.Logf("%d events %+v", events, sum)
}
func TestRules(t *testing.T) {
	for _, r := range Rules() {
		n := 0
		var first *Failure
		fs := uint64(0)
		for seed := uint64(1); seed <= 300; seed++ {
			if res := Run(NewPlan(seed), r, nil); res.Failure != nil {
				if n++; n == 1 {
					first, fs = res.Failure, seed
				}
			}
		}
		t.Logf("%-22v %d caught, first seed %d: %.200v", r, n, fs, first)
	}
}
