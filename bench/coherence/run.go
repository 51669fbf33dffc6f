package coherence

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Plan says what Run does.
type Plan struct {
	Mounts  []string // directories that show the same drive
	Workers int      // processes for each mount, default 3
	Seed    uint64
	Calls   int           // end after this many calls; 0: no bound
	For     time.Duration // end after this time; 0: no bound
	Groups  []string      // of acts; default: names, tree, registers, text, log, locks. Also: mapped
	Local   bool          // a local filesystem: times need not grow with every change, inode numbers come again
	Between func(n int)   // called before arena n, all workers idle; may be nil
	Limit   time.Duration // of one arena, default 2 min: what is not done then hangs
	Pages   string        // directory for pages that draw violations; "": none
	Most    int           // stop after this many violations, default 1
	apart   bool          // for tests of this package: the mounts show different drives
}

// Report is what Run saw.
type Report struct {
	Calls, Facts, Arenas int
	Stale                int // calls that ended with ESTALE, and told nothing
	Elapsed              time.Duration
	Slowest              []Call // the slowest calls, the slowest first
	Violations           []Violation
}

// String shows the report without the violations.
func (r Report) String() string {
	s := fmt.Sprintf("%d calls (%d ESTALE), %d facts, %d arenas in %v, %d violations", r.Calls, r.Stale, r.Facts, r.Arenas, r.Elapsed.Round(time.Millisecond), len(r.Violations))
	for _, c := range r.Slowest {
		s += fmt.Sprintf("\n  %9.1f ms  arena %d, %v", float64(c.End-c.Start)/1e6, c.Arena, c)
	}
	return s
}

// allGroups are the default, in a fixed order: a seed means the same plan.
var allGroups = []string{"names", "tree", "registers", "text", "log", "locks"}

// crew is the running workers.
type crew struct {
	plan Plan
	all  []*member
}

// member is one worker process.
type member struct {
	mount int
	cmd   *exec.Cmd
	in    *json.Encoder
	close func() error
	out   *bufio.Reader
}

// Run works on the mounts and checks what was seen. It returns an error when
// it could not work: a worker that ended or hangs. The report is right as far
// as it goes in any case. No worker is left.
func Run(p Plan) (rep Report, err error) {
	p.Workers = cmp.Or(p.Workers, 3)
	p.Limit = cmp.Or(p.Limit, 2*time.Minute)
	p.Most = cmp.Or(p.Most, 1)
	if len(p.Groups) == 0 {
		p.Groups = allGroups
	}
	if n := p.Workers * len(p.Mounts); n > maxWorkers {
		return rep, fmt.Errorf("%d workers, more than %d", n, maxWorkers)
	}
	c := &crew{plan: p}
	defer func() { err = errors.Join(err, c.end()) }()
	if err := c.start(); err != nil {
		return rep, err
	}
	begin := time.Now()
	checked := make(chan struct{}) // closed when the arena before is checked
	close(checked)
	enough := func() bool {
		return len(rep.Violations) >= p.Most || p.Calls > 0 && rep.Calls >= p.Calls || p.For > 0 && time.Since(begin) >= p.For
	}
	for n := 0; ; n++ {
		<-checked
		rep.Elapsed = time.Since(begin)
		if enough() {
			return rep, nil
		}
		if p.Between != nil {
			p.Between(n)
		}
		calls, err := c.arena(n)
		if err != nil {
			<-checked
			return rep, fmt.Errorf("seed %d, arena %d: %w", p.Seed, n, err)
		}
		checked = make(chan struct{})
		go func() {
			defer close(checked)
			rep.add(calls, p, n)
		}()
	}
}

// add checks the calls of one arena and adds them to the report.
func (r *Report) add(calls []Call, p Plan, n int) {
	r.Arenas++
	r.Calls += len(calls)
	for _, c := range calls {
		r.Facts += len(c.Facts)
		if strings.HasSuffix(c.Text, "= ESTALE") {
			r.Stale++
		}
	}
	for _, v := range Check(calls, p.Pages, p.Local) {
		v.Text = fmt.Sprintf("seed %d, arena %d, %s:\n%s", p.Seed, n, v.Part, v.Text)
		r.Violations = append(r.Violations, v)
	}
	r.Slowest = append(r.Slowest, calls...)
	slices.SortFunc(r.Slowest, func(a, b Call) int { return cmp.Compare(b.End-b.Start, a.End-a.Start) })
	r.Slowest = slices.Clone(r.Slowest[:min(len(r.Slowest), 5)])
}

