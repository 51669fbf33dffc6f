package core

import (
	"fmt"

	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
)

// onLog takes a batch of delegated operations. They need no gates: the session
// holds everything that they touch for writing. What is born in them belongs
// to the session, and is pinned by it, from now on: others can meet it as soon
// as the batch is applied.
func (s *Server) onLog(st *stream, se *session, f *meta.Log) {
	item := state.Item{Session: se.ID, Epoch: se.Epoch, First: f.First, Records: f.Records}
	if itemSize(&item) > maxItem {
		s.evict(st, tooLarge())
		return
	}
	if !se.Leases || !se.reclaimed {
		s.evict(st, protocolError("a log came from a session that holds no leases"))
		return
	}
	if se.closing {
		return
	}
	for i := range f.Records {
		if f.First+uint64(i) <= se.LastLogSeq {
			continue // executed before
		}
		if ino := s.delegate(se, f.Records[i].Op); ino != 0 {
			s.stats.Evictions++
			s.endSoon(se, fmt.Sprintf("session evicted: log record %d changes inode %d without the right to", f.First+uint64(i), ino))
			return
		}
	}
	if n := len(f.Records); n > 0 {
		se.received = max(se.received, f.First+uint64(n)-1)
	}
	s.enqueue(queued{replies: true, item: item})
}

// delegate checks that the session's log may change what op names, and takes
// note of what that means. It returns the inode that it may not change, or 0.
func (s *Server) delegate(se *session, op meta.Op) meta.Ino {
	need := func(inos ...meta.Ino) meta.Ino {
		for _, ino := range inos {
			if n := se.drive.nodes[ino]; n != nil {
				if h := n.find(se); h != nil && h.may == meta.LeaseWrite {
					continue
				}
			}
			return max(ino, 1)
		}
		return 0
	}
	switch op := op.(type) {
	case *meta.Make:
		if bad := need(op.Parent); bad != 0 {
			return bad
		}
		s.noteChange(se.drive, op.Parent, se)
		return s.born(se, op.Ino)
	case *meta.Link:
		if bad := need(op.Parent, op.Ino); bad != 0 {
			return bad
		}
		s.noteChange(se.drive, op.Parent, se)
	case *meta.Unlink:
		if bad := need(op.Parent); bad != 0 {
			return bad
		}
		s.noteChange(se.drive, op.Parent, se)
	case *meta.Rmdir:
		if bad := need(op.Parent); bad != 0 {
			return bad
		}
		s.noteChange(se.drive, op.Parent, se)
	case *meta.Rename:
		if bad := need(op.OldParent, op.NewParent); bad != 0 {
			return bad
		}
		s.noteChange(se.drive, op.OldParent, se)
		s.noteChange(se.drive, op.NewParent, se)
	case *meta.SetAttr:
		return need(op.Ino)
	case *meta.SetXattr:
		return need(op.Ino)
	case *meta.RemoveXattr:
		return need(op.Ino)
	case *meta.Write:
		return need(op.Ino)
	case *meta.LateAck:
	default:
		return 1
	}
	return 0
}

// logChanged stamps what an executed batch has changed, for reads of the
// session itself: nobody else can have been granted anything of it. Victims
// are not named by their records: older reads then tell nothing about inodes.
func (s *Server) logChanged(se *session, records []meta.LogRecord) {
	d := se.drive
	if s.oldest() > s.lastToken {
		return // nobody reads
	}
	for i := range records {
		switch op := records[i].Op.(type) {
		case *meta.Unlink, *meta.Rmdir, *meta.Rename:
			se.logRemoved = s.lastToken
		case *meta.Make:
			s.changed(d, gateKey{ino: op.Ino}, true)
		}
		set := namedIn(records[i].Op)
		for _, n := range set.Names {
			s.changed(d, gateKey{n.Dir, n.Name}, true)
		}
		for _, ino := range set.Dirs {
			s.changed(d, gateKey{ino: ino}, false)
		}
		for _, ino := range set.Inos {
			s.changed(d, gateKey{ino: ino}, true)
		}
	}
}

// born gives a session the inode that its log brings, for writing, with a pin
// for the entry that its kernel has been given.
func (s *Server) born(se *session, ino meta.Ino) meta.Ino {
	if ino == 0 || se.drive.foreign(ino, se) != meta.LeaseNone {
		return max(ino, 1)
	}
	s.hold(se, ino, meta.LeaseWrite)
	if !s.breaks.logNoPin {
		se.pins[ino]++
	}
	return 0
}
