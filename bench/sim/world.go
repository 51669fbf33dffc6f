package sim

import (
	"container/heap"
	"fmt"
	"hash"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"runtime/debug"

	"agentdrive/metaserver/meta"
)

// Moments are in nanoseconds of virtual time.
const (
	us = int64(1e3)
	ms = int64(1e6)
	s  = int64(1e9)
)

// event is something that happens at a moment; seq breaks ties.
type event struct {
	at  int64
	seq uint64
	fn  func()
}

type eventQueue []event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *eventQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*q = old[:len(old)-1]
	return e
}

// stamp orders what the oracle sees: it grows with every observation.
type stamp uint64

// world is one run.
type world struct {
	plan  *Plan
	rule  Rule
	now   int64
	seq   uint64
	queue eventQueue

	last    stamp
	hash    hash.Hash64
	out     io.Writer // trace for people, nil if nobody reads it
	failure *Failure

	submitted uint64 // operations of administrators
	steps     int    // events carried out

	raft    *raft
	nodes   []*node
	clients []*client
	net     *network
	blocks  *blockStore
	oracle  *oracle
	data    *dataOracle
	history *history
	leases  bool // the cores speak leases
	calm    bool // the plan has no faults
}

// Failure is a broken promise.
type Failure struct {
	At   int64 // virtual nanoseconds
	What string
}

// Error says what and when.
func (f *Failure) Error() string {
	return fmt.Sprintf("at %.6f s: %s", float64(f.At)/1e9, f.What)
}

// Result of a run.
type Result struct {
	Failure *Failure
	Hash    uint64 // of the trace
	Events  int
	Entries int // of the log
	Checked int // reads whose place in the log was found
	Looks   int // that applications took, with a place in the history
	Cached  int // of them, from a kernel's cache
	Stats   Stats
}

// Stats tell whether a run exercised anything.
type Stats struct {
	Requests, Answered, Failed int
	Elections, Crashes         int
	Evictions, Resumes         int
	Resent                     int // operations sent more than once
	Orphans                    int // inodes that lived on without a name
	Blocks                     int // blocks published
	Deleted                    int // blocks deleted
	Refused                    int // entries that came into the log of another term
	Kills                      int // of clients
	Records                    int // of delegated logs
	Recalls                    int // frames
}

// Run carries out a plan under a rule. out, if not nil, receives the trace.
func Run(p *Plan, rule Rule, out io.Writer) (res Result) {
	w := &world{plan: p, rule: rule, out: out, hash: fnv.New64a(), leases: p.Leases, calm: true}
	for _, x := range p.Steps {
		w.calm = w.calm && x.Kind < Crash
	}
	w.blocks = newBlockStore(w)
	w.net = newNetwork(w)
	w.history = newHistory(w)
	w.oracle = newOracle(w)
	w.data = newDataOracle(w)
	w.raft = newRaft(w)
	for i := range nodeCount {
		w.nodes = append(w.nodes, newNode(w, i))
	}
	for i := range p.Clients {
		w.clients = append(w.clients, newClient(w, i))
	}
	defer func() {
		if r := recover(); r != nil {
			w.fail("panic: %v\n%s", r, debug.Stack())
		}
		res = w.result()
	}()
	w.script()
	return res
}

func (w *world) result() Result {
	r := Result{Failure: w.failure, Hash: w.hash.Sum64(), Events: w.steps, Entries: len(w.raft.log), Checked: w.oracle.checked}
	r.Stats = w.oracle.stats
	r.Looks, r.Cached = w.history.seen, w.history.cached
	return r
}

// rand gives a generator of its own to a part of the world, so that what one
// part draws does not move the others.
func (w *world) rand(part string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(part))
	return rand.New(rand.NewPCG(w.plan.Seed, h.Sum64()))
}

// after lets fn happen in d from now.
func (w *world) after(d int64, fn func()) { w.at(w.now+d, fn) }

func (w *world) at(t int64, fn func()) {
	w.seq++
	heap.Push(&w.queue, event{max(t, w.now), w.seq, fn})
}

// runUntil carries out events until t, or until done says so.
func (w *world) runUntil(t int64, done func() bool) bool {
	for w.failure == nil {
		if done != nil && done() {
			return true
		}
		if len(w.queue) == 0 || w.queue[0].at > t {
			w.now = max(w.now, t)
			return false
		}
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		w.steps++
		if w.steps > maxEvents {
			w.fail("the run does not end: %d events", w.steps)
			return false
		}
		e.fn()
	}
	return false
}

// maxEvents ends runs in which something spins.
const maxEvents = 400_000

// observe gives the next stamp.
func (w *world) observe() stamp {
	w.last++
	return w.last
}

// note puts a line into the trace.
func (w *world) note(format string, args ...any) {
	fmt.Fprintf(w.hash, "%d ", w.now)
	fmt.Fprintf(w.hash, format, args...)
	if w.out != nil {
		fmt.Fprintf(w.out, "%11.6f  %s\n", float64(w.now)/1e9, fmt.Sprintf(format, args...))
	}
}

// noteFrame puts a frame into the trace.
func (w *world) noteFrame(who string, body []byte, f meta.Frame) {
	fmt.Fprintf(w.hash, "%d %s", w.now, who)
	w.hash.Write(body)
	if w.out != nil {
		fmt.Fprintf(w.out, "%11.6f  %s %s\n", float64(w.now)/1e9, who, describe(f))
	}
}

// fail records the first broken promise and ends the run.
func (w *world) fail(format string, args ...any) {
	if w.failure == nil {
		w.failure = &Failure{w.now, fmt.Sprintf(format, args...)}
		w.note("FAILURE %s", w.failure.What)
	}
}

// failAt is fail, of something that happened before.
func (w *world) failAt(at int64, format string, args ...any) {
	if w.failure == nil {
		w.fail(format, args...)
		w.failure.At = at
	}
}

// span draws evenly from [lo, hi].
func span(r *rand.Rand, lo, hi int64) int64 { return lo + r.Int64N(hi-lo+1) }

func (a *Stats) add(b Stats) {
	a.Requests += b.Requests
	a.Answered += b.Answered
	a.Failed += b.Failed
	a.Elections += b.Elections
	a.Crashes += b.Crashes
	a.Evictions += b.Evictions
	a.Resumes += b.Resumes
	a.Resent += b.Resent
	a.Orphans += b.Orphans
	a.Blocks += b.Blocks
	a.Deleted += b.Deleted
	a.Refused += b.Refused
	a.Kills += b.Kills
	a.Records += b.Records
	a.Recalls += b.Recalls
}
