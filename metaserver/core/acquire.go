package core

import (
	"slices"

	"agentdrive/metaserver/meta"
)

// An Acquire asks for leases before a local operation. It takes the gates of
// what it wants for writing, so that it is never answered between the recalls
// and the end of somebody else's mutation; then the state tells which of the
// inodes are directories. It waits for holders of files, never of directories:
// what cannot be had at once is refused, and the operation goes to the servers.

// acquire begins a confirmed Acquire.
func (s *Server) acquire(r *read) {
	if !s.alive(r) {
		return
	}
	se := r.stream.session
	d := se.drive
	if d.undeclared > 0 && !s.breaks.noReclaimWait {
		s.park(d, func() { s.acquire(r) })
		return
	}
	if r.after > se.LastLogSeq && r.after <= se.received {
		s.afterLog(se, r.after, func() { s.acquire(r) })
		return
	}
	s.stats.Acquires++
	for _, w := range r.op.(*meta.Acquire).Wants {
		r.refuse = r.refuse || se.owing[w.Ino] > 0
	}
	if r.refuse {
		s.issueRead(r)
		return
	}
	p := &pending{drive: d, se: se}
	for _, w := range r.op.(*meta.Acquire).Wants {
		if w.Kind == meta.LeaseWrite {
			p.keys = append(p.keys, lockKey{gateKey{ino: w.Ino}, gateAlone})
		}
	}
	p.keys = sortKeys(p.keys)
	p.inside = func() {
		se.acquiring = slices.DeleteFunc(se.acquiring, func(x *read) bool { return x == r })
		if !s.alive(r) {
			s.dropRead(r)
			return
		}
		s.issueRead(r)
	}
	r.gates = p
	se.acquiring = append(se.acquiring, r)
	s.lock(p)
}

// refuseWaiting answers the Acquires of a session that wait at gates and want
// an inode about which the session owes an ack now: the ack may have to wait
// for pages that are locked until the Acquire is answered.
func (s *Server) refuseWaiting(se *session, ino meta.Ino) {
	var out []*read
	se.acquiring = slices.DeleteFunc(se.acquiring, func(r *read) bool {
		for _, w := range r.op.(*meta.Acquire).Wants {
			if w.Ino == ino {
				out = append(out, r)
				return true
			}
		}
		return false
	})
	for _, r := range out {
		r.refuse = true
		s.leave(r.gates)
		r.gates = nil
		if s.alive(r) {
			s.issueRead(r)
		}
	}
}

// acquireRounds bounds how often an Acquire looks again before it is answered
// with what it has.
const acquireRounds = 4

// acquireRead decides what to recall, or answers.
func (s *Server) acquireRead(r *read, res *meta.AcquireResult) {
	wants := r.op.(*meta.Acquire).Wants
	for len(res.Attrs) < len(wants) {
		res.Attrs = append(res.Attrs, meta.Attr{})
	}
	if !r.refuse && r.rounds < acquireRounds && s.mayGrant(r.stream.session) {
		if asks := s.acquireRecalls(r, res); len(asks) > 0 {
			s.flushFirst(r, asks)
			return
		}
		if s.acquireChanged(r, wants) {
			s.issueRead(r)
			return
		}
	}
	se := r.stream.session
	g := granting{s: s, se: se}
	if s.mayGrant(se) && !r.refuse {
		for i, w := range wants {
			s.acquireGrant(&g, r, w, &res.Attrs[i])
		}
	}
	s.stats.Refused += uint64(len(wants) - len(g.list))
	s.dropRead(r)
	s.answer(r, meta.Outcome{Result: res}, g.list)
}

// acquireRecalls lists what others must give up for the wants of r; nothing
// when one of them is refused anyway.
func (s *Server) acquireRecalls(r *read, res *meta.AcquireResult) []ask {
	se := r.stream.session
	d := se.drive
	var asks []ask
	refused := false
	for i, w := range r.op.(*meta.Acquire).Wants {
		a := &res.Attrs[i]
		if a.Ino == 0 || a.Ino != w.Ino {
			refused = refused || w.Kind == meta.LeaseWrite
			continue
		}
		n := d.nodes[w.Ino]
		foreign := d.foreign(w.Ino, se)
		switch {
		case w.Kind == meta.LeaseRead && foreign == meta.LeaseWrite:
			if s.needsFlush(r, w.Ino) {
				asks = append(asks, s.askFlush(r, w.Ino, true))
			}
		case w.Kind != meta.LeaseWrite:
		case se.ReadOnly || s.shared(d, w.Ino):
			refused = true
		case foreign == meta.LeaseNone || s.breaks.grantDespiteOther:
		case a.IsDir():
			refused = true
			if s.promotes(d, w.Ino, se) {
				s.drain(n, se)
			}
		default:
			for j := range n.holders {
				if h := &n.holders[j]; h.se != se {
					asks = append(asks, ask{se: h.se, ino: w.Ino, mode: meta.RecallRelease})
				}
			}
		}
	}
	if refused {
		return nil
	}
	return asks
}

// drain asks the other holders of a directory to give it up without hurry.
func (s *Server) drain(n *node, se *session) {
	var asks []ask
	for i := range n.holders {
		if h := &n.holders[i]; h.se != se && !h.draining {
			h.draining = true
			asks = append(asks, ask{se: h.se, ino: n.ino, mode: meta.RecallDrain})
		}
	}
	s.recall(&wait{then: func() {}}, asks)
}

// acquireChanged reports whether attributes in the answer may be out of date.
func (s *Server) acquireChanged(r *read, wants []meta.Grant) bool {
	d := r.stream.session.drive
	if r.stream.session.logRemoved >= r.token {
		return true
	}
	for _, w := range wants {
		if d.changes.since(gateKey{ino: w.Ino}, true, r.token) {
			return true
		}
	}
	return false
}

// acquireGrant grants one want, or as much of it as can be had.
func (s *Server) acquireGrant(g *granting, r *read, w meta.Grant, a *meta.Attr) {
	d, k := g.se.drive, gateKey{ino: w.Ino}
	if a.Ino == 0 || (d.changes.since(k, true, r.token) || g.se.logRemoved >= r.token) && !s.breaks.staleGrant {
		return
	}
	kind := meta.LeaseRead
	switch {
	case w.Kind == meta.LeaseNone:
		return
	case w.Kind == meta.LeaseRead:
		if !s.breaks.staleGrant && d.gated(k, true) && !r.gates.holdsKey(k) {
			return
		}
	case !g.se.ReadOnly && !s.shared(d, w.Ino) && (d.foreign(w.Ino, g.se) == meta.LeaseNone || s.breaks.grantDespiteOther):
		kind = meta.LeaseWrite
	}
	if a.IsDir() {
		g.dir(w.Ino, kind)
	} else {
		g.inode(w.Ino, kind)
	}
}

func (p *pending) holdsKey(k gateKey) bool {
	for i := range p.keys[:p.next] {
		if p.keys[i].gateKey == k {
			return true
		}
	}
	return false
}
