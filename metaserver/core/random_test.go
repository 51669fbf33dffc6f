package core

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"agentdrive/metaserver/meta"
)

var (
	seedFlag  = flag.Uint64("lease-seed", 0, "run one seed of TestRandomLeases, with a trace")
	breakFlag = flag.String("lease-break", "", "with this rule broken")
)

// span is when something was begun and was over; end 0: it is not.
type span struct{ start, end int }

// access is one read or write of a register.
type access struct {
	span
	val uint64
	who int
}

// register is the history of a name, of a file's mtime, or of whether a file
// has a name (1, then 0: only reads of 1 are noted). Values are written once,
// but for 0.
type register struct{ writes, reads []access }

// never is the end of a write that may have been lost, or is under way.
const never = 1 << 60

// check looks for a read of a value that was overwritten before the read began,
// or after a read that saw a newer one.
func (r *register) check() error {
	by := map[uint64][]*access{}
	for i := range r.writes {
		w := &r.writes[i]
		if w.end == 0 {
			w.end = never
		}
		by[w.val] = append(by[w.val], w)
	}
	for i := range r.reads {
		x := &r.reads[i]
		err := fmt.Errorf("client %d read %d at %v, which nobody had written", x.who, x.val, x.span)
		for _, w := range by[x.val] {
			if w.start > x.end {
				continue
			}
			if err = r.allows(w, x); err == nil {
				break
			}
		}
		if err != nil {
			return err
		}
		for j := range r.reads[:i] {
			y := &r.reads[j]
			if y.end < x.start && len(by[x.val]) == 1 && len(by[y.val]) == 1 && by[y.val][0].end < never && by[x.val][0].end < by[y.val][0].start {
				return fmt.Errorf("client %d read %d at %v, after client %d had read the newer %d at %v", x.who, x.val, x.span, y.who, y.val, y.span)
			}
		}
	}
	return nil
}

// allows reports whether read x may have seen what w wrote.
func (r *register) allows(w, x *access) error {
	for j := range r.writes {
		o := &r.writes[j]
		if w.end < o.start && o.end < x.start {
			return fmt.Errorf("client %d read %d (written at %v) at %v, after client %d had written %d at %v", x.who, x.val, w.span, x.span, o.who, o.val, o.span)
		}
	}
	return nil
}

// chaos drives a world with several clients in a random order that its seed
// decides.
type chaos struct {
	*world
	rng     *rand.Rand
	tick    int
	clients []*actor
	dirs    []meta.Ino
	files   []meta.Ino
	regs    map[string]*register
	keys    []string
	streams StreamID
	unique  uint64
}

func (c *chaos) reg(key string) *register {
	r := c.regs[key]
	if r == nil {
		r = &register{}
		c.regs[key] = r
		c.keys = append(c.keys, key)
	}
	return r
}

func fileKey(ino meta.Ino) string           { return fmt.Sprintf("file %d", ino) }
func aliveKey(ino meta.Ino) string          { return fmt.Sprintf("alive %d", ino) }
func slotKey(dir meta.Ino, n string) string { return fmt.Sprintf("name %d/%s", dir, n) }

var slots = []string{"p", "q"}

func newChaos(t testing.TB, seed uint64, brk string) *chaos {
	c := &chaos{world: newWorld(t, brk), rng: rand.New(rand.NewPCG(seed, 1)), regs: map[string]*register{}}
	c.s.cfg.TTL = 3e9 // contention is over soon
	if *seedFlag != 0 {
		c.trace = func(format string, args ...any) {
			t.Logf("%6d %s", c.tick, fmt.Sprintf(format, args...))
		}
	}
	c.world.open(1, func(o *meta.Open) { o.Leases = false })
	id := meta.OpID(0)
	next := func(op meta.Op) *meta.Reply { id++; return c.world.call(1, id, op) }
	for i := range 2 {
		c.dirs = append(c.dirs, made(t, next(mkdirIn(1, fmt.Sprintf("d%d", i)))))
		f := next(mk(fmt.Sprintf("f%d", i)))
		c.files = append(c.files, made(t, f))
		a := f.Outcome.Result.(*meta.EntryResult).Attr
		r := c.reg(fileKey(a.Ino))
		r.writes = append(r.writes, access{span: span{0, 0}, val: uint64(a.Mtime)})
		r.writes[0].end = 1
	}
	for _, d := range c.dirs {
		for _, n := range slots {
			c.reg(slotKey(d, n)).writes = []access{{span: span{0, 1}}}
		}
	}
	c.frame(1, &meta.Close{})
	c.sent = map[StreamID][]meta.Frame{}
	c.tick, c.streams = 2, 10
	for i := range 3 {
		a := newActor(c, i)
		c.clients = append(c.clients, a)
	}
	for _, a := range c.clients {
		c.world.open(a.st)
		a.session, a.nonce = c.ids[a.st], c.nonce
		a.group = groupOf(c.world, a.st)
	}
	return c
}

