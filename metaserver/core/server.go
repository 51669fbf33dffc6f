package core

import (
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
)

// Server is the core of one group. Not safe for concurrent use: the adapter
// serializes Step.
type Server struct {
	cfg     Config
	now     Time // of pass
	lost    Time // in which the core stood still: the adapter's clock less now
	leading bool
	term    uint64         // of this reign
	leader  LostLeadership // hint for clients while another leads
	effects []Effect

	streams  map[StreamID]*stream
	sessions map[meta.SessionID]*session
	order    []meta.SessionID // ids of sessions, ascending: iteration order

	lastToken Token
	queue     []queued           // waiting to be proposed
	inFlight  map[Token][]queued // proposed entries

	confirming bool
	round      uint64
	waiting    []confirmable // for the round under way
	next       []confirmable // arrived during it
	reads      map[Token]*read

	drives map[meta.DriveID]*drive
	looks  map[Token]*pending // ReadTouched under way
	ready  []*wait            // nothing is in their way any more: run at the end of the step
	clock  tokenClock
	stats  Stats
	breaks breaks

	orphans  orphanage
	due      Time // no session or recall is overdue before; 0: there is none
	garbage  bool // the reclaim queue may hold work
	reaping  bool // a Reclaim entry is under way
	timerSet Time // of the Tick to come, 0 = none; by now's time
}

type stream struct {
	id      StreamID
	peer    string
	session *session // nil before Welcome
	greeted bool     // Open or Resume was received

	// Clients declare their pins right behind Resume, without waiting for
	// Welcome: early keeps what came before the session was bound.
	early     []*meta.Reclaim
	earlyPins int

	// Mutations answered on this stream and not acknowledged. A client that
	// resumed repeats what was in flight; the answer may have overtaken that.
	answered map[meta.OpID]bool

	lockOps map[meta.OpID]*read // SetLocks without an answer

	asked int // reads and renewals without an answer
}

// maxAsked bounds the unanswered reads and renewals of a stream, far above
// what a client has: each costs memory until a confirmation comes.
const maxAsked = 16 * meta.OpWindow

// maxEarlyPins bounds early; a client that has more waits for Welcome.
const maxEarlyPins = 1 << 24

type session struct {
	state.Session
	stream    *stream // nil while disconnected
	deadline  Time
	reclaimed bool      // declared its pins on this reign's or stream's beginning
	closing   bool      // a CloseSession is under way
	late      []*stream // resumed while closing: told when the end is certain
	pins      map[meta.Ino]uint32
	inFlight  map[meta.OpID]bool // mutations queued or proposed

	// Recorded replies that give an inode and that the client has not
	// acknowledged: it may still ask for them, so they pin (rule S6), whether
	// or not they were sent on some stream.
	owed     map[meta.OpID]meta.Ino
	owedPins map[meta.Ino]int // how often each is in owed

	leaseState

	acked    []meta.OpID // told by the client, on their way into the log
	recorded []meta.OpID // replies found when it resumed, until Reclaim tells which are wanted
}

// queued is an item on its way into the log, with what to do when applied.
type queued struct {
	item    state.Item
	stream  *stream  // of an OpenSession
	submit  Token    // of a Submit, 0 otherwise
	replies bool     // item is a client operation or log batch
	gated   *pending // of an operation that holds gates
	credit  *credit  // of an AllocGroups

	mayCreate bool   // an OpenSession that may make its subtree
	sealed    *drive // by an OpenSession that makes it
}

// confirmable waits for a leadership confirmation: a read or a renewal.
type confirmable struct {
	stream *stream
	op     *meta.OpFrame // nil for others
	resume *meta.Resume
	renew  *meta.Renew
	lock   *read // SetLock or GetLock
	again  *read // had to wait for others after its first confirmation
}

