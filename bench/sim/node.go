package sim

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"

	"agentdrive/internal/kv"
	"agentdrive/metaserver/core"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
)

const (
	theDrive  = meta.DriveID(1)
	serverTTL = core.Time(1500 * ms)
)

// node is a metadata server: the adapter around one core and one replica of
// the state. A crash loses the core and keeps the state.
type node struct {
	w    *world
	id   int
	name string
	rng  *rand.Rand

	up       bool
	life     int // grows with each crash: what belongs to an older one is void
	isolated bool
	paused   bool
	deaf     bool         // does not hear that it is deposed
	inbox    []core.Event // while paused
	core     *core.Server
	conns    map[core.StreamID]*conn // look-up only
	lastConn core.StreamID
	timer    uint64 // generation
	submits  int    // of administrators, without an answer

	machine    state.Machine
	mem        *kv.Mem
	applied    uint64
	applying   bool
	waiters    []waiter
	reign      *reign // in which the replica takes itself for the leader
	coreReign  *reign // in which the core does: it hears later
	lastNow    int64
	clockError int64
}

// waiter waits until index is applied.
type waiter struct {
	index uint64
	fn    func()
}

func newNode(w *world, id int) *node {
	n := &node{w: w, id: id, name: fmt.Sprintf("n%d", id), rng: w.rand(fmt.Sprintf("node %d", id)), up: true, mem: kv.NewMem()}
	n.clockError = span(n.rng, -50*ms, 50*ms) + 10*s
	n.machine.Group = 1
	n.boot()
	return n
}

func (n *node) boot() {
	n.core = core.New(core.Config{TTL: serverTTL, Reclaim: 1 + n.rng.IntN(16), MaxInFlight: 1 + n.rng.IntN(6), Break: n.w.rule.server()})
	n.conns = map[core.StreamID]*conn{}
	n.wake()
}

// post hands an event to the core and carries out what it asks for.
func (n *node) post(ev core.Event) {
	if !n.up {
		return
	}
	if n.paused {
		n.inbox = append(n.inbox, ev)
		return
	}
	switch ev := ev.(type) {
	case core.BecameLeader:
		n.coreReign = n.w.raft.reigns[ev.Term]
	case core.LostLeadership:
		n.coreReign = nil
	}
	for _, ef := range n.core.Step(core.Time(n.w.now), ev) {
		n.do(ef)
	}
	if err := n.core.CheckInvariants(); err != nil {
		n.w.fail("%s: %v", n.name, err)
	}
}

// wall is the node's wall clock, never backwards.
func (n *node) wall() int64 {
	n.lastNow = max(n.lastNow, n.w.now+n.clockError)
	return n.lastNow
}

func (n *node) do(ef core.Effect) {
	w := n.w
	switch ef := ef.(type) {
	case core.Send:
		switch f := ef.Frame.(type) {
		case *meta.NotLeader:
			f.Leader, f.Address = n.knows()
		case *meta.Welcome:
			f.Now = n.wall()
		case *meta.Renewed:
			f.Now = n.wall()
		}
		if k := n.conns[ef.Stream]; k != nil {
			w.net.fromServer(k, ef.Frame)
		}
	case core.CloseStream:
		if k := n.conns[ef.Stream]; k != nil {
			delete(n.conns, ef.Stream)
			w.net.closeFromServer(k)
		}
	case core.Propose:
		g := n.coreReign
		if g == nil {
			w.fail("%s proposes without a reign", n.name)
			return
		}
		if n.reign != nil {
			g = n.reign // the log knows nothing of what the core believes
		}
		w.raft.propose(g, ef.Token, ef.Entry)
	case core.Confirm:
		n.confirm(ef.Round)
	case core.Read:
		n.later(n.work(), func() {
			out := n.read(ef)
			n.later(span(n.rng, 0, 2*ms), func() { n.post(core.ReadDone{Token: ef.Token, Outcome: out}) })
		})
	case core.ReadTouched:
		n.later(n.work(), func() {
			ev := core.Touched{Token: ef.Token}
			ev.Set, ev.Err = state.Touches(n.mem.View(), ef.Drive, ef.Op)
			n.later(span(n.rng, 0, 2*ms), func() { n.post(ev) })
		})
	case core.ReadSession:
		n.later(n.work(), func() {
			v := n.mem.View()
			ev := core.SessionRead{Token: ef.Token}
			if _, ev.Result, ev.Err = state.ResumeInfo(v, ef.Session, ef.Epoch, ef.Nonce); ev.Err == nil {
				ev.Replies, ev.Err = state.Replies(v, ef.Session)
			}
			n.later(span(n.rng, 0, 2*ms), func() { n.post(ev) })
		})
	case core.FindOrphans:
		n.later(n.work(), func() {
			list := n.orphans(false)
			n.later(span(n.rng, 0, 10*ms), func() { n.post(core.OrphansFound{Orphans: list}) })
		})
	case core.Submitted:
		if n.submits--; n.submits < 0 {
			w.fail("%s answers an administrator twice", n.name)
		}
	case core.Timer:
		n.timer++
		gen := n.timer
		at := int64(ef.At)
		n.later(max(at-w.now, 0)+span(n.rng, 0, 1*ms), func() {
			if gen == n.timer {
				n.post(core.Tick{})
			}
		})
	case core.Notice:
		w.note("%s: %s (session %d)", n.name, ef.Text, ef.Session)
		if strings.Contains(ef.Text, "claims inode") {
			w.fail("%s: %s (session %d)", n.name, ef.Text, ef.Session)
		}
	}
}

