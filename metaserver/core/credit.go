package core

import (
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
	"agentdrive/metaserver/tree"
)

// credit is a Credit on its way: the drive's limits are read first, then
// locality groups are taken in the log.
type credit struct {
	se     *session
	stream *stream
	answer meta.Credited
}

// onCredit gives a session means to work locally. A drive with a quota gives
// no room in advance: its sessions write through the servers, which count
// exactly.
func (s *Server) onCredit(st *stream, se *session, f *meta.Credit) {
	if !se.Leases {
		s.evict(st, protocolError("credit was asked for by a session that takes no leases"))
		return
	}
	groups := min(f.Groups, tree.MaxGroups)
	if se.ReadOnly {
		groups = 0
	}
	c := &credit{se: se, stream: st, answer: meta.Credited{Groups: groups}}
	tok := s.openToken()
	s.reads[tok] = &read{stream: st, credit: c}
	s.emit(Read{tok, se.Drive, &meta.StatFS{}})
}

// creditRead goes on with the drive's limits. They need no confirmation:
// credit is only a promise to try, and groups come from the log.
func (s *Server) creditRead(c *credit, o *meta.Outcome) {
	if fs, ok := o.Result.(*meta.StatFSResult); ok {
		c.answer.Unlimited = fs.MaxBytes == 0 && fs.MaxFiles == 0
	}
	if c.answer.Groups == 0 || c.se.closing {
		s.credited(c)
		return
	}
	s.enqueue(queued{credit: c, item: state.Item{Internal: &state.AllocGroups{Session: c.se.ID, N: c.answer.Groups}}})
}

// groupsApplied takes the groups that the log gave.
func (s *Server) groupsApplied(c *credit, o *meta.Outcome) {
	first, err := state.FirstGroup(o.Result)
	if o.Err != nil || err != nil {
		c.answer.Groups = 0
	}
	c.answer.FirstGroup = first
	s.credited(c)
}

// quotaSet takes back what was given without limits.
func (s *Server) quotaSet(op *state.SetQuota) {
	d := s.drives[op.Drive]
	if d == nil || !(op.SetBytes && op.MaxBytes > 0 || op.SetFiles && op.MaxFiles > 0) {
		return
	}
	for _, se := range d.sessions {
		if se.Leases && se.stream != nil {
			s.emit(Send{se.stream.id, &meta.Credited{}})
		}
	}
}

func (s *Server) credited(c *credit) {
	if s.streams[c.stream.id] == c.stream && !c.se.ended {
		s.emit(Send{c.stream.id, &c.answer})
	}
}
