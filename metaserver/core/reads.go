package core

import (
	"agentdrive/metaserver/meta"
)

// read is a read on its way: confirmed, then executed, perhaps more than once.
type read struct {
	stream *stream
	id     meta.OpID
	op     meta.Op
	after  uint64 // log record of the session that it must see
	resume *meta.Resume
	credit *credit

	token  Token             // of its execution
	asked  map[meta.Ino]bool // inodes whose holders of Write were asked since it arrived; look-up only
	rounds int               // executions so far
	wait   wait
	gates  *pending // of an Acquire
	refuse bool     // an Acquire that is answered without grants
	lock   *lockOp  // of a SetLock
}

// subject gives the inode that an operation asks about first; 0: none.
func subject(op meta.Op) (ino meta.Ino, dir bool) {
	switch op := op.(type) {
	case *meta.Lookup:
		return op.Parent, true
	case *meta.ReadDir:
		return op.Dir, true
	case *meta.GetAttr:
		return op.Ino, false
	case *meta.Readlink:
		return op.Ino, false
	case *meta.GetXattr:
		return op.Ino, false
	case *meta.ListXattr:
		return op.Ino, false
	case *meta.ReadMap:
		return op.Ino, false
	}
	return 0, false
}

// alive reports whether anybody waits for a read.
func (s *Server) alive(r *read) bool {
	return s.streams[r.stream.id] == r.stream && r.stream.session != nil
}

// startRead begins a confirmed read: what others hold for writing of its
// subject is asked for first.
func (s *Server) startRead(r *read) {
	if !s.alive(r) {
		s.dropRead(r)
		return
	}
	se := r.stream.session
	d := se.drive
	if !d.leased {
		s.issueRead(r)
		return
	}
	if r.after > se.LastLogSeq && r.after <= se.received {
		s.afterLog(se, r.after, func() { s.startRead(r) })
		return
	}
	ino, dir := subject(r.op)
	if s.undeclaredWriters(d) && (ino == 0 || d.kindOf(ino, se) != meta.LeaseWrite) {
		s.park(d, func() { s.startRead(r) })
		return
	}
	if s.breaks.queueReads && s.queueRead(r, ino) {
		return
	}
	if dir {
		s.noteLook(d, ino, se)
	}
	_, content := r.op.(*meta.ReadMap)
	if ino != 0 && s.needsFlush(r, ino) {
		s.flushFirst(r, []ask{s.askFlush(r, ino, content)})
		return
	}
	s.issueRead(r)
}

// needsFlush reports whether another session may hold changes of an inode that
// the read must see. A session that holds anything on the inode, as one whose
// ack somebody waits for, is answered from the state as it is (rule S2): nobody
// else holds it for writing then.
func (s *Server) needsFlush(r *read, ino meta.Ino) bool {
	se := r.stream.session
	return se.drive.othersWrite(se) && !r.asked[ino] && !s.breaks.noQuery &&
		se.drive.foreign(ino, se) == meta.LeaseWrite
}

// askFlush makes the holder of Write tell what it has: by Query the first
// time, by Downgrade when somebody looks again soon or wants content.
func (s *Server) askFlush(r *read, ino meta.Ino, lower bool) ask {
	n := r.stream.session.drive.nodes[ino]
	mode := meta.RecallQuery
	if lower || n.looked != 0 && s.now-n.looked <= s.lookAgain() {
		mode = meta.RecallDowngrade
	}
	n.looked = max(s.now, 1)
	for i := range n.holders {
		if h := &n.holders[i]; h.kind == meta.LeaseWrite {
			return ask{se: h.se, ino: ino, mode: mode}
		}
	}
	return ask{}
}

// flushFirst executes a read again when the holders have answered. Leadership
// is confirmed again: that may have taken long.
func (s *Server) flushFirst(r *read, asks []ask) {
	if r.asked == nil {
		r.asked = map[meta.Ino]bool{}
	}
	for _, a := range asks {
		r.asked[a.ino] = true
	}
	s.stats.ReadRepeats++
	r.wait = wait{then: func() {
		if !s.alive(r) {
			s.dropRead(r)
			return
		}
		s.confirm(confirmable{stream: r.stream, again: r})
	}}
	s.recall(&r.wait, asks)
}

func (s *Server) issueRead(r *read) {
	r.rounds++
	r.token = s.openToken()
	s.reads[r.token] = r
	s.emit(Read{r.token, r.stream.session.Drive, r.op})
}

// dropRead forgets a read that nobody waits for.
func (s *Server) dropRead(r *read) {
	if r.gates != nil {
		s.unlock(r.gates, false)
	}
}

func (s *Server) onReadDone(ev ReadDone) {
	r := s.reads[ev.Token]
	if r == nil {
		return // of an earlier reign
	}
	delete(s.reads, ev.Token)
	defer s.closeToken(ev.Token)
	if !s.alive(r) {
		s.dropRead(r) // the client asks again on its new stream
		return
	}
	if r.credit != nil {
		s.creditRead(r.credit, &ev.Outcome)
		return
	}
	se := r.stream.session
	d := se.drive
	if !d.leased {
		s.answer(r, ev.Outcome, nil)
		return
	}
	if res, ok := ev.Outcome.Result.(*meta.AcquireResult); ok {
		s.acquireRead(r, res)
		return
	}
	if s.undeclaredWriters(d) && !s.ownsAnswer(r, &ev.Outcome) {
		s.park(d, func() { s.startRead(r) })
		return
	}
	if asks := s.flushesOf(r, &ev.Outcome); len(asks) > 0 {
		s.flushFirst(r, asks)
		return
	}
	s.answer(r, ev.Outcome, s.grantsOfRead(r, &ev.Outcome))
}

// flushesOf lists what others hold for writing of the inodes that an answer
// tells about (M3). From the third time on the directory is lowered, so that
// nothing new appears in it without passing the servers: it comes to an end.
func (s *Server) flushesOf(r *read, o *meta.Outcome) []ask {
	se := r.stream.session
	if !se.drive.othersWrite(se) {
		return nil
	}
	var asks []ask
	children(o, func(a *meta.Attr) {
		if s.needsFlush(r, a.Ino) {
			asks = append(asks, s.askFlush(r, a.Ino, false))
		}
	})
	if len(asks) == 0 || r.rounds < 3 {
		return asks
	}
	if dir, ok := subject(r.op); ok && se.drive.foreign(dir, se) == meta.LeaseWrite {
		asks = append(asks, s.askFlush(r, dir, true))
	}
	return asks
}

// children calls fn for each inode whose attributes an answer gives by name.
func children(o *meta.Outcome, fn func(*meta.Attr)) {
	switch res := o.Result.(type) {
	case *meta.EntryResult:
		fn(&res.Attr)
	case *meta.DirResult:
		if res.Plus {
			for i := range res.Entries {
				fn(&res.Entries[i].Attr)
			}
		}
	}
}

// answer sends the outcome of a read.
func (s *Server) answer(r *read, o meta.Outcome, grants []meta.Grant) {
	r.stream.asked--
	s.reply(r.stream, r.id, o, grants)
}

// queueRead is what S2 forbids, for the test that breaks it.
func (s *Server) queueRead(r *read, ino meta.Ino) bool {
	if !r.stream.session.drive.gated(gateKey{ino: ino}, true) {
		return false
	}
	p := &pending{drive: r.stream.session.drive, se: r.stream.session, keys: []lockKey{{gateKey{ino: ino}, gateAlone}}}
	p.inside = func() {
		s.unlock(p, false)
		s.issueRead(r)
	}
	s.lock(p)
	return true
}