// work is how long something takes: little, now and then much.
func (n *node) work() int64 {
	switch x := n.rng.IntN(64); {
	case x < 2:
		return span(n.rng, 50*ms, 400*ms)
	case x < 8:
		return span(n.rng, 5*ms, 60*ms)
	}
	return span(n.rng, 0, 4*ms)
}

// knows tells the leader of the moment, as far as the replica has heard.
func (n *node) knows() (id uint32, name string) {
	if g := n.w.raft.reign; g != nil && !n.isolated && (g.node == n) == (n.reign == g) {
		return uint32(g.node.id + 1), g.node.name
	}
	return 0, ""
}

// later is after, void when the process dies.
func (n *node) later(d int64, fn func()) {
	life := n.life
	n.w.after(d, func() {
		if n.life == life {
			fn()
		}
	})
}

// confirm is the read rule as the production adapter keeps it: note the commit
// index, ask the others for their term, wait until it is applied.
func (n *node) confirm(round uint64) {
	if n.w.rule == ReadUnconfirmed {
		n.later(1*ms, func() { n.post(core.Confirmed{Round: round}) })
		return
	}
	g, noted := n.coreReign, uint64(len(n.w.raft.log))
	n.later(span(n.rng, 500*us, 15*ms), func() {
		if g == nil || g.over || !n.w.raft.leads(n) {
			n.later(span(n.rng, 5*ms, 60*ms), func() {
				n.post(core.Confirmed{Round: round, Err: unknown()})
			})
			return
		}
		n.whenApplied(noted, func() {
			n.later(span(n.rng, 0, 30*ms), func() { n.post(core.Confirmed{Round: round}) })
		})
	})
}

func (n *node) read(ef core.Read) meta.Outcome {
	res, err := state.Read(n.mem.View(), ef.Drive, ef.Op)
	if err != nil {
		return meta.Failed(err)
	}
	return meta.Outcome{Result: res}
}

func (n *node) orphans(resolved bool) []core.Orphan {
	v := n.mem.View()
	drives, err := state.GroupDrives(v)
	if err != nil {
		n.w.fail("drives: %v", err)
	}
	var out []core.Orphan
	for _, d := range drives {
		list := d.Space().Unresolved
		if resolved {
			list = d.Space().Orphans
		}
		page, err := list(v, 0, 1<<20)
		if err != nil {
			n.w.fail("orphans: %v", err)
		}
		for _, o := range page {
			if o.Resolved == resolved {
				out = append(out, core.Orphan{Drive: d.ID, Ino: o.Ino, Resolved: resolved, Pins: o.Pins})
			}
		}
	}
	return out
}

// wake applies committed entries, one after the other.
func (n *node) wake() {
	if n.applying || !n.up || n.isolated || n.applied >= uint64(len(n.w.raft.log)) {
		return
	}
	n.applying = true
	n.later(100*us+n.work(), func() {
		n.applying = false
		if !n.isolated {
			n.applyNext()
		}
		n.wake()
	})
}

