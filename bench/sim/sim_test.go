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
		sum.Requests += res.Stats.Requests
		if res.Failure != nil {
			t.Errorf("seed %d: %v", seed, res.Failure)
			if bad++; bad > 20 {
				break
			}
		}
	}
	t.Logf("%d events %+v", events, sum)
}
