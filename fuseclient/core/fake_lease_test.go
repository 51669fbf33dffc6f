package core

import (
	"slices"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// fakeLeases is what a fakeServer that grants leases knows besides.
type fakeLeases struct {
	on        bool
	lease     map[meta.Ino]meta.LeaseKind
	changed   map[meta.Ino]int // counts changes by others and gates
	recall    *meta.Recall     // outstanding
	acked     bool             // its Ack came; the log up to ackSeq is awaited
	ackSeq    uint64
	ackBy     *fakeSession
	recallID  uint64
	lastGroup uint64
	refuse    func() bool // a grant?
	// seen is changed at the moment of execution, of replies not sent yet.
	seen map[*meta.Reply]map[meta.Ino]int
}

func (s *fakeServer) grantLeases(refuse func() bool) {
	s.fakeLeases = fakeLeases{
		on: true, refuse: refuse, lastGroup: 1000,
		lease: map[meta.Ino]meta.LeaseKind{}, changed: map[meta.Ino]int{},
		seen: map[*meta.Reply]map[meta.Ino]int{},
	}
}

// leaseFrame takes the frames of a client with leases.
func (s *fakeServer) leaseFrame(id meta.SessionID, ses *fakeSession, f meta.Frame) meta.Frame {
	switch f := f.(type) {
	case *meta.Log:
		return s.log(id, ses, f)
	case *meta.Credit:
		first := s.lastGroup
		s.lastGroup += uint64(f.Groups)
		return &meta.Credited{FirstGroup: first, Groups: f.Groups, Unlimited: true}
	case *meta.Ack:
		if s.recall == nil || f.Recall != s.recall.ID {
			return nil
		}
		s.acked, s.ackSeq, s.ackBy = true, f.LogSeq, ses
		for _, it := range s.recall.Items {
			s.lower(it.Ino, leftBy(it.Mode, s.lease[it.Ino]))
		}
		for _, g := range f.Less {
			s.lower(g.Ino, g.Kind)
		}
	case *meta.Release:
		for _, g := range f.Leases {
			s.lower(g.Ino, g.Kind)
		}
	default:
		s.fault("frame %T", f)
	}
	return nil
}

func (s *fakeServer) lower(ino meta.Ino, k meta.LeaseKind) {
	s.lease[ino] = min(s.lease[ino], k)
	s.changed[ino]++
}

// log executes records that are new.
func (s *fakeServer) log(id meta.SessionID, ses *fakeSession, f *meta.Log) meta.Frame {
	if f.First > ses.log+1 {
		s.fault("log begins at %d, want %d", f.First, ses.log+1)
	}
	for i, r := range f.Records {
		seq := f.First + uint64(i)
		if seq <= ses.log {
			continue
		}
		ses.log = seq
		s.logRecord(id, ses, r)
	}
	return &meta.LogAck{Seq: ses.log}
}

func (s *fakeServer) logRecord(id meta.SessionID, ses *fakeSession, r meta.LogRecord) {
	s.now = r.Now
	defer func() { s.now = 0 }()
	var out meta.Outcome
	switch o := r.Op.(type) {
	case *meta.Make:
		if s.lease[o.Parent] != meta.LeaseWrite && !s.owes(o.Parent) {
			s.fault("make in the log without a lease on its directory")
		}
		s.lease[o.Ino] = meta.LeaseWrite
		out = s.execute(id, o)
		ses.pins[o.Ino]++
	case *meta.Write:
		s.mustHold(o.Ino)
		out = s.write(id, o)
	case *meta.SetAttr:
		s.mustHold(o.Ino)
		n := s.inodes[o.Ino]
		if o.Set&meta.SetSize != 0 {
			n.data = resize(n.data, o.Size)
		}
		out = done(s.touch(n))
	case *meta.Rename:
		out = s.execute(id, o)
	default:
		s.fault("record %T", r.Op)
	}
	if out.Err != nil {
		s.fault("record %T %+v refused: %v", r.Op, r.Op, out.Err)
	}
}

func (s *fakeServer) owes(ino meta.Ino) bool {
	return s.recall != nil && slices.ContainsFunc(s.recall.Items, func(i meta.RecallItem) bool { return i.Ino == ino })
}

func (s *fakeServer) mustHold(ino meta.Ino) {
	if s.lease[ino] != meta.LeaseWrite && !s.owes(ino) {
		s.fault("record on inode %d without a lease", ino)
	}
	if s.inodes[ino] == nil {
		s.fault("record on inode %d, which is not", ino)
	}
}

// note remembers what a reply was computed from.
func (s *fakeServer) note(r *meta.Reply) {
	m := map[meta.Ino]int{}
	for _, ino := range s.inosOf(r) {
		m[ino] = s.changed[ino]
	}
	s.seen[r] = m
}

func (s *fakeServer) inosOf(r *meta.Reply) (inos []meta.Ino) {
	switch x := r.Outcome.Result.(type) {
	case *meta.EntryResult:
		return []meta.Ino{meta.RootIno, x.Attr.Ino}
	case *meta.AttrResult:
		return []meta.Ino{x.Attr.Ino}
	case *meta.MapResult:
		return []meta.Ino{x.Attr.Ino}
	case *meta.AcquireResult:
		for _, a := range x.Attrs {
			inos = append(inos, a.Ino)
		}
	case *meta.DirResult:
		inos = append(inos, meta.RootIno)
		for _, e := range x.Entries {
			inos = append(inos, e.Attr.Ino)
		}
	default:
		if e := r.Outcome.Err; e != nil && e.Kind == errs.NotExist {
			return []meta.Ino{meta.RootIno}
		}
	}
	return inos
}

// grantIn adds grants to a reply that is about to be sent. A lease that is
// held is repeated if the answer still holds.
func (s *fakeServer) grantIn(r *meta.Reply, op meta.OpKind) {
	if s.seen[r] == nil {
		return
	}
	inos := s.inosOf(r)
	slices.Sort(inos)
	for _, ino := range slices.Compact(inos) {
		then := s.seen[r][ino]
		kind := max(meta.LeaseRead, s.lease[ino])
		if op == meta.KindAcquire || op == meta.KindMake {
			kind = meta.LeaseWrite
		}
		if ino == 0 || s.owes(ino) || then != s.changed[ino] || s.refuse() {
			continue
		}
		s.lease[ino] = max(s.lease[ino], kind)
		r.Grants = append(r.Grants, meta.Grant{Ino: ino, Kind: kind})
	}
	delete(s.seen, r)
}

// begin starts a change by another session; the recall is sent.
func (s *fakeServer) begin(ino meta.Ino) *meta.Recall {
	s.recallID++
	s.acked = false
	s.changed[ino]++
	s.recall = &meta.Recall{ID: s.recallID, Items: []meta.RecallItem{{Ino: ino, Mode: meta.RecallRelease}}}
	return s.recall
}

// free reports whether the recall has been answered and its log executed.
func (s *fakeServer) free() bool { return s.acked && (s.ackBy.ended || s.ackBy.log >= s.ackSeq) }
