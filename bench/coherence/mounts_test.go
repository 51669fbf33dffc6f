package coherence

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"agentdrive/bench/cluster"
)

var (
	seedFlag = flag.Uint64("seed", 0, "seed of the histories; 0: of the clock")
	calls    = flag.Int("calls", 0, "calls of each history; 0: a short run. 100000 is the big one")
	groupsOf = flag.String("groups", "", "groups of calls, comma-separated; default: all")
	pagesDir = flag.String("pages", "", "directory for pages that draw violations")
	most     = flag.Int("most", 1, "violations after which a history ends")
)

var program string // built at first use, by fit

// fit skips where no real mounts can be, and builds the program.
func fit(t *testing.T) {
	t.Helper()
	if why := cluster.Unfit(); why != "" {
		t.Skip(why)
	}
	if program != "" {
		return
	}
	var err error
	if program, err = cluster.Build(tmp); err != nil {
		t.Fatal(err)
	}
}

// history runs a plan on n mounts of one drive of a cluster and fails on what
// is found.
func history(t *testing.T, c *cluster.Cluster, n int, p Plan) Report {
	t.Helper()
	for i := range n {
		p.Mounts = append(p.Mounts, c.Mount("demo", fmt.Sprint("m", i)))
	}
	if *groupsOf != "" {
		p.Groups = strings.Split(*groupsOf, ",")
	}
	if p.Seed = *seedFlag; p.Seed == 0 {
		p.Seed = uint64(time.Now().UnixNano())
	}
	if *calls > 0 {
		p.Calls, p.For = *calls, 0
	}
	p.Pages, p.Most = *pagesDir, *most
	if p.Pages == "" {
		dir, err := os.MkdirTemp("", "coherence-pages") // stays when something is found
		if err != nil {
			t.Fatal(err)
		}
		defer os.Remove(dir)
		p.Pages = dir
	}
	rep, err := Run(p)
	t.Logf("seed %d: %v", p.Seed, rep)
	if err != nil {
		t.Error(err)
	}
	for _, v := range rep.Violations {
		t.Errorf("%spage: %s", v.Text, v.Page)
	}
	return rep
}

func demo(t *testing.T, nodes int) *cluster.Cluster {
	t.Helper()
	c := cluster.Start(t, cluster.Options{Bin: program, Nodes: nodes})
	c.Do("drive", "create", "demo")
	return c
}

// One mount shows its own processes one history, with or without leases.
func TestOneMount(t *testing.T) {
	fit(t)
	history(t, demo(t, 1), 1, Plan{Workers: 4, For: 5 * time.Second})
}

// What goes to the servers synchronously is right without leases too.
func TestThreeMountsNames(t *testing.T) {
	fit(t)
	history(t, demo(t, 1), 3, Plan{For: 8 * time.Second, Groups: []string{"names", "tree", "log"}})
}

func TestTwoMounts(t *testing.T) {
	fit(t)
	history(t, demo(t, 1), 2, Plan{For: 10 * time.Second})
}

func TestThreeMounts(t *testing.T) {
	fit(t)
	history(t, demo(t, 1), 3, Plan{For: 10 * time.Second})
}

// The metadata leader is killed in the middle, twice.
func TestLeaderKilled(t *testing.T) {
	fit(t)
	c := demo(t, 3)
	during(t, c, 2, Plan{For: 15 * time.Second}, func() {
		c.Signal(c.Leader(), syscall.SIGKILL)
	})
}

// The metadata leader stands still for some seconds: another takes over, and
// the old one returns believing it still leads.
func TestLeaderPaused(t *testing.T) {
	fit(t)
	c := demo(t, 3)
	during(t, c, 2, Plan{For: 20 * time.Second}, func() {
		s := c.Leader()
		c.Signal(s, syscall.SIGSTOP)
		time.Sleep(6 * time.Second) // the fault's length
		c.Signal(s, syscall.SIGCONT)
	})
}

// A mount's daemon stands still for less than its session's life: the others
// wait for it, nothing is lost or stale.
func TestMountPaused(t *testing.T) {
	fit(t)
	c := demo(t, 1)
	during(t, c, 2, Plan{For: 15 * time.Second}, func() {
		for _, m := range c.Status().Mounts {
			if !strings.HasSuffix(m.Dir, "/m0") {
				continue
			}
			if err := syscall.Kill(m.Pid, syscall.SIGSTOP); err != nil {
				t.Error(err)
			}
			time.Sleep(3 * time.Second) // the fault's length
			if err := syscall.Kill(m.Pid, syscall.SIGCONT); err != nil {
				t.Error(err)
			}
		}
	})
}

// during runs a history and a fault in the middle of it, twice, some seconds
// apart.
func during(t *testing.T, c *cluster.Cluster, mounts int, p Plan, fault func()) {
	t.Helper()
	begin, done := time.Now(), make(chan struct{})
	close(done)
	var faults int
	next := 3 * time.Second
	p.Between = func(int) {
		select {
		case <-done:
		default:
			return // one at a time
		}
		if d := time.Since(begin); d >= next && faults < 2 {
			next, faults = d+6*time.Second, faults+1
			done = make(chan struct{})
			go func() {
				defer close(done)
				time.Sleep(rand.N(250 * time.Millisecond)) // into the arena, which begins now
				fault()
			}()
		}
	}
	history(t, c, mounts, p)
	<-done
	if faults == 0 {
		t.Error("ended before the fault")
	}
	c.WaitFor("healthy")
}