func (n *node) applyNext() {
	n.applied++
	list := n.w.rule.apply(&n.machine, n.mem, n.applied, n.w.raft.log[n.applied-1])
	n.w.note("%s applies %d", n.name, n.applied)
	if want := n.w.oracle.outcomes[n.applied-1]; !bytes.Equal(list, want) {
		n.w.fail("%s applies entry %d with another outcome than the witness", n.name, n.applied)
	}
	if n.reign != nil {
		n.reign.applied(n.applied, list)
	}
	var rest []waiter
	ready := n.waiters
	n.waiters = nil
	for _, x := range ready {
		if x.index <= n.applied {
			x.fn()
		} else {
			rest = append(rest, x)
		}
	}
	n.waiters = append(rest, n.waiters...)
}

func (n *node) whenApplied(index uint64, fn func()) {
	if n.applied >= index {
		fn()
		return
	}
	n.waiters = append(n.waiters, waiter{index, fn})
}

// catchUp waits until a new leader has applied its barrier.
func (n *node) catchUp(index uint64, fn func()) {
	if n.w.rule == LeadBeforeBarrier {
		index = 0
	}
	n.whenApplied(index, func() { n.later(span(n.rng, 0, 20*ms), fn) })
}

// becomeLeader starts the core's reign with the state at the barrier.
func (n *node) becomeLeader(g *reign) {
	if old := n.reign; old != nil && !old.told {
		n.deaf = false
		n.learnDeposed(old)
	}
	n.reign = g
	v := n.mem.View()
	sessions, err := state.Sessions(v)
	if err != nil {
		n.w.fail("sessions: %v", err)
	}
	n.w.note("%s leads term %d with %d sessions", n.name, g.term, len(sessions))
	n.post(core.BecameLeader{Term: g.term, Sessions: sessions, Orphans: n.orphans(true)})
}

// learnDeposed ends the core's reign: the proposals without an answer have
// none, before or after the core hears that it lost.
func (n *node) learnDeposed(g *reign) {
	if g.told || n.deaf && n.life == g.life {
		return
	}
	g.told = true
	lost := func() {
		for _, p := range g.waiting {
			p.lost()
		}
		g.waiting = nil
	}
	if n.reign != g || n.life != g.life {
		return
	}
	before := n.rng.IntN(2) == 0
	if before {
		lost()
	}
	n.reign = nil
	ev := core.LostLeadership{}
	ev.Leader, ev.Address = n.knows()
	n.w.note("%s learns that term %d is over", n.name, g.term)
	n.post(ev)
	if !before {
		n.later(span(n.rng, 0, 20*ms), lost)
	}
}

// hear ends deafness.
func (n *node) hear() {
	n.deaf = false
	if g := n.reign; g != nil && g.over {
		n.learnDeposed(g)
	}
}

// accept takes a client's stream.
func (n *node) accept(k *conn) {
	n.lastConn++
	k.server = n.lastConn
	n.conns[k.server] = k
	n.post(core.StreamOpened{Stream: k.server, Peer: k.client.name})
}

func (n *node) crash() {
	if !n.up {
		return
	}
	n.w.note("crash %s", n.name)
	n.w.oracle.stats.Crashes++
	n.up, n.applying, n.paused, n.deaf = false, false, false, false
	n.life++
	n.submits = 0
	n.inbox, n.waiters, n.reign, n.coreReign = nil, nil, nil, nil
	for _, k := range append([]*conn(nil), n.w.net.conns...) {
		if k.node == n {
			n.w.net.breakConn(k)
		}
	}
}

func (n *node) restart() {
	if n.up {
		return
	}
	n.w.note("restart %s", n.name)
	n.up = true
	n.boot()
	n.w.raft.advance()
}

// isolate cuts the node from the other nodes, not from clients.
func (n *node) isolate(on bool) {
	n.w.note("isolate %s %v", n.name, on)
	n.isolated = on
	if !on {
		n.wake()
		n.w.raft.advance()
	}
}

func (n *node) pause(on bool) {
	if !n.up || n.paused == on {
		return
	}
	n.w.note("pause %s %v", n.name, on)
	n.paused = on
	for !n.paused && len(n.inbox) > 0 {
		ev := n.inbox[0]
		n.inbox = n.inbox[1:]
		n.post(ev)
	}
}