// start starts the workers.
func (c *crew) start() error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	for i := range c.plan.Workers * len(c.plan.Mounts) {
		cmd := exec.Command(exe)
		// A signal of the runtime's would cut calls short.
		cmd.Env = append(os.Environ(), roleEnv+"=worker", "GODEBUG=asyncpreemptoff=1", "GOMAXPROCS=2")
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		c.all = append(c.all, &member{i % len(c.plan.Mounts), cmd, json.NewEncoder(in), in.Close, bufio.NewReader(out)})
	}
	return nil
}

// end ends the workers. One that hangs in a mount is killed; it goes when its
// call ends.
func (c *crew) end() error {
	for _, m := range c.all {
		m.close()
	}
	gone := make(chan struct{})
	go func() {
		for _, m := range c.all {
			m.cmd.Wait() // it ends because its input did: however
		}
		close(gone)
	}()
	select {
	case <-gone:
		return nil
	case <-time.After(5 * time.Second):
	}
	for _, m := range c.all {
		m.cmd.Process.Kill()
	}
	select {
	case <-gone:
		return nil
	case <-time.After(10 * time.Second):
		return errors.New("workers do not end, killed: they hang in a mount")
	}
}

// arena lets all workers work in a fresh directory.
func (c *crew) arena(n int) ([]Call, error) {
	p := c.plan
	rng := rand.New(rand.NewPCG(p.Seed, uint64(n)))
	dir := fmt.Sprintf("arena-%d-%d", p.Seed, n)
	maker := rng.IntN(len(p.Mounts))
	for i, m := range p.Mounts {
		if i != maker && !p.apart {
			continue
		}
		if err := prepare(filepath.Join(m, dir)); err != nil {
			return nil, err
		}
	}
	groups := p.Groups
	if rng.IntN(3) > 0 { // a few groups only, for more that meet
		groups = []string{p.Groups[rng.IntN(len(p.Groups))], p.Groups[rng.IntN(len(p.Groups))]}
	}
	owner := rng.IntN(2*len(p.Mounts)) - len(p.Mounts) // none in half of all arenas
	var wg sync.WaitGroup
	results := make([][]Call, len(c.all))
	errs := make([]error, len(c.all))
	for i, m := range c.all {
		a := arena{ID: n, Dir: filepath.Join(p.Mounts[m.mount], dir), Seed: rng.Uint64(), Worker: i, Mount: m.mount, Groups: groups, Calls: 30}
		switch {
		case owner == m.mount:
			a.Calls, a.Think = 60, time.Millisecond
		case owner >= 0:
			a.Calls, a.Think = 8, 20*time.Millisecond
		}
		wg.Go(func() { results[i], errs[i] = m.do(a, p.Limit) })
	}
	wg.Wait()
	return slices.Concat(results...), errors.Join(errs...)
}

// do gives a worker its task and waits for what it did.
func (m *member) do(a arena, limit time.Duration) (calls []Call, err error) {
	late := time.AfterFunc(limit, func() { m.cmd.Process.Kill() })
	defer late.Stop()
	if err := m.in.Encode(a); err != nil {
		return nil, fmt.Errorf("worker %d: %w", a.Worker, err)
	}
	line, err := m.out.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("worker %d of mount %d ended, or did not end in %v: %w", a.Worker, a.Mount, limit, err)
	}
	return calls, json.Unmarshal(line, &calls)
}

// prepare makes an arena.
func prepare(dir string) error {
	for _, d := range []string{"", "d", "e", "t"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	for name, size := range map[string]int{"r": regFileSize, "s": 0, "l": 0, "k": 0, "q": 0} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o644); err != nil {
			return err
		}
	}
	return nil
}
