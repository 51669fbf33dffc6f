package core

import (
	"sort"

	"agentdrive/metaserver/meta"
)

// drive is what the leader remembers of a drive beyond the state: who holds
// what, which keys are gated, and what happened lately.
type drive struct {
	id       meta.DriveID
	sessions []*session // ascending by id

	// leased: a session that understands leases opened here in this reign, or
	// was found. Before, nothing can be granted, and nothing is noted.
	leased bool

	nodes   map[meta.Ino]*node
	holding int // sessions with any lease
	writing int // sessions with a Write lease

	gates   map[gateKey]*gate
	changes changes
	history history

	locks  *fileLocks // nil while there never was one
	sealed int        // nothing is granted: see seal

	undeclared int     // sessions of an earlier reign that have not declared their leases
	writers    int     // those of them that may hold Write
	parked     []*wait // wait until the above are none
}

// node is an inode on which somebody holds a lease.
type node struct {
	ino     meta.Ino
	holders []holder // ascending by session id
	looked  Time     // when a session last had to ask the holder of Write
}

// holder is a session's lease on an inode.
type holder struct {
	se *session

	// kind is what everybody else has to respect. may is what the session's
	// log may still use: lower than kind between an Ack or Release and the
	// moment when the log has been executed up to the place it names.
	kind, may meta.LeaseKind

	draining bool // it was asked to give the lease back, without hurry
}

// leaseState is the part of a session that has to do with leases.
type leaseState struct {
	drive    *drive
	ended    bool
	declared bool // its leases are known to this leader
	leases   map[meta.Ino]*node
	writes   int // of them, with kind Write

	logRemoved Token  // when its log last took a name away, by the clock of reads
	received   uint64 // highest log record that arrived
	afterLog   []*logWaiter

	recalls    []*recall // without an answer, or answered and not effective; oldest first
	lastRecall uint64
	owing      map[meta.Ino]int // items of recalls that lower a lease
	claims     []meta.Grant     // of Reclaim frames before the last one
	lockClaims []meta.FileLock
	acquiring  []*read // Acquires that wait at gates

	executed map[meta.OpID]bool // mutations without an acknowledgement: a repetition is answered from the record
}

// logWaiter waits until a session's log is executed up to seq.
type logWaiter struct {
	seq uint64
	wait
}

// wait is work that waits for a number of things.
type wait struct {
	left int
	then func()
}

// runReady runs what has nothing more to wait for, and what that makes ready.
func (s *Server) runReady() {
	for len(s.ready) > 0 {
		w := s.ready[0]
		s.ready = s.ready[1:]
		w.then()
	}
	s.ready = nil
}

// done takes one thing off a wait.
func (s *Server) done(w *wait) {
	if w.left--; w.left == 0 {
		s.ready = append(s.ready, w)
	}
}

func (s *Server) driveOf(id meta.DriveID) *drive {
	d := s.drives[id]
	if d == nil {
		d = &drive{id: id, nodes: map[meta.Ino]*node{}, gates: map[gateKey]*gate{}}
		d.changes.keys = map[gateKey]change{}
		d.history.of = map[meta.Ino]*past{}
		s.drives[id] = d
	}
	return d
}

func (s *Server) joinDrive(se *session) {
	d := s.driveOf(se.Drive)
	se.drive, se.declared = d, true
	se.leases, se.owing, se.executed = map[meta.Ino]*node{}, map[meta.Ino]int{}, map[meta.OpID]bool{}
	se.received = se.LastLogSeq
	i := sort.Search(len(d.sessions), func(i int) bool { return d.sessions[i].ID >= se.ID })
	d.sessions = append(d.sessions, nil)
	copy(d.sessions[i+1:], d.sessions[i:])
	d.sessions[i] = se
	d.leased = d.leased || se.Leases
}

// leaveDrive frees everything that an ended session held, and what waited for
// it.
func (s *Server) leaveDrive(se *session) {
	d := se.drive
	se.ended = true
	for ino, n := range se.leases { // order does not matter: each step is independent
		n.drop(se)
		if len(n.holders) == 0 {
			delete(d.nodes, ino)
		}
	}
	if len(se.leases) > 0 {
		d.holding--
	}
	if se.writes > 0 {
		d.writing--
	}
	se.leases, se.writes = nil, 0
	s.dropLocks(se)
	d.changes.wiped = s.lastToken
	for i, x := range d.sessions {
		if x == se {
			d.sessions = append(d.sessions[:i], d.sessions[i+1:]...)
			break
		}
	}
	for _, r := range se.recalls {
		for _, it := range r.items {
			s.itemOver(it)
		}
	}
	se.recalls = nil
	for _, w := range se.afterLog {
		s.done(&w.wait)
	}
	se.afterLog = nil
	s.nowDeclared(se)
	if len(d.sessions) == 0 {
		delete(s.drives, d.id)
	}
}

