package consensus

import (
	"time"

	"fmt"
	"sync"

	"github.com/hashicorp/raft"

	"agentdrive/internal/errs"
)

// Future is the outcome of a Propose.
type Future struct {
	done  chan struct{} // closed once the fields below are written
	value []byte
	index uint64
	err   error
}

// Done is closed when the outcome is known.
func (f *Future) Done() <-chan struct{} { return f.done }

// Result waits for the outcome: what the Applier returned and the index of
// the entry. Error kinds: errs.NotLeader, the entry was not appended, the
// hint is the leader's address if known; errs.Unavailable, nobody knows
// whether it will be applied; errs.Invalid, too long, not appended.
func (f *Future) Result() (value []byte, index uint64, err error) {
	<-f.done
	return f.value, f.index, f.err
}

// pending holds the futures whose outcome is not known, to answer them when
// the group stops: the library drops what it has queued then.
type pending struct {
	mu      sync.Mutex // guards the fields below and the completion of futures
	futures map[*Future]struct{}
	closed  error
}

func (p *pending) add(f *Future) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed == nil {
		p.futures[f] = struct{}{}
	}
	return p.closed
}

// complete ends f unless close did.
func (p *pending) complete(f *Future, value []byte, index uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.futures[f]; !ok {
		return
	}
	delete(p.futures, f)
	f.value, f.index, f.err = value, index, err
	close(f.done)
}

func (p *pending) close(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed == nil {
		p.closed = err
	}
	for f := range p.futures {
		f.err = err
		close(f.done)
	}
	clear(p.futures)
}

// Propose appends cmd to the log if this server leads. Entries of one caller
// are appended in the order of the calls. It returns at once, except that it
// waits while Raft's queue is full; cmd must not be modified afterwards.
func (g *Group) Propose(cmd []byte) *Future {
	f := &Future{done: make(chan struct{})}
	err := g.pending.add(f)
	if err != nil {
		f.err = err
		close(f.done)
		return f
	}
	if len(cmd) > MaxEntry {
		g.pending.complete(f, nil, 0, errs.E("consensus.propose", errs.Invalid, fmt.Sprintf("entry of %d bytes, at most %d", len(cmd), MaxEntry), nil))
		return f
	}
	begun := time.Now()
	rf := g.raft.Apply(cmd, 0)
	go func() {
		g.complete(f, rf)
		g.log.metrics.committed(len(cmd), time.Since(begun))
	}()
	return f
}

// complete waits for the library and ends f. When the group stops the wait
// may not end; the goroutine is then left behind, f is not.
func (g *Group) complete(f *Future, rf raft.ApplyFuture) {
	if err := rf.Error(); err != nil {
		g.pending.complete(f, nil, 0, g.raftError("consensus.propose", err))
		return
	}
	switch r := rf.Response().(type) {
	case error:
		g.pending.complete(f, nil, rf.Index(), errs.E("consensus.propose", errs.Unavailable, "committed, but this server could not apply it", r))
	case []byte:
		g.pending.complete(f, r, rf.Index(), nil)
	default:
		g.pending.complete(f, nil, rf.Index(), nil)
	}
}
