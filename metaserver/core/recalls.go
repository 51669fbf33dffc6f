package core

import (
	"sort"

	"agentdrive/metaserver/meta"
)

// ask is one thing wanted of a holder.
type ask struct {
	se    *session
	ino   meta.Ino
	mode  meta.RecallMode
	names []string
}

// recall is one Recall frame and what waits for its answer.
type recall struct {
	id       uint64 // 0: not sent on the session's stream
	items    []*recallItem
	began    Time
	deadline Time // without answer or progress the session ends
	acked    bool // not effective before the log has been executed up to seq
	seq      uint64
	over     bool
	less     []meta.Grant
}

type recallItem struct {
	ask
	waits []*wait
}

// leaves gives the most that a mode leaves to the holder.
func leaves(m meta.RecallMode) meta.LeaseKind {
	switch m {
	case meta.RecallQuery, meta.RecallDrain:
		return meta.LeaseWrite // nothing by the answer itself
	case meta.RecallRelease:
		return meta.LeaseNone
	}
	return meta.LeaseRead
}

// lowers reports whether the answer to a mode takes something from the holder.
func lowers(m meta.RecallMode) bool { return m != meta.RecallQuery && m != meta.RecallDrain }

// owesLess takes an item off those that stand in the way of grants.
func (se *session) owesLess(it *recallItem) {
	if !lowers(it.mode) {
		return
	}
	if se.owing[it.ino]--; se.owing[it.ino] == 0 {
		delete(se.owing, it.ino)
	}
}

// recall asks holders for leases, one frame for each, and lets w wait for the
// answers. Later recalls of a session do not wait for earlier ones.
func (s *Server) recall(w *wait, asks []ask) {
	sort.SliceStable(asks, func(i, j int) bool {
		a, b := &asks[i], &asks[j]
		if a.se != b.se {
			return a.se.ID < b.se.ID
		}
		return a.ino < b.ino
	})
	for len(asks) > 0 {
		n := 1
		for n < len(asks) && asks[n].se == asks[0].se {
			n++
		}
		s.recallOf(w, asks[0].se, asks[:n])
		asks = asks[n:]
	}
}

func (s *Server) recallOf(w *wait, se *session, asks []ask) {
	r := &recall{began: s.now, deadline: s.now + s.cfg.TTL}
	for _, a := range asks {
		if it := se.joinable(&a); it != nil {
			it.waits = append(it.waits, w)
			w.left++
			continue
		}
		if n := len(r.items); n > 0 && a.mode == meta.RecallNames && r.items[n-1].ino == a.ino && r.items[n-1].mode == a.mode {
			r.items[n-1].names = append(r.items[n-1].names[:len(r.items[n-1].names):len(r.items[n-1].names)], a.names...)
			continue
		}
		r.items = append(r.items, &recallItem{ask: a, waits: []*wait{w}})
		if lowers(a.mode) {
			se.owing[a.ino]++
			s.refuseWaiting(se, a.ino)
		}
		w.left++
		s.stats.Recalls[a.mode]++
		if lowers(a.mode) && se.drive.kindOf(a.ino, se) == meta.LeaseWrite {
			s.noteWriteRecalled(se.drive, a.ino)
		}
	}
	if len(r.items) > 0 {
		se.recalls = append(se.recalls, r)
		s.dueBy(r.deadline)
		s.sendRecall(se, r)
	}
}

// joinable finds a recall without an effect that does what a asks for. A Query
// is never shared: what the holder did between it and now is not in its answer.
// Behind a recall that lowers the lease nothing can have been done.
func (se *session) joinable(a *ask) *recallItem {
	switch a.mode {
	case meta.RecallQuery, meta.RecallDowngrade, meta.RecallRelease:
	default:
		return nil
	}
	if se.owing[a.ino] == 0 {
		return nil
	}
	for _, r := range se.recalls {
		for _, it := range r.items {
			if it.ino == a.ino && lowers(it.mode) && leaves(it.mode) <= leaves(a.mode) {
				return it
			}
		}
	}
	return nil
}

