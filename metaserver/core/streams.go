package core

import (
	"fmt"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
)

// onFrame takes one frame of a client.
func (s *Server) onFrame(st *stream, f meta.Frame) {
	if !s.leading {
		s.redirect(st)
		return
	}
	switch f := f.(type) {
	case *meta.Open:
		if len(f.Capability.Path) > meta.MaxPath || len(f.Client.Dir) > meta.MaxPath || len(f.Client.Host) > meta.MaxPath || len(f.Capability.Token) > meta.MaxPath {
			s.evict(st, errs.E("session.open", errs.NameTooLong, "a path or name in the request is too long", nil))
			return
		}
		if s.greet(st) {
			if f.Leases {
				s.driveOf(f.Capability.Drive).leased = true
			}
			s.openSession(st, *f)
		}
		return
	case *meta.Resume:
		if s.greet(st) {
			s.confirm(confirmable{stream: st, resume: f})
		}
		return
	}
	se := st.session
	if se == nil {
		if f, ok := f.(*meta.Reclaim); ok && st.greeted && st.earlyPins+len(f.Pins)+len(f.Leases) <= maxEarlyPins {
			st.early = append(st.early, f)
			st.earlyPins += len(f.Pins) + len(f.Leases)
			return
		}
		s.evict(st, protocolError("a frame came before the session was open"))
		return
	}
	switch f := f.(type) {
	case *meta.OpFrame:
		s.onOp(st, se, f)
	case *meta.Log:
		s.onLog(st, se, f)
	case *meta.Renew:
		s.progressed(se, f.Progress)
		s.ask(confirmable{stream: st, renew: f})
	case *meta.Ack:
		s.onAck(st, se, f)
	case *meta.Release:
		s.onRelease(st, se, f)
	case *meta.Credit:
		s.onCredit(st, se, f)
	case *meta.CancelOp:
		s.onCancelOp(st, se, f)
	case *meta.Reclaim:
		s.onReclaim(st, se, f)
	case *meta.Unpin:
		s.onUnpin(se, f)
	case *meta.Close:
		if !se.closing {
			se.closing = true
			s.enqueue(queued{item: state.Item{Internal: &state.CloseSession{Session: se.ID}}})
		}
	default:
		s.evict(st, protocolError(fmt.Sprintf("frame %d is not for a server, or not in use yet", f.FrameKind())))
	}
}

func protocolError(msg string) error { return errs.E("session.frame", errs.Invalid, msg, nil) }

// greet accepts one Open or Resume per stream.
func (s *Server) greet(st *stream) bool {
	if st.greeted {
		s.evict(st, protocolError("a stream carries one session"))
		return false
	}
	st.greeted = true
	return true
}

func (s *Server) onOp(st *stream, se *session, f *meta.OpFrame) {
	s.onAcked(st, se, f.Acked)
	if f.Op.Kind().IsRead() {
		w := confirmable{stream: st, op: f}
		switch f.Op.(type) {
		case *meta.SetLock:
			w.lock = s.lockAsked(st, f)
		case *meta.GetLock:
			w.lock = &read{stream: st, id: f.ID, op: f.Op}
		}
		s.ask(w)
		return
	}
	if se.inFlight[f.ID] || st.answered[f.ID] {
		return // sent again after a reconnect; the answer is on its way
	}
	if len(se.inFlight) >= meta.OpWindow {
		s.evict(st, protocolError("more operations in flight than the window allows"))
		return
	}
	item := state.Item{Session: se.ID, Epoch: se.Epoch, ID: f.ID, After: f.After, Op: f.Op}
	if itemSize(&item) > maxItem {
		s.evict(st, tooLarge())
		return
	}
	item.Acked, se.acked = se.acked, nil
	se.inFlight[f.ID] = true
	if !se.drive.leased || se.executed[f.ID] {
		s.enqueue(queued{replies: true, item: item}) // a repetition is answered from the record
		return
	}
	s.mutate(se, item)
}

func tooLarge() error {
	return protocolError("an operation is larger than an entry of the log can carry")
}

