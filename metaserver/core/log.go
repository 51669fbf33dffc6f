package core

import (
	"sort"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
)

// Bounds of an entry: its items (session ids count on at most 4,096), and the
// estimated bytes of one of them, which leave room for the estimate's error.
const (
	maxItems = 1024
	maxItem  = meta.MaxEntry * 3 / 4
)

func (s *Server) enqueue(q queued) { s.queue = append(s.queue, q) }

// flush proposes what waits, as few entries as fit.
func (s *Server) flush() {
	for len(s.queue) > 0 && len(s.inFlight) < s.cfg.MaxInFlight {
		n, size := 0, 0
		for n < len(s.queue) && n < maxItems {
			size += itemSize(&s.queue[n].item)
			if n > 0 && size > meta.MaxEntry {
				break
			}
			n++
		}
		batch := append([]queued(nil), s.queue[:n]...)
		s.queue = s.queue[n:]
		if len(s.queue) == 0 {
			s.queue = nil
		}
		e := &state.Entry{Term: s.term, Items: make([]state.Item, n)}
		for i := range batch {
			e.Items[i] = batch[i].item
			batch[i].item.Acked = nil
		}
		tok := s.token()
		s.inFlight[tok] = batch
		s.emit(Propose{tok, e})
	}
}

// itemSize estimates an item's encoded bytes, never below the truth by more
// than a few fixed fields.
func itemSize(it *state.Item) int {
	n := 64 + 10*len(it.Acked)
	if it.Op != nil {
		n += opSize(it.Op)
	}
	for i := range it.Records {
		n += 10 + opSize(it.Records[i].Op)
	}
	if ro, ok := it.Internal.(*state.ResolveOrphans); ok {
		for _, o := range ro.Orphans {
			n += 16 + 10*len(o.Pins)
		}
	} else if it.Internal != nil {
		n += 1 << 10
	}
	return n
}

func opSize(op meta.Op) int {
	switch op := op.(type) {
	case *meta.Write:
		n := 64 + 80*len(op.Blocks)
		for i := range op.Extents {
			n += 48 + len(op.Extents[i].Inline)
		}
		return n
	case *meta.Make:
		return 64 + len(op.Name) + len(op.Target)
	case *meta.SetXattr:
		return 64 + len(op.Name) + len(op.Value)
	case *meta.Rename:
		return 64 + len(op.OldName) + len(op.NewName)
	case *meta.Link:
		return 64 + len(op.Name)
	case *meta.Unlink:
		return 64 + len(op.Name)
	case *meta.Rmdir:
		return 64 + len(op.Name)
	case *meta.RemoveXattr:
		return 64 + len(op.Name)
	case *meta.LateAck:
		return 16 + 24*len(op.Copies)
	}
	return 128
}

// onApplied finishes the items of an entry, in log order.
func (s *Server) onApplied(ev Applied) {
	batch, ok := s.inFlight[ev.Token]
	if !ok {
		return // of an earlier reign
	}
	delete(s.inFlight, ev.Token)
	err := ev.Err
	if err == nil && len(ev.Outcomes) != len(batch) {
		err = errs.E("group.apply", errs.Corrupt, "the entry could not be read back", nil)
	}
	for i := range batch {
		if err != nil {
			s.notApplied(&batch[i], err)
		} else {
			s.applied(&batch[i], ev.Outcomes[i])
		}
	}
}

// notApplied handles an item whose fate is unknown: clients ask again on a new
// stream, and exactly-once execution tells what became of it.
func (s *Server) notApplied(q *queued, err error) {
	switch {
	case q.submit != 0:
		s.emit(Submitted{q.submit, meta.Failed(err)})
	case q.stream != nil:
		if q.sealed != nil {
			s.unseal(q.sealed)
		}
		if s.streams[q.stream.id] == q.stream {
			s.redirect(q.stream)
		}
	case q.replies:
		s.opDone(q)
		se := s.sessions[q.item.Session]
		if se == nil {
			return
		}
		delete(se.inFlight, q.item.ID)
		if se.stream != nil {
			s.redirect(se.stream)
		}
	default:
		s.retryInternal(q)
	}
}

// retryInternal makes the core propose its own work again.
func (s *Server) retryInternal(q *queued) {
	switch op := q.item.Internal.(type) {
	case *state.CloseSession:
		if s.sessions[op.Session] != nil {
			s.enqueue(*q) // its client waits for it, or has long been silent
		}
	case *state.AckReplies:
		if se := s.sessions[op.Session]; se != nil {
			se.acked = append(op.Ops, se.acked...)
		}
	case *state.Reclaim:
		s.reaping, s.garbage = false, true
	case *state.ResolveOrphans:
		s.orphans.resolveFailed(op)
	case *state.UnpinOrphans, *state.AllocGroups:
		s.enqueue(*q)
	}
}

func (s *Server) applied(q *queued, o meta.Outcome) {
	switch {
	case q.stream != nil:
		s.sessionOpened(q, o)
	case q.replies && q.item.Op != nil:
		s.opApplied(q, o)
	case q.replies:
		s.logApplied(q, o)
	default:
		s.internalApplied(q, o)
	}
}