// New makes a core that follows nobody and leads nothing yet.
func New(cfg Config) *Server {
	if cfg.TTL == 0 {
		cfg.TTL = 15e9
	}
	if cfg.MaxInFlight == 0 {
		cfg.MaxInFlight = 8
	}
	if cfg.Reclaim == 0 {
		cfg.Reclaim = 512
	}
	s := &Server{cfg: cfg, streams: map[StreamID]*stream{}, breaks: parseBreak(cfg.Break)}
	s.reset()
	return s
}

// reset forgets everything that only a leader knows.
func (s *Server) reset() {
	s.sessions = map[meta.SessionID]*session{}
	s.order = nil
	s.queue = nil
	s.inFlight = map[Token][]queued{}
	s.confirming = false
	s.waiting, s.next = nil, nil
	s.reads = map[Token]*read{}
	s.drives = map[meta.DriveID]*drive{}
	s.looks = map[Token]*pending{}
	s.ready = nil
	s.clock = tokenClock{open: map[Token]struct{}{}}
	s.orphans = newOrphanage()
	s.garbage, s.reaping = false, false
	s.timerSet, s.due = 0, 0
}

// Step takes one event and returns the effects it has, in order. The slice is
// valid until the next Step. now never goes back.
func (s *Server) Step(now Time, ev Event) []Effect {
	s.pass(now)
	s.effects = s.effects[:0]
	switch ev := ev.(type) {
	case StreamOpened:
		s.streams[ev.Stream] = &stream{id: ev.Stream, peer: ev.Peer, answered: map[meta.OpID]bool{}}
	case StreamClosed:
		s.streamClosed(ev.Stream)
	case StreamFrame:
		if st := s.streams[ev.Stream]; st != nil {
			s.onFrame(st, ev.Frame)
		}
	case BecameLeader:
		s.becomeLeader(ev)
	case LostLeadership:
		s.loseLeadership(ev)
	case Confirmed:
		s.onConfirmed(ev)
	case Applied:
		s.onApplied(ev)
	case ReadDone:
		s.onReadDone(ev)
	case Touched:
		s.onTouched(ev)
	case SessionRead:
		s.onSessionRead(ev)
	case OrphansFound:
		s.orphansFound(ev.Orphans)
	case Submit:
		s.onSubmit(ev)
	case Tick:
		s.timerSet = 0
	}
	if s.leading {
		s.endOverdue()
		s.runReady()
		s.resolveOrphans()
		s.reap()
		s.flush()
		s.setTimer()
	}
	return s.effects
}

func (s *Server) emit(e Effect) { s.effects = append(s.effects, e) }

func (s *Server) token() Token {
	s.lastToken++
	return s.lastToken
}

func (s *Server) becomeLeader(ev BecameLeader) {
	s.reset()
	s.leading, s.term = true, ev.Term
	for _, rec := range ev.Sessions {
		s.addSession(rec, s.now+s.cfg.TTL+s.cfg.TTL/10)
		s.owesDeclaration(s.sessions[rec.ID])
	}
	for _, o := range ev.Orphans {
		s.orphans.add(o)
	}
	s.garbage = true
}

func (s *Server) loseLeadership(ev LostLeadership) {
	s.leading = false
	s.leader = ev
	for _, tok := range sortedTokens(s.inFlight) {
		s.failSubmits(s.inFlight[tok])
	}
	s.failSubmits(s.queue)
	for _, id := range sortedStreams(s.streams) {
		s.redirect(s.streams[id])
	}
	s.reset()
}

// failSubmits answers the adapter's own proposals: their outcome is unknown.
func (s *Server) failSubmits(list []queued) {
	for _, q := range list {
		if q.submit != 0 {
			s.emit(Submitted{q.submit, meta.Failed(s.notLeader())})
		}
	}
}

func (s *Server) notLeader() error {
	return errs.E("group", errs.NotLeader, "this server does not lead the group", nil).WithHint(s.leader.Address)
}

// redirect sends a client to the leader and ends its stream.
func (s *Server) redirect(st *stream) {
	s.emit(Send{st.id, &meta.NotLeader{Leader: s.leader.Leader, Address: s.leader.Address}})
	s.drop(st)
}