// onAcked takes acknowledgements. They travel into the log with the next
// mutation of the session, or by themselves when they become many.
func (s *Server) onAcked(st *stream, se *session, ids []meta.OpID) {
	var free []meta.Ino
	for _, id := range ids {
		delete(st.answered, id)
		delete(se.executed, id)
		ino, ok := se.owed[id]
		if !ok {
			continue
		}
		delete(se.owed, id)
		if se.owedPins[ino]--; se.owedPins[ino] > 0 {
			continue
		}
		delete(se.owedPins, ino)
		if se.pins[ino] == 0 && se.reclaimed && s.orphans.unpin(orphanKey{se.Drive, ino}, se.ID) {
			free = append(free, ino)
		}
	}
	s.proposeUnpin(se.ID, free)
	se.acked = append(se.acked, ids...)
	if len(se.acked) >= meta.OpWindow/4 {
		s.flushAcked(se)
	}
}

func (s *Server) flushAcked(se *session) {
	if len(se.acked) > 0 && !se.closing {
		s.enqueue(queued{item: state.Item{Internal: &state.AckReplies{Session: se.ID, Ops: se.acked}}})
		se.acked = nil
	}
}

// unwanted gives the recorded replies that a client which waits for open will
// not ask for. Both lists ascend.
func (se *session) unwanted(open []meta.OpID) []meta.OpID {
	var list []meta.OpID
	for _, id := range se.recorded {
		for len(open) > 0 && open[0] < id {
			open = open[1:]
		}
		if len(open) == 0 || open[0] != id {
			list = append(list, id)
		}
	}
	return list
}

// owe notes a recorded reply that gives an inode.
func (se *session) owe(id meta.OpID, ino meta.Ino) {
	if _, known := se.owed[id]; !known {
		se.owed[id] = ino
		se.owedPins[ino]++
	}
}

// holds reports whether the session pins an inode.
func (se *session) holds(ino meta.Ino) bool { return se.pins[ino] > 0 || se.owedPins[ino] > 0 }

// ask confirms for a client, unless too much of its waits.
func (s *Server) ask(w confirmable) {
	if w.stream.asked >= maxAsked {
		s.evict(w.stream, protocolError("too many reads without an answer"))
		return
	}
	w.stream.asked++
	s.confirm(w)
}

// confirm queues work for the next leadership confirmation (rule S3). One
// round is under way at a time: what arrives meanwhile needs the next, since
// the round began before it.
func (s *Server) confirm(w confirmable) {
	if s.breaks.noConfirm && w.resume == nil {
		s.confirmed(w)
		return
	}
	if s.confirming {
		s.next = append(s.next, w)
		return
	}
	s.waiting = append(s.waiting, w)
	s.startRound()
}

func (s *Server) startRound() {
	s.confirming = true
	s.round++
	s.emit(Confirm{s.round})
}

func (s *Server) onConfirmed(ev Confirmed) {
	if !s.confirming || ev.Round != s.round {
		return // of an earlier reign
	}
	s.confirming = false
	if ev.Err != nil {
		// No quorum answers for our term. If we were deposed the adapter says
		// so; otherwise the work waits for the next round.
		s.next = append(s.waiting, s.next...)
		s.waiting = nil
		if len(s.next) > 0 {
			s.waiting, s.next = s.next, nil
			s.startRound()
		}
		return
	}
	ready := s.waiting
	s.waiting, s.next = s.next, nil
	if len(s.waiting) > 0 {
		s.startRound()
	}
	for _, w := range ready {
		s.confirmed(w)
	}
}

func (s *Server) confirmed(w confirmable) {
	st := w.stream
	if s.streams[st.id] != st {
		if w.again != nil {
			s.dropRead(w.again)
		}
		return
	}
	switch {
	case w.again != nil:
		s.issueRead(w.again)
	case w.resume != nil:
		tok := s.openToken()
		s.reads[tok] = &read{stream: st, resume: w.resume}
		s.emit(ReadSession{tok, w.resume.Session, w.resume.Epoch, w.resume.Nonce})
	case st.session == nil:
	case w.lock != nil:
		s.lockConfirmed(w.lock)
	case w.renew != nil:
		st.asked--
		st.session.deadline = s.now + s.cfg.TTL + s.cfg.TTL/10
		s.flushAcked(st.session)
		s.emit(Send{st.id, &meta.Renewed{Seq: w.renew.Seq}})
	default:
		r := &read{stream: st, id: w.op.ID, op: w.op.Op, after: w.op.After}
		if _, ok := r.op.(*meta.Acquire); ok && st.session.drive.leased {
			s.acquire(r)
			return
		}
		s.startRead(r)
	}
}

