package consensus

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Leadership is a change of this server's role.
type Leadership struct {
	// Leading: this server leads Term and has applied everything that was
	// committed before. Otherwise: it no longer leads Term, in which it had
	// reported Leading.
	Leading bool
	Term    uint64
}

// leadership is what is known about leading, and the queue of its changes.
type leadership struct {
	mu    sync.Mutex // guards the fields below
	epoch uint64     // counts changes reported by Raft; a barrier of an older epoch is void
	term  uint64     // led, barrier applied; 0: none
	queue []Leadership
	away  map[uint32]time.Time // peers that miss heartbeats -> last contact

	more chan struct{}   // capacity 1: queue grew
	out  chan Leadership // see Group.Leadership
}

func (l *leadership) init() {
	l.away = map[uint32]time.Time{}
	l.more = make(chan struct{}, 1)
	l.out = make(chan Leadership)
}

func (l *leadership) pushLocked(e Leadership) {
	l.queue = append(l.queue, e)
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// gained starts an epoch.
func (l *leadership) gained() (epoch uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch++
	return l.epoch
}

// lost ends the epoch.
func (l *leadership) lost() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch++
	if l.term != 0 {
		l.pushLocked(Leadership{Term: l.term})
		l.term = 0
	}
	clear(l.away)
}

// ready records that the barrier of epoch was applied in term.
func (l *leadership) ready(epoch, term uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoch != epoch {
		return false
	}
	l.term = term
	l.pushLocked(Leadership{Leading: true, Term: term})
	return true
}

func (l *leadership) observe(data any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch o := data.(type) {
	case raft.FailedHeartbeatObservation:
		l.away[parseID(o.PeerID)] = o.LastContact
	case raft.ResumedHeartbeatObservation:
		delete(l.away, parseID(o.PeerID))
	}
}

func (l *leadership) unreachable() map[uint32]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[uint32]string{}
	for id, at := range maps.All(l.away) {
		out[id] = "never"
		if !at.IsZero() {
			out[id] = at.UTC().Format(time.RFC3339Nano)
		}
	}
	return out
}

// Leadership delivers every change in order; none is dropped, so the caller
// must read. It is closed by Shutdown.
func (g *Group) Leadership() <-chan Leadership { return g.lead.out }

// IsLeading tells whether this server believes that it leads and has applied
// everything before. Only Confirm knows whether the belief is true now.
func (g *Group) IsLeading() (term uint64, ok bool) {
	g.lead.mu.Lock()
	term = g.lead.term
	g.lead.mu.Unlock()
	return term, term != 0 && g.leads(term)
}

// leads tells whether Raft here leads term. Terms only grow, so the state
// seen between two equal readings belongs to them.
func (g *Group) leads(term uint64) bool {
	return g.raft.CurrentTerm() == term && g.raft.State() == raft.Leader && g.raft.CurrentTerm() == term
}

// watchLeadership turns what Raft reports into Leadership.
func (g *Group) watchLeadership() {
	defer g.bg.Done()
	observations := make(chan raft.Observation, 16)
	observer := raft.NewObserver(observations, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.FailedHeartbeatObservation, raft.ResumedHeartbeatObservation:
			return true
		}
		return false
	})
	g.raft.RegisterObserver(observer)
	defer g.raft.DeregisterObserver(observer)

	g.bg.Add(1)
	go g.deliver()
	for {
		select {
		case leading := <-g.notify:
			if !leading {
				g.lead.lost()
				continue
			}
			g.bg.Add(1)
			go g.barrier(g.lead.gained())
		case o := <-observations:
			g.lead.observe(o.Data)
		case <-g.stop:
			g.lead.lost()
			return
		}
	}
}

// barrier applies everything that earlier leaders committed. Until then this
// leader's commit index may be behind theirs (Raft, section 8).
func (g *Group) barrier(epoch uint64) {
	defer g.bg.Done()
	term := g.raft.CurrentTerm()
	f := g.raft.Barrier(0)
	if err := g.await(context.Background(), "consensus.barrier", f); err != nil {
		return // leadership or the group is gone; Raft reports that
	}
	if !g.leads(term) {
		return
	}
	if i, ok := f.(interface{ Index() uint64 }); ok {
		g.applied.advance(i.Index()) // the barrier itself never reaches the state
	}
	if g.lead.ready(epoch, term) {
		g.cfg.Log.Info("leading", "term", term)
	}
}

// deliver hands out the queue, so that a slow reader does not hold up Raft.
func (g *Group) deliver() {
	defer g.bg.Done()
	defer close(g.lead.out)
	for {
		g.lead.mu.Lock()
		var next []Leadership
		next, g.lead.queue = g.lead.queue, nil
		g.lead.mu.Unlock()
		for _, e := range next {
			select {
			case g.lead.out <- e:
			case <-g.stop:
				return
			}
		}
		select {
		case <-g.lead.more:
		case <-g.stop:
			return
		}
	}
}