// evict tells a client that its session is over, which ends it, and why.
func (s *Server) evict(st *stream, err error) {
	e, ok := err.(*errs.Error)
	if !ok {
		e = errs.E("session", errs.Other, "", err)
	}
	if st.session != nil {
		s.endSoon(st.session, "session ended: "+e.Error())
	}
	s.emit(Send{st.id, &meta.Evicted{Err: e}})
	s.drop(st)
}

func (s *Server) drop(st *stream) {
	s.emit(CloseStream{st.id})
	s.streamClosed(st.id)
}

func (s *Server) streamClosed(id StreamID) {
	st := s.streams[id]
	if st == nil {
		return
	}
	delete(s.streams, id)
	s.dropLockWaits(st)
	if st.session != nil && st.session.stream == st {
		st.session.stream = nil
	}
	st.session = nil
}

func (s *Server) addSession(rec state.Session, deadline Time) *session {
	se := &session{
		Session: rec, deadline: deadline, pins: map[meta.Ino]uint32{}, inFlight: map[meta.OpID]bool{},
		owed: map[meta.OpID]meta.Ino{}, owedPins: map[meta.Ino]int{},
	}
	s.sessions[rec.ID] = se
	s.order = insertSorted(s.order, rec.ID)
	s.joinDrive(se)
	s.dueBy(deadline)
	return se
}

// endSession forgets a session whose end is in the log.
func (s *Server) endSession(id meta.SessionID, err error) {
	se := s.sessions[id]
	if se == nil {
		return
	}
	se.closing = true
	if se.stream != nil {
		s.evict(se.stream, err)
	}
	for _, st := range se.late {
		if s.streams[st.id] == st {
			s.evict(st, err)
		}
	}
	delete(s.sessions, id)
	s.order = removeSorted(s.order, id)
	s.leaveDrive(se)
	s.orphans.sessionEnded(id)
	s.garbage = true
}

// dueBy notes a deadline. Deadlines move later without a word: they are looked
// at when the earliest that was ever noted comes.
func (s *Server) dueBy(at Time) {
	if s.due == 0 || at < s.due {
		s.due = at
	}
}

// endOverdue ends sessions that did not renew, and those that neither answered
// a recall nor showed progress within one TTL, whether they renew or not.
func (s *Server) endOverdue() {
	if s.due == 0 || s.now < s.due {
		return
	}
	s.due = 0
	for _, id := range s.order {
		se := s.sessions[id]
		if se.closing {
			continue
		}
		if s.now >= se.deadline {
			s.endSoon(se, "session expired: no renewal within its life")
			continue
		}
		if at := se.recallsDue(); at != 0 && s.now >= at {
			s.stats.Evictions++
			s.endSoon(se, "session evicted: a recall was not answered within the life of a session")
			continue
		} else if at != 0 {
			s.dueBy(at)
		}
		s.dueBy(se.deadline)
	}
}

// endSoon puts the end of a session on its way into the log.
func (s *Server) endSoon(se *session, why string) {
	if !se.closing {
		se.closing = true
		s.emit(Notice{Text: why, Session: se.ID})
		s.enqueue(queued{item: state.Item{Internal: &state.CloseSession{Session: se.ID}}})
	}
}

// reap keeps one background step under way while the queue may hold work.
func (s *Server) reap() {
	if s.garbage && !s.reaping {
		s.reaping, s.garbage = true, false
		s.enqueue(queued{item: state.Item{Internal: &state.Reclaim{Budget: uint32(s.cfg.Reclaim)}}})
	}
}

func (s *Server) onSubmit(ev Submit) {
	if !s.leading {
		s.emit(Submitted{ev.Token, meta.Failed(s.notLeader())})
		return
	}
	s.enqueue(queued{item: state.Item{Internal: ev.Op}, submit: ev.Token})
}