// reply answers an operation and counts the pins that the answer gives.
func (s *Server) reply(st *stream, id meta.OpID, o meta.Outcome, grants []meta.Grant) {
	pins := st.session.pins
	switch res := o.Result.(type) {
	case *meta.EntryResult:
		pins[res.Attr.Ino]++
	case *meta.DirResult:
		if res.Plus {
			for i := range res.Entries {
				pins[res.Entries[i].Attr.Ino]++
			}
		}
	}
	s.emit(Send{st.id, &meta.Reply{ID: id, Outcome: o, Grants: grants}})
}

// onSessionRead finishes a Resume.
func (s *Server) onSessionRead(ev SessionRead) {
	r := s.reads[ev.Token]
	delete(s.reads, ev.Token)
	s.closeToken(ev.Token)
	if r == nil || s.streams[r.stream.id] != r.stream {
		return
	}
	if ev.Err != nil {
		s.evict(r.stream, ev.Err)
		return
	}
	se := s.sessions[ev.Result.Session]
	if se != nil && se.closing {
		// Not before it is certain: a client that hears of its end takes its
		// operations for never executed from then on.
		se.late = append(se.late, r.stream)
		return
	}
	if se == nil {
		s.evict(r.stream, errs.E("session.resume", errs.Expired, fmt.Sprintf("session %d has ended", ev.Result.Session), nil))
		return
	}
	se.reclaimed = false
	se.pins = map[meta.Ino]uint32{}
	se.claims, se.lockClaims = nil, nil
	s.logExecuted(se, ev.Result.LastLogSeq)
	se.received = se.LastLogSeq
	se.recorded = se.recorded[:0]
	for _, e := range ev.Replies {
		se.recorded = append(se.recorded, e.ID)
		se.executed[e.ID] = true
		if e.Ino != 0 {
			se.owe(e.ID, e.Ino)
		}
	}
	s.welcome(r.stream, se, ev.Result, true)
}

// welcome binds a stream to a session.
func (s *Server) welcome(st *stream, se *session, res *meta.SessionResult, resumed bool) {
	if old := se.stream; old != nil && old != st {
		s.drop(old)
	}
	se.stream, st.session = st, se
	se.deadline = s.now + s.cfg.TTL + s.cfg.TTL/10
	s.emit(Send{st.id, &meta.Welcome{
		Session: se.ID, Epoch: se.Epoch, Root: res.Root, LastLogSeq: res.LastLogSeq,
		TTLMillis: uint32(s.cfg.TTL / 1e6), Resumed: resumed,
	}})
	early := st.early
	st.early, st.earlyPins = nil, 0
	for _, f := range early {
		s.onReclaim(st, se, f)
	}
}

func (s *Server) onReclaim(st *stream, se *session, f *meta.Reclaim) {
	for _, p := range f.Pins {
		se.pins[p.Ino] += p.Count
	}
	se.claims = append(se.claims, f.Leases...)
	se.lockClaims = append(se.lockClaims, f.Locks...)
	if !f.Last || se.closing || !s.claim(se) {
		return
	}
	s.onAcked(st, se, se.unwanted(f.Open))
	se.recorded = nil
	se.reclaimed = true
	s.unpinUndeclared(se)
	s.repeatRecalls(se)
	s.nowDeclared(se)
}

func (s *Server) onUnpin(se *session, f *meta.Unpin) {
	var gone []meta.Ino
	for _, p := range f.Pins {
		if n := se.pins[p.Ino]; n > p.Count {
			se.pins[p.Ino] = n - p.Count
			continue
		}
		delete(se.pins, p.Ino)
		if se.owedPins[p.Ino] == 0 && s.orphans.unpin(orphanKey{se.Drive, p.Ino}, se.ID) {
			gone = append(gone, p.Ino)
		}
	}
	s.proposeUnpin(se.ID, gone)
}

func (s *Server) proposeUnpin(id meta.SessionID, inos []meta.Ino) {
	if len(inos) > 0 {
		s.enqueue(queued{item: state.Item{Internal: &state.UnpinOrphans{Session: id, Inos: inos}}})
	}
}