func (s *Server) sendRecall(se *session, r *recall) {
	if se.stream == nil || !se.reclaimed {
		return // sent when the session is back and has told what it holds
	}
	se.lastRecall++
	r.id = se.lastRecall
	f := &meta.Recall{ID: r.id}
	for _, it := range r.items {
		f.Items = append(f.Items, meta.RecallItem{Ino: it.ino, Mode: it.mode, Names: it.names})
	}
	s.emit(Send{se.stream.id, f})
}

// onAck takes a holder's answer. Its log may not use any more what it gave up;
// for others the answer counts when the log has been executed so far.
func (s *Server) onAck(st *stream, se *session, f *meta.Ack) {
	var r *recall
	for _, x := range se.recalls {
		if x.id == f.Recall && !x.acked && x.id != 0 {
			r = x
		}
	}
	if r == nil {
		return // of an old stream
	}
	if f.LogSeq > se.received {
		s.evict(st, protocolError("an ack names log records that did not come"))
		return
	}
	r.acked, r.seq, r.less = true, f.LogSeq, f.Less
	for _, it := range r.items {
		if n := se.drive.nodes[it.ino]; n != nil {
			if h := n.find(se); h != nil {
				h.may = min(h.may, r.kept(it))
			}
		}
	}
	s.afterLog(se, f.LogSeq, func() { s.recallOver(se, r) })
}

// kept gives what a holder keeps at most by its answer.
func (r *recall) kept(it *recallItem) meta.LeaseKind {
	kind := leaves(it.mode)
	for _, g := range r.less {
		if g.Ino == it.ino {
			kind = min(kind, g.Kind)
		}
	}
	return kind
}

// recallOver makes an answer count.
func (s *Server) recallOver(se *session, r *recall) {
	if se.ended || !r.acked || r.over || r.seq > se.LastLogSeq {
		return // sent again meanwhile, and perhaps answered again
	}
	r.over = true
	for i, x := range se.recalls {
		if x == r {
			se.recalls = append(se.recalls[:i], se.recalls[i+1:]...)
			break
		}
	}
	for _, it := range r.items {
		s.lower(se, it.ino, r.kept(it))
		se.owesLess(it)
		s.itemOver(it)
	}
	s.emit(HandedOver{s.now - r.began})
	s.stats.RecallsDone++
	s.stats.RecallTime += s.now - r.began
	s.stats.RecallLongest = max(s.stats.RecallLongest, s.now-r.began)
}

func (s *Server) itemOver(it *recallItem) {
	for _, w := range it.waits {
		s.done(w)
	}
	it.waits = nil
}

// repeatRecalls sends again what a session that came back still owes, by what
// it has declared to hold.
func (s *Server) repeatRecalls(se *session) {
	old := se.recalls
	se.recalls = nil
	for _, r := range old {
		r.acked, r.id = false, 0
		r.deadline = s.now + s.cfg.TTL // it could not answer before
		var open []*recallItem
		for _, it := range r.items {
			kind := se.drive.kindOf(it.ino, se)
			if kind == meta.LeaseNone || it.mode == meta.RecallDowngrade && kind <= meta.LeaseRead ||
				it.mode == meta.RecallQuery && kind < meta.LeaseWrite {
				se.owesLess(it)
				s.itemOver(it)
				continue
			}
			if it.mode == meta.RecallDrain {
				se.leases[it.ino].find(se).draining = true
			}
			open = append(open, it)
		}
		if r.items = open; len(open) > 0 {
			se.recalls = append(se.recalls, r)
			s.sendRecall(se, r)
		}
	}
}

// progressed prolongs recalls whose flush moves.
func (s *Server) progressed(se *session, ids []uint64) {
	for _, r := range se.recalls {
		for _, id := range ids {
			if r.id == id {
				r.deadline = s.now + s.cfg.TTL
			}
		}
	}
}

// recallsDue gives the first moment at which the session is overdue with an
// answer, or 0.
func (se *session) recallsDue() Time {
	var at Time
	for _, r := range se.recalls {
		if !r.acked && (at == 0 || r.deadline < at) {
			at = r.deadline
		}
	}
	return at
}
