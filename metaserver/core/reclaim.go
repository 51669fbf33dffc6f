package core

import (
	"fmt"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// absences are the errors that may be believed like a value.
var absences = map[errs.Kind]bool{errs.NotExist: true, errs.NoAttr: true}

// owesDeclaration notes a session found at the start of a reign: until it has
// told what it holds, its drive waits (rule S5).
func (s *Server) owesDeclaration(se *session) {
	if !se.Leases {
		return
	}
	se.declared = false
	se.drive.undeclared++
	if !se.ReadOnly {
		se.drive.writers++
	}
}

// nowDeclared notes that a session has told what it holds, or has ended.
func (s *Server) nowDeclared(se *session) {
	if se.declared {
		return
	}
	se.declared = true
	d := se.drive
	d.undeclared--
	if !se.ReadOnly {
		d.writers--
	}
	s.unpark(d)
}

// undeclaredWriters reports whether state that this leader does not know of
// may be in somebody's log.
func (s *Server) undeclaredWriters(d *drive) bool { return d.writers > 0 && !s.breaks.noReclaimWait }

// park lets work wait until sessions have declared what they hold.
func (s *Server) park(d *drive, then func()) {
	d.parked = append(d.parked, &wait{left: 1, then: then})
}

// unpark lets all that is parked try again.
func (s *Server) unpark(d *drive) {
	list := d.parked
	d.parked = nil
	for _, w := range list {
		s.done(w)
	}
}

// mustWait reports whether p must wait for declarations: unless its session
// holds all that it touches for writing, so that nobody else can hold it.
func (s *Server) mustWait(p *pending, set *TouchSet) bool {
	if p.drive.undeclared == 0 || s.breaks.noReclaimWait {
		return false
	}
	for _, list := range [][]meta.Ino{set.Dirs, set.Inos} {
		for _, ino := range list {
			if p.drive.kindOf(ino, p.se) != meta.LeaseWrite {
				return true
			}
		}
	}
	return len(set.Dirs)+len(set.Inos) == 0
}

// ownsAnswer reports whether a session holds all that an answer tells about
// for writing.
func (s *Server) ownsAnswer(r *read, o *meta.Outcome) bool {
	se := r.stream.session
	ino, _ := subject(r.op)
	owns := ino != 0 && se.drive.kindOf(ino, se) == meta.LeaseWrite
	children(o, func(a *meta.Attr) {
		owns = owns && se.drive.kindOf(a.Ino, se) == meta.LeaseWrite
	})
	return owns
}

// claim takes the leases that a session has declared in all its Reclaim
// frames: they are what it holds. It reports whether they can be.
func (s *Server) claim(se *session) bool {
	claims := se.claims
	se.claims = nil
	if len(claims) > 0 {
		se.Leases, se.drive.leased = true, true
	}
	held := map[meta.Ino]meta.LeaseKind{} // look-up only
	for i := range claims {
		g := &claims[i]
		foreign := se.drive.foreign(g.Ino, se)
		if foreign == meta.LeaseWrite && g.Kind > meta.LeaseNone || foreign > meta.LeaseNone && g.Kind == meta.LeaseWrite {
			if se.declared {
				// An ack of the old stream counted that the client did not see
				// counted: what it has is what is known here.
				g.Kind = se.drive.kindOf(g.Ino, se)
				continue
			}
			s.stats.Evictions++
			s.endSoon(se, fmt.Sprintf("session evicted: it claims inode %d, which another session holds", g.Ino))
			return false
		}
		if se.ReadOnly {
			g.Kind = min(g.Kind, meta.LeaseRead)
		}
		held[g.Ino] = max(held[g.Ino], g.Kind)
	}
	var less []meta.Grant
	for ino, n := range se.leases { // order does not matter: each step is independent
		n.find(se).draining = false // a Drain of the old stream is void; repeatRecalls sends it again if it is owed
		if se.drive.kindOf(ino, se) > held[ino] {
			less = append(less, meta.Grant{Ino: ino, Kind: held[ino]})
		}
	}
	for _, g := range less {
		s.lower(se, g.Ino, g.Kind)
	}
	for _, g := range claims {
		if g.Kind > meta.LeaseNone {
			s.hold(se, g.Ino, g.Kind)
		}
	}
	if !s.claimLocks(se) {
		s.stats.Evictions++
		s.endSoon(se, "session evicted: it claims a lock which another session holds")
		return false
	}
	return true
}
