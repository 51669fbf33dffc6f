package core

import (
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
)

// pending is an operation that passes gates: a mutation on its way into the
// log, or an Acquire.
type pending struct {
	drive  *drive
	se     *session
	item   state.Item // a mutation
	set    TouchSet   // of it
	inside func()     // all gates are held
	told   []told     // recalls made since the gates are held
	keys   []lockKey  // in order
	next   int        // how many of them are held
	after  uint64     // log record that must be executed before a look
	wait   wait       // for recalls

	// lookedAt is the token of the read that found set; 0: the operation
	// itself names all it touches.
	lookedAt Token
}

// told is a recall that leaves the holder a lease, so that it is not repeated.
type told struct {
	se  *session
	key gateKey
}

func (p *pending) hasTold(se *session, k gateKey) bool {
	for _, t := range p.told {
		if t.se == se && t.key == k {
			return true
		}
	}
	return false
}

// mutate takes an operation through its gates into the log (rule S1).
func (s *Server) mutate(se *session, item state.Item) {
	p := &pending{drive: se.drive, se: se, item: item, after: min(item.After, se.received)}
	p.inside = func() { s.gated(p) }
	s.enter(p)
}

// enter begins, or begins again with no gate held.
func (s *Server) enter(p *pending) {
	if p.se.ended {
		s.abandon(p)
		return
	}
	if s.needsLook(p) || p.drive.undeclared > 0 && !s.breaks.noReclaimWait {
		s.look(p)
		return
	}
	p.set = namedIn(p.item.Op)
	p.keys = gateKeys(&p.set)
	s.lock(p)
}

// needsLook reports whether the state must tell what p touches: the inodes
// behind names that go, and the one behind a name that may exist, if anybody
// else has something on it.
func (s *Server) needsLook(p *pending) bool {
	switch op := p.item.Op.(type) {
	case *meta.Unlink, *meta.Rmdir, *meta.Rename:
		return true
	case *meta.Make:
		return !op.Excl && p.drive.othersHold(p.se)
	}
	return false
}

// look reads what p touches, once the session's own log has gone as far as
// the operation builds on it.
func (s *Server) look(p *pending) {
	s.afterLog(p.se, p.after, func() {
		if p.se.ended {
			s.abandon(p)
			return
		}
		s.closeToken(p.lookedAt)
		p.lookedAt = s.openToken()
		s.looks[p.lookedAt] = p
		s.stats.Looks++
		s.emit(ReadTouched{p.lookedAt, p.drive.id, p.item.Op})
	})
}

func (s *Server) onTouched(ev Touched) {
	p := s.looks[ev.Token]
	if p == nil {
		return // of an earlier reign
	}
	delete(s.looks, ev.Token)
	if p.se.ended {
		s.abandon(p)
		return
	}
	set := ev.Set
	if ev.Err != nil {
		set = namedIn(p.item.Op)
	}
	if s.mustWait(p, &set) {
		s.unlock(p, false)
		p.told = nil
		s.park(p.drive, func() { s.enter(p) })
		return
	}
	p.set = set
	keys := gateKeys(&set)
	if p.next > 0 && p.next == len(p.keys) && covers(p.keys, keys) {
		p.inside()
		return
	}
	// Other keys than those held: from the beginning, but for what was read.
	at := p.lookedAt
	p.lookedAt = 0
	s.unlock(p, false)
	p.lookedAt = at
	p.told = nil
	p.keys = keys
	s.lock(p)
}

// covers reports whether all of the keys want are among those held, as strong.
func covers(held, want []lockKey) bool {
	i := 0
	for _, w := range want {
		for i < len(held) && held[i].less(w.gateKey) {
			i++
		}
		if i == len(held) || held[i].gateKey != w.gateKey || held[i].mode < w.mode {
			return false
		}
	}
	return true
}

// gated goes on with all gates held: what is touched is certain, others are
// recalled, then it is proposed. It is run again whenever that took time.
func (s *Server) gated(p *pending) {
	if p.se.ended {
		s.abandon(p)
		return
	}
	if p.lookedAt == 0 && s.needsLook(p) || p.lookedAt != 0 && s.outdated(p) && !s.breaks.noRecheck {
		s.look(p)
		return
	}
	asks := s.planRecalls(p)
	if len(asks) > 0 {
		p.wait = wait{then: func() { s.gated(p) }}
		if s.breaks.noWait {
			p.wait.then = func() {}
		}
		s.recall(&p.wait, asks)
		if !s.breaks.noWait {
			return
		}
	}
	for _, dir := range p.set.Dirs {
		s.noteChange(p.drive, dir, p.se)
	}
	s.enqueue(queued{replies: true, item: p.item, gated: p})
}

