package consensus

import (
	"context"
	"fmt"
	"sync"

	"agentdrive/internal/errs"
)

// confirmer makes rounds of asking the voters for their term. At most one
// round is under way; requests that arrive meanwhile share the next one, for
// an answer must have been given after the request arrived.
type confirmer struct {
	g *Group

	mu      sync.Mutex // guards the fields below
	running bool
	next    *round // waits for the running one to end; nil: nobody waits
	closed  bool
	rounds  sync.WaitGroup
}

type round struct {
	done  chan struct{}
	index uint64
	term  uint64
	err   error
}

// Confirm proves that this server leads at a moment after the call, and
// returns the index that a read must wait for (WaitApplied) to contain every
// entry acknowledged anywhere before the call, and the term that was led.
// Error kinds: errs.NotLeader (hint: the leader's address if known),
// errs.Unavailable (no majority answered), errs.Canceled, errs.Timeout (ctx).
func (g *Group) Confirm(ctx context.Context) (readIndex, term uint64, err error) {
	r := g.confirm.join()
	select {
	case <-r.done:
		return r.index, r.term, r.err
	case <-ctx.Done():
		return 0, 0, ctxError("consensus.confirm", ctx, "")
	}
}

// join returns a round that has not begun.
func (c *confirmer) join() *round {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		r := &round{done: make(chan struct{}), err: errs.E("consensus.confirm", errs.Unavailable, "the group was shut down", nil)}
		close(r.done)
		return r
	}
	if c.next == nil {
		c.next = &round{done: make(chan struct{})}
	}
	r := c.next
	if !c.running {
		c.startLocked()
	}
	return r
}

func (c *confirmer) startLocked() {
	r := c.next
	c.next = nil
	c.running = true
	c.rounds.Add(1)
	go func() {
		defer c.rounds.Done()
		r.index, r.term, r.err = c.g.round()
		close(r.done)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.running = false
		if c.next != nil {
			c.startLocked()
		}
	}()
}

// close refuses new rounds and waits for those under way, which the end of
// the group cuts short.
func (c *confirmer) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.rounds.Wait()
}

// round is one confirmation. Why it proves what Confirm says is in DESIGN.md.
func (g *Group) round() (index, term uint64, err error) {
	const op = "consensus.confirm"
	term, ok := g.IsLeading()
	if !ok {
		return 0, 0, g.notLeader(op)
	}
	index = g.raft.CommitIndex() // before asking
	ok, err = g.majorityHas(term)
	if err != nil {
		return 0, 0, err
	}
	if !ok || !g.leads(term) {
		return 0, 0, g.notLeader(op)
	}
	return index, term, nil
}

type termAnswer struct {
	peer Peer
	term uint64
	err  error
}

// majorityHas asks all voters for their term and returns true once a
// majority, this server included, answered term; false if one answered a
// newer one.
func (g *Group) majorityHas(term uint64) (bool, error) {
	const op = "consensus.confirm"
	voters := g.voters()
	need, self := len(voters)/2+1, false
	for _, p := range voters {
		self = self || p.ID == g.cfg.ID
	}
	if self {
		need--
	}
	if need <= 0 {
		return true, nil
	}
	if g.cfg.Terms == nil {
		return false, errs.E(op, errs.Invalid, "the group has several voters and no way to ask them", nil)
	}
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.Tuning.ConfirmTimeout)
	defer cancel()
	answers := make(chan termAnswer, len(voters))
	asked := 0
	for _, p := range voters {
		if p.ID == g.cfg.ID {
			continue
		}
		asked++
		go func() {
			t, err := g.cfg.Terms.AskTerm(ctx, p)
			answers <- termAnswer{p, t, err}
		}()
	}
	var why error
	for left := asked; left >= need; left-- {
		select {
		case a := <-answers:
			switch {
			case a.err != nil:
				why = a.err
			case a.term > term:
				return false, nil
			case a.term == term:
				if need--; need == 0 {
					return true, nil
				}
			default:
				why = errs.E(op, errs.Unavailable, fmt.Sprintf("server %d is at term %d, this one leads %d", a.peer.ID, a.term, term), nil)
			}
		case <-ctx.Done():
			return false, errs.E(op, errs.Unavailable, "no majority answered in time", why)
		case <-g.stop:
			return false, errs.E(op, errs.Unavailable, "the group is shutting down", nil)
		}
	}
	return false, errs.E(op, errs.Unavailable, "no majority of the group is reachable", why)
}