func (s *Server) opApplied(q *queued, o meta.Outcome) {
	s.noteGarbage(q.item.Op)
	s.opDone(q)
	se := s.sessions[q.item.Session]
	if se == nil {
		return
	}
	delete(se.inFlight, q.item.ID)
	if o.Err != nil && o.Err.Kind == errs.Again {
		s.garbage = true // the client waits for what the background work frees
	}
	repeated := se.executed[q.item.ID]
	se.executedOnce(q.item.ID, &o)
	if o.Err != nil && o.Err.Kind == errs.Expired {
		return // its end is in the log before; endSession tells the client
	}
	if e, ok := o.Result.(*meta.EntryResult); ok {
		se.owe(q.item.ID, e.Attr.Ino)
	}
	if se.stream != nil {
		se.stream.answered[q.item.ID] = true
		var grants []meta.Grant
		if q.gated != nil && !repeated { // what a record says may be old
			grants = s.outdatedBy(q.gated, &o, s.grantsOfMutation(se, q.item.Op, &o))
		} else if repeated {
			grants = s.outdatedByRecord(se, q.item.Op, &o)
		}
		s.reply(se.stream, q.item.ID, o, grants)
	}
}

func (s *Server) logApplied(q *queued, o meta.Outcome) {
	for i := range q.item.Records {
		s.noteGarbage(q.item.Records[i].Op)
	}
	se := s.sessions[q.item.Session]
	if se == nil {
		return
	}
	ack := &meta.LogAck{}
	if o.Err != nil {
		ack.Refused, ack.Err = true, o.Err
		s.endSoon(se, "session evicted: its log was refused: "+o.Err.Error())
	} else if res, ok := o.Result.(*meta.SessionResult); ok {
		ack.Seq = res.LastLogSeq
		s.logChanged(se, q.item.Records)
		s.logExecuted(se, res.LastLogSeq)
	}
	if se.stream == nil {
		return
	}
	s.emit(Send{se.stream.id, ack})
}

// noteGarbage remembers that an operation may have left work behind.
func (s *Server) noteGarbage(op meta.Op) {
	switch op.(type) {
	case *meta.Unlink, *meta.Rmdir, *meta.Rename:
		s.orphans.look = true
	case *meta.SetAttr, *meta.Write:
		s.garbage = true
	}
}

func (s *Server) sessionOpened(q *queued, o meta.Outcome) {
	st := q.stream
	open := &q.item.Internal.(*state.OpenSession).Open
	alive := s.streams[st.id] == st
	if q.sealed != nil {
		s.unseal(q.sealed)
	}
	res, ok := o.Result.(*meta.SessionResult)
	if !ok {
		if s.openMissed(q, o) {
			return
		}
		if d := s.drives[open.Capability.Drive]; d != nil && len(d.sessions) == 0 {
			delete(s.drives, d.id)
		}
		if alive {
			s.evict(st, o.Err)
		}
		return
	}
	se := s.sessions[res.Session]
	if se == nil {
		se = s.addSession(state.Session{
			ID: res.Session, Epoch: res.Epoch, Nonce: open.Nonce, Drive: open.Capability.Drive,
			Root: res.Root.Ino, Path: open.Capability.Path, ReadOnly: open.Capability.ReadOnly, Leases: open.Leases, Client: open.Client,
		}, s.now+s.cfg.TTL+s.cfg.TTL/10)
	}
	// A client that opens has not used the session yet, even if an earlier
	// leader opened it and the answer was lost: nothing is to be declared.
	se.reclaimed = true
	if se.Leases = se.Leases || open.Leases; se.Leases {
		se.drive.leased = true
	}
	s.nowDeclared(se)
	if alive {
		s.welcome(st, se, res, false)
	}
}

func (s *Server) internalApplied(q *queued, o meta.Outcome) {
	switch op := q.item.Internal.(type) {
	case *state.CloseSession:
		s.endSession(op.Session, errs.E("session", errs.Expired, "the session was closed", nil))
	case *state.DropDrive:
		if o.Err == nil {
			for _, id := range append([]meta.SessionID(nil), s.order...) {
				if s.sessions[id].Drive == op.Drive {
					s.endSession(id, errs.E("session", errs.Expired, "the drive was deleted", nil))
				}
			}
			s.garbage = true
		}
	case *state.Reclaim:
		s.reaping = false
		if res, ok := o.Result.(*meta.BytesResult); ok && len(res.Data) == 1 && res.Data[0] == 0 {
			s.garbage = true
		}
	case *state.SetQuota:
		if o.Err == nil {
			s.quotaSet(op)
		}
	case *state.AllocGroups:
		if q.credit != nil {
			s.groupsApplied(q.credit, &o)
		}
	case *state.ResolveOrphans:
		s.orphansResolved(op)
	case *state.UnpinOrphans:
		s.garbage = true
	}
	if q.submit != 0 {
		s.emit(Submitted{q.submit, o})
	}
}

func sortedTokens(m map[Token][]queued) []Token {
	list := make([]Token, 0, len(m))
	for t := range m {
		list = append(list, t)
	}
	sort.Slice(list, func(i, j int) bool { return list[i] < list[j] })
	return list
}

func sortedStreams(m map[StreamID]*stream) []StreamID {
	list := make([]StreamID, 0, len(m))
	for id := range m {
		list = append(list, id)
	}
	sort.Slice(list, func(i, j int) bool { return list[i] < list[j] })
	return list
}

func insertSorted(list []meta.SessionID, id meta.SessionID) []meta.SessionID {
	i := sort.Search(len(list), func(i int) bool { return list[i] >= id })
	list = append(list, 0)
	copy(list[i+1:], list[i:])
	list[i] = id
	return list
}

func removeSorted(list []meta.SessionID, id meta.SessionID) []meta.SessionID {
	i := sort.Search(len(list), func(i int) bool { return list[i] >= id })
	if i < len(list) && list[i] == id {
		list = append(list[:i], list[i+1:]...)
	}
	return list
}
