package sim

import (
	"fmt"
	"math/rand/v2"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/core"
	"agentdrive/metaserver/state"
)

const nodeCount = 3

// raft is a model of the replicated log: what Raft promises, and every
// liberty that it takes. Committed entries stay. Entries that were proposed
// and not committed when the leader changes survive or vanish, as a suffix;
// their proposer hears only that the outcome is unknown. A deposed leader goes
// on believing for a while.
type raft struct {
	w       *world
	rng     *rand.Rand
	log     []entry // committed, index i+1
	term    uint64
	reign   *reign // of the true leader, nil while there is none
	pending []*proposal
	kick    uint64            // generation of the commit event
	reigns  map[uint64]*reign // by term; look-up only

	refuse int // proposals to lose though the leader stays
}

// entry is a committed entry of the log.
type entry struct {
	term uint64
	cmd  []byte
}

// reign is a node's time as leader. It ends for the others before the node
// learns of it.
type reign struct {
	node    *node
	life    int
	term    uint64
	over    bool        // another term has begun
	told    bool        // the core knows that it is over
	waiting []*proposal // without an answer to the core
}

type proposal struct {
	reign  *reign
	token  core.Token
	cmd    []byte
	due    int64 // not committed before
	sent   bool  // left the leader's machine: may survive it
	index  uint64
	closed bool // the core has its answer
}

func newRaft(w *world) *raft {
	r := &raft{w: w, rng: w.rand("raft"), reigns: map[uint64]*reign{}}
	first := state.EncodeEntry(nil, &state.Entry{Now: 1, Items: []state.Item{
		{Internal: &state.InitDrive{Drive: theDrive, Name: "demo"}},
	}})
	r.log = append(r.log, entry{0, first})
	w.oracle.committed(1, 0, first)
	return r
}

// reachable reports whether n can exchange messages with a majority.
func (r *raft) reachable(n *node) bool {
	if !n.up || n.isolated {
		return false
	}
	up := 0
	for _, m := range r.w.nodes {
		if m.up && !m.isolated {
			up++
		}
	}
	return up > nodeCount/2
}

// leads reports whether n is the true leader and can prove it.
func (r *raft) leads(n *node) bool {
	return r.reign != nil && r.reign.node == n && r.reign.life == n.life && r.reachable(n)
}

// watch elects a leader when there is none, again and again.
func (r *raft) watch() {
	if r.reign == nil || !r.leads(r.reign.node) {
		var fit []*node
		for _, n := range r.w.nodes {
			if r.reachable(n) {
				fit = append(fit, n)
			}
		}
		if len(fit) > 0 {
			r.elect(fit[r.rng.IntN(len(fit))])
		}
	}
	r.w.after(span(r.rng, 100*ms, 300*ms), r.watch)
}

// elect begins the reign of n. A random prefix of what the old leader had sent
// out survives.
func (r *raft) elect(n *node) {
	if !r.reachable(n) {
		return
	}
	r.w.oracle.stats.Elections++
	r.depose()
	r.term++
	g := &reign{node: n, life: n.life, term: r.term}
	r.reign, r.reigns[r.term] = g, g
	r.w.note("elect %s term %d, log %d", n.name, r.term, len(r.log))
	n.catchUp(uint64(len(r.log)), func() {
		if g.over || n.life != g.life || n.reign == g {
			return
		}
		n.becomeLeader(g)
	})
}

func (r *raft) depose() {
	g := r.reign
	r.reign = nil
	sent := 0
	for sent < len(r.pending) && r.pending[sent].sent {
		sent++
	}
	survive := r.rng.IntN(sent + 1)
	for _, p := range r.pending[:survive] {
		r.commit(p)
	}
	r.pending = nil
	if g == nil {
		return
	}
	g.over = true
	r.w.after(span(r.rng, 0, 400*ms), func() { g.node.learnDeposed(g) })
}

// propose appends an entry to the log of the leader that n takes itself for.
func (r *raft) propose(g *reign, tok core.Token, e *state.Entry) {
	n := g.node
	// Each leader's clock is off by its own error; a leader never goes back,
	// a successor may.
	n.lastNow = max(n.lastNow+1, r.w.now+n.clockError)
	e.Now = n.lastNow
	if r.w.rule == ProposeAcrossTerms {
		e.Term = 0
	}
	p := &proposal{reign: g, token: tok, cmd: state.EncodeEntry(nil, e)}
	if r.refuse > 0 && !g.over || g.told {
		r.refuse = max(r.refuse-1, 0)
		r.w.note("lose a proposal of %s", n.name)
		n.later(span(r.rng, 1*ms, 20*ms), p.lost)
		return
	}
	g.waiting = append(g.waiting, p)
	if g.over {
		return
	}
	p.sent = !n.isolated
	p.due = r.w.now + span(r.rng, 1*ms, 25*ms)
	r.pending = append(r.pending, p)
	r.advance()
}

func unknown() error {
	return errs.E("group.propose", errs.Unavailable, "leadership lost while committing", nil)
}

// advance commits what is due, in order.
func (r *raft) advance() {
	r.kick++
	gen := r.kick
	for len(r.pending) > 0 && r.leads(r.pending[0].reign.node) {
		p := r.pending[0]
		if p.due > r.w.now {
			r.w.at(p.due, func() {
				if gen == r.kick {
					r.advance()
				}
			})
			return
		}
		p.sent = true
		r.pending = r.pending[1:]
		r.commit(p)
	}
}

func (r *raft) commit(p *proposal) {
	if r.w.rule == LoseCommitted && r.rng.IntN(8) == 0 {
		p.answerEarly()
		return
	}
	r.log = append(r.log, entry{p.reign.term, p.cmd})
	p.index = uint64(len(r.log))
	r.w.note("commit %d by %s", p.index, p.reign.node.name)
	r.w.oracle.committed(p.index, p.reign.term, p.cmd)
	for _, n := range r.w.nodes {
		n.wake()
	}
}

// answer tells the core what became of its proposal, once.
func (p *proposal) answer(ev core.Applied) {
	if p.closed {
		return
	}
	p.closed = true
	if p.reign.node.life == p.reign.life {
		p.reign.node.post(ev)
	}
}

func (p *proposal) lost() { p.answer(core.Applied{Token: p.token, Err: unknown()}) }

// answerEarly serves the rule LoseCommitted: the client hears of a success
// that the log does not have.
func (p *proposal) answerEarly() {
	out := p.reign.node.w.oracle.pretend(p.reign.term, p.cmd)
	p.answer(core.Applied{Token: p.token, Outcomes: out})
}

// applied answers the proposer of an entry that its node has applied.
func (g *reign) applied(index uint64, list []byte) {
	for i, p := range g.waiting {
		if p.index != index {
			continue
		}
		g.waiting = append(g.waiting[:i:i], g.waiting[i+1:]...)
		out, err := state.DecodeOutcomes(list)
		if err != nil {
			g.node.w.fail("outcomes of entry %d: %v", index, err)
			return
		}
		p.answer(core.Applied{Token: p.token, Outcomes: out.List})
		return
	}
}

func (r *raft) String() string { return fmt.Sprintf("term %d, log %d", r.term, len(r.log)) }