// outdated reports whether something that p's set depends on has changed since
// it was read.
func (s *Server) outdated(p *pending) bool {
	c := &p.drive.changes
	for _, n := range p.set.Names {
		if c.since(gateKey{n.Dir, n.Name}, true, p.lookedAt) || c.since(gateKey{ino: n.Dir}, false, p.lookedAt) {
			return true
		}
	}
	return c.wiped >= p.lookedAt
}

// abandon ends an operation whose session has ended.
func (s *Server) abandon(p *pending) {
	s.unlock(p, false)
	s.closeToken(p.lookedAt)
}

// planRecalls lists what other sessions must give up before p changes it. The
// requester's own leases change with its reply (it forgets by itself).
func (s *Server) planRecalls(p *pending) []ask {
	d := p.drive
	if !d.othersHold(p.se) {
		return nil
	}
	var asks []ask
	tell := func(ino meta.Ino, k gateKey, mode meta.RecallMode, names []string) {
		n := d.nodes[ino]
		if n == nil {
			return
		}
		for i := range n.holders {
			h := &n.holders[i]
			if h.se == p.se || h.kind != meta.LeaseWrite && p.hasTold(h.se, k) {
				continue
			}
			p.told = append(p.told, told{h.se, k})
			asks = append(asks, ask{se: h.se, ino: ino, mode: mode, names: names})
		}
	}
	named := map[meta.Ino]bool{} // look-up only
	for _, n := range p.set.Names {
		named[n.Dir] = true
		tell(n.Dir, gateKey{n.Dir, n.Name}, meta.RecallNames, []string{n.Name})
	}
	for _, dir := range p.set.Dirs {
		if !named[dir] {
			tell(dir, gateKey{ino: dir}, meta.RecallAttr, nil)
		}
	}
	mode := meta.RecallRelease
	if keepsContent(p.item.Op) {
		mode = meta.RecallAttr
	}
	for _, ino := range p.set.Inos {
		tell(ino, gateKey{ino: ino}, mode, nil)
	}
	return asks
}

// keepsContent reports whether an operation changes nothing but attributes of
// the inodes it touches.
func keepsContent(op meta.Op) bool {
	switch op := op.(type) {
	case *meta.SetAttr:
		return op.Set&meta.SetSize == 0
	case *meta.SetXattr, *meta.RemoveXattr, *meta.Link:
		return true
	}
	return false
}

// namedIn gives what an operation touches as far as it says so itself.
func namedIn(op meta.Op) TouchSet {
	name := func(dir meta.Ino, name string) TouchSet {
		return TouchSet{Names: []state.NameKey{{Dir: dir, Name: name}}, Dirs: []meta.Ino{dir}}
	}
	switch op := op.(type) {
	case *meta.Make:
		return name(op.Parent, op.Name)
	case *meta.Link:
		set := name(op.Parent, op.Name)
		set.Inos = []meta.Ino{op.Ino}
		return set
	case *meta.Unlink:
		return name(op.Parent, op.Name)
	case *meta.Rmdir:
		return name(op.Parent, op.Name)
	case *meta.Rename:
		return TouchSet{
			Names: []state.NameKey{{Dir: op.OldParent, Name: op.OldName}, {Dir: op.NewParent, Name: op.NewName}},
			Dirs:  []meta.Ino{op.OldParent, op.NewParent},
		}
	case *meta.SetAttr:
		return TouchSet{Inos: []meta.Ino{op.Ino}}
	case *meta.SetXattr:
		return TouchSet{Inos: []meta.Ino{op.Ino}}
	case *meta.RemoveXattr:
		return TouchSet{Inos: []meta.Ino{op.Ino}}
	case *meta.Write:
		return TouchSet{Inos: []meta.Ino{op.Ino}}
	}
	return TouchSet{}
}

// opDone opens the gates of an operation whose entry was applied, or never will
// be.
func (s *Server) opDone(q *queued) {
	if p := q.gated; p != nil {
		s.unlock(p, true)
	}
}

// executedOnce notes a mutation that was applied, until it is acknowledged.
func (se *session) executedOnce(id meta.OpID, o *meta.Outcome) {
	if o.Err == nil || o.Err.Kind != errs.Again {
		se.executed[id] = true
	}
}