func (c *chaos) run(steps int) {
	for range steps {
		c.tick++
		a := c.clients[c.rng.IntN(len(c.clients))]
		switch x := c.rng.IntN(1000); {
		case x < 250:
			a.toServer()
		case x < 500:
			a.fromServer()
		case x < 700:
			c.effect()
		case x < 860:
			a.begin()
		case x < 900:
			a.sendLog()
		case x < 980:
			a.answerRecall()
		case x < 993:
			c.pass(Time(c.rng.IntN(500e6)))
			for _, x := range c.clients {
				x.renew()
			}
		case x < 996:
			a.reconnect()
		case x < 997:
			c.failover()
		case x < 998 && c.rng.IntN(3) == 0:
			a.die()
		default:
			a.release()
		}
	}
	for range 4000 { // nothing new: all must come to its end
		c.tick++
		c.effect()
		for _, a := range c.clients {
			a.toServer()
			a.fromServer()
			a.sendLog()
			a.answerRecall()
		}
		if c.tick%64 == 0 {
			c.pass(200e6)
			for _, a := range c.clients {
				a.renew()
			}
		}
	}
}

// pass lets time pass, with a Tick whenever the core expects one.
func (c *chaos) pass(d Time) {
	for end := c.now + d; c.now < end; {
		c.now = min(end, c.now+c.s.beat())
		c.step(Tick{})
	}
}

// effect carries out one effect: entries in their order, others in any.
func (c *chaos) effect() {
	if len(c.queue) == 0 {
		return
	}
	i := c.rng.IntN(len(c.queue))
	if _, ok := c.queue[i].(Propose); ok {
		for j := range c.queue {
			if _, ok := c.queue[j].(Propose); ok {
				i = j
				break
			}
		}
	}
	ef := c.queue[i]
	c.queue = append(c.queue[:i:i], c.queue[i+1:]...)
	if _, ok := ef.(Read); ok && c.rng.IntN(2) == 0 {
		c.lateRead(ef.(Read))
		return
	}
	c.do(ef)
}

// failover makes the server lose all its memory.
func (c *chaos) failover() {
	c.trace("FAILOVER")
	c.step(LostLeadership{})
	c.sent = map[StreamID][]meta.Frame{}
	hold := c.hold
	c.hold = func(Effect) bool { return true }
	c.lead()
	c.hold = hold
	for _, a := range c.clients {
		a.reconnect()
	}
}

func (c *chaos) verdict() error {
	for _, a := range c.clients {
		if len(a.ops) > 0 || len(a.log) > 0 {
			return fmt.Errorf("client %d waits for %d answers, and has %d log records", a.id, len(a.ops), len(a.log))
		}
	}
	for _, n := range c.notices { // who is slow may be ended, but nobody for what it claims or logs
		if strings.Contains(n, "claims") || strings.Contains(n, "log") {
			return errors.New(n)
		}
	}
	for _, k := range c.keys {
		if err := c.regs[k].check(); err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
	}
	return nil
}

func TestRandomLeases(t *testing.T) {
	if *seedFlag != 0 {
		c := newChaos(t, *seedFlag, *breakFlag)
		c.run(6000)
		t.Log(c.verdict())
		return
	}
	seeds := uint64(60)
	if testing.Short() {
		seeds = 10
	}
	reads, local := 0, 0
	for seed := uint64(1); seed <= seeds; seed++ {
		c := newChaos(t, seed, "")
		c.run(6000)
		if err := c.verdict(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for _, a := range c.clients {
			reads += a.cached
			local += a.local
		}
	}
	if reads == 0 || local == 0 {
		t.Fatalf("%d reads were answered from leases, %d writes were local: the test tests nothing", reads, local)
	}
	t.Logf("%d reads were answered from leases, %d writes were local", reads, local)
}

// Every rule that guards coherence is missed when it is broken.
func TestRandomLeasesNoticeBrokenRules(t *testing.T) {
	for _, brk := range []string{"S1-no-wait", "S1-no-recheck", "S5-no-wait", "S7-grant-despite-holder", "G-stale-grant", "R-no-query"} {
		t.Run(brk, func(t *testing.T) {
			for seed := uint64(1); seed <= 400; seed++ {
				c := newChaos(t, seed, brk)
				c.run(6000)
				if err := c.verdict(); err != nil {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Fatal("nobody noticed")
		})
	}
}

// Two runs of one seed say the same, frame by frame.
func TestRandomLeasesAreDeterministic(t *testing.T) {
	record := func() (lines []string) {
		c := newChaos(t, 7, "")
		c.trace = func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
		c.run(3000)
		return lines
	}
	a, b := record(), record()
	if len(a) != len(b) {
		t.Fatalf("%d and %d lines", len(a), len(b))
	}
	for i := range a {
		if stripPointers(a[i]) != stripPointers(b[i]) {
			t.Fatalf("line %d:\n%s\n%s", i, a[i], b[i])
		}
	}
}
