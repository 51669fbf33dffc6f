package core

import (
	"sort"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
)

// Opening a session may make the directories of its subtree: a change of the
// namespace that is no operation of a session, and whose place the leader does
// not know. It is tried without making them first; only if they are missing
// every lease of the drive is recalled, and none is given until it is done.

// openSession proposes an OpenSession.
func (s *Server) openSession(st *stream, open meta.Open) {
	d := s.drives[open.Capability.Drive]
	if !open.CreatePath || open.Capability.ReadOnly || d == nil || !d.leased {
		s.enqueue(queued{item: state.Item{Internal: &state.OpenSession{Open: open}}, stream: st})
		return
	}
	open.CreatePath = false
	s.enqueue(queued{item: state.Item{Internal: &state.OpenSession{Open: open}}, stream: st, mayCreate: true})
}

// openMissed goes on when the subtree of an OpenSession was not there.
func (s *Server) openMissed(q *queued, o meta.Outcome) bool {
	if !q.mayCreate || o.Err == nil || o.Err.Kind != errs.NotExist {
		return false
	}
	open := q.item.Internal.(*state.OpenSession).Open
	d := s.drives[open.Capability.Drive]
	if d == nil || s.streams[q.stream.id] != q.stream {
		return false
	}
	open.CreatePath = true
	s.seal(d, func() {
		s.enqueue(queued{item: state.Item{Internal: &state.OpenSession{Open: open}}, stream: q.stream, sealed: d})
	})
	return true
}

// seal takes back every lease of a drive, then runs fn. Nothing is granted
// until unseal.
func (s *Server) seal(d *drive, fn func()) {
	if d.undeclared > 0 {
		s.park(d, func() { s.seal(d, fn) })
		return
	}
	d.sealed++
	inos := make([]meta.Ino, 0, len(d.nodes))
	for ino := range d.nodes {
		inos = append(inos, ino)
	}
	sort.Slice(inos, func(i, j int) bool { return inos[i] < inos[j] })
	var asks []ask
	for _, ino := range inos {
		n := d.nodes[ino]
		for i := range n.holders {
			asks = append(asks, ask{se: n.holders[i].se, ino: ino, mode: meta.RecallRelease})
		}
	}
	if len(asks) == 0 {
		fn()
		return
	}
	w := &wait{}
	w.then = func() {
		// What a log brought meanwhile belongs to somebody, too.
		d.sealed--
		s.seal(d, fn)
	}
	s.recall(w, asks)
}

// unseal ends seal: answers begun before are out of date.
func (s *Server) unseal(d *drive) {
	d.sealed--
	d.changes.wiped = s.lastToken
}