func (n *node) find(se *session) *holder {
	for i := range n.holders {
		if n.holders[i].se == se {
			return &n.holders[i]
		}
	}
	return nil
}

func (n *node) drop(se *session) {
	for i := range n.holders {
		if n.holders[i].se == se {
			n.holders = append(n.holders[:i], n.holders[i+1:]...)
			return
		}
	}
}

// kindOf tells what a session holds on an inode.
func (d *drive) kindOf(ino meta.Ino, se *session) meta.LeaseKind {
	if n := d.nodes[ino]; n != nil {
		if h := n.find(se); h != nil {
			return h.kind
		}
	}
	return meta.LeaseNone
}

// foreign gives the highest lease that sessions other than se hold on an inode.
func (d *drive) foreign(ino meta.Ino, se *session) meta.LeaseKind {
	kind := meta.LeaseNone
	if n := d.nodes[ino]; n != nil {
		for i := range n.holders {
			if n.holders[i].se != se {
				kind = max(kind, n.holders[i].kind)
			}
		}
	}
	return kind
}

// othersHold reports whether sessions other than se hold any lease.
func (d *drive) othersHold(se *session) bool {
	return d.holding > 1 || d.holding == 1 && len(se.leases) == 0
}

// othersWrite reports whether sessions other than se hold any Write lease.
func (d *drive) othersWrite(se *session) bool {
	return d.writing > 1 || d.writing == 1 && se.writes == 0
}

// hold gives a session a lease, or raises the one it has.
func (s *Server) hold(se *session, ino meta.Ino, kind meta.LeaseKind) {
	d := se.drive
	n := d.nodes[ino]
	if n == nil {
		n = &node{ino: ino}
		d.nodes[ino] = n
	}
	h := n.find(se)
	if h == nil {
		i := sort.Search(len(n.holders), func(i int) bool { return n.holders[i].se.ID >= se.ID })
		n.holders = append(n.holders, holder{})
		copy(n.holders[i+1:], n.holders[i:])
		n.holders[i] = holder{se: se}
		h = &n.holders[i]
		if se.leases[ino] = n; len(se.leases) == 1 {
			d.holding++
		}
	}
	if kind == meta.LeaseWrite && h.kind < kind {
		if se.writes++; se.writes == 1 {
			d.writing++
		}
	}
	h.kind, h.may = max(h.kind, kind), max(h.may, kind)
}

// lower takes a lease down to kind, for everybody to see.
func (s *Server) lower(se *session, ino meta.Ino, kind meta.LeaseKind) {
	d := se.drive
	n := d.nodes[ino]
	if n == nil {
		return
	}
	h := n.find(se)
	if h == nil || h.kind <= kind {
		return
	}
	if h.kind == meta.LeaseWrite {
		if se.writes--; se.writes == 0 {
			d.writing--
		}
		s.changed(d, gateKey{ino: ino}, true)
	}
	h.kind, h.may = kind, min(h.may, kind)
	if kind != meta.LeaseNone {
		return
	}
	n.drop(se)
	if len(n.holders) == 0 {
		delete(d.nodes, ino)
	}
	if delete(se.leases, ino); len(se.leases) == 0 {
		d.holding--
	}
}

// onRelease takes back leases that a client gives up unasked.
func (s *Server) onRelease(st *stream, se *session, f *meta.Release) {
	if f.LogSeq > se.received {
		s.evict(st, protocolError("a lease is given back behind log records that did not come"))
		return
	}
	for _, g := range f.Leases {
		if n := se.drive.nodes[g.Ino]; n != nil {
			if h := n.find(se); h != nil {
				h.may = min(h.may, g.Kind)
			}
		}
	}
	s.afterLog(se, f.LogSeq, func() {
		if se.ended {
			return
		}
		for _, g := range f.Leases {
			s.lower(se, g.Ino, g.Kind)
		}
	})
}

// afterLog runs fn when a session's log is executed up to seq, or the session
// has ended; at once if it is.
func (s *Server) afterLog(se *session, seq uint64, fn func()) {
	if seq <= se.LastLogSeq || se.ended {
		fn()
		return
	}
	se.afterLog = append(se.afterLog, &logWaiter{seq: seq, wait: wait{left: 1, then: fn}})
}

// logExecuted moves on what waited for a session's log.
func (s *Server) logExecuted(se *session, seq uint64) {
	if seq <= se.LastLogSeq {
		return
	}
	se.LastLogSeq = seq
	se.received = max(se.received, seq)
	rest := se.afterLog[:0]
	for _, w := range se.afterLog {
		if w.seq <= seq {
			s.done(&w.wait)
		} else {
			rest = append(rest, w)
		}
	}
	se.afterLog = rest
}
