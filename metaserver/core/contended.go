package core

import "agentdrive/metaserver/meta"

// Times of rules S4 and S7.
const (
	contendedWithin = Time(2e9)  // changes of two sessions this close make contention
	contendedFor    = Time(30e9) // how long nothing is granted then
	lookAgain       = Time(2e9)  // a second foreign look within this lowers Write
	promoteAfter    = 8          // changes in a row by one session
	promoteQuiet    = Time(1e9)  // nobody else asked for so long
	writeRecalls    = 4          // recalls of Write within contendedWithin
)

// history is what happened lately to the inodes of a drive with several
// sessions.
type history struct {
	of    map[meta.Ino]*past
	order []*past // by the time they were looked through last; all of the map
}

// past is the recent history of one inode.
type past struct {
	ino     meta.Ino
	by      meta.SessionID // who changed names in it last
	count   int            // changes in a row by that session
	last    Time
	foreign Time // when another session last asked for it
	until   Time // directory: contended

	recalled [writeRecalls]Time // the last recalls of Write, oldest first
	noWrite  Time               // nobody gets Write until then
	touched  Time
}

// pastOf gives the history of an inode, a new one if there is none, and forgets
// old ones.
func (s *Server) pastOf(d *drive, ino meta.Ino) *past {
	h := &d.history
	for i := 0; i < 2 && len(h.order) > 0; i++ {
		x := h.order[0]
		if s.now-x.touched <= contendedFor+contendedWithin {
			if s.now-x.touched <= contendedWithin {
				break
			}
			h.order = append(h.order[1:], x)
			continue
		}
		h.order = h.order[1:]
		delete(h.of, x.ino)
	}
	x := h.of[ino]
	if x == nil {
		x = &past{ino: ino, last: -contendedWithin, foreign: -promoteQuiet}
		for i := range x.recalled {
			x.recalled[i] = -2 * contendedWithin
		}
		h.of[ino] = x
		h.order = append(h.order, x)
	}
	x.touched = s.now
	return x
}

// noteChange notes that a session changes names of a directory.
func (s *Server) noteChange(d *drive, dir meta.Ino, se *session) {
	if len(d.sessions) < 2 {
		return
	}
	x := s.pastOf(d, dir)
	if x.count > 0 && x.by != se.ID {
		if s.now-x.last <= contendedWithin {
			if x.until <= s.now {
				s.stats.Contended++
			}
			x.until = s.now + contendedFor
		}
		x.count, x.foreign = 0, s.now
	}
	x.by, x.last = se.ID, s.now
	x.count++
}

// noteLook notes that a session asks for a directory.
func (s *Server) noteLook(d *drive, dir meta.Ino, se *session) {
	if x := d.history.of[dir]; x != nil && x.by != se.ID {
		x.foreign = s.now
	}
}

// noteWriteRecalled notes that somebody must give Write up for another.
func (s *Server) noteWriteRecalled(d *drive, ino meta.Ino) {
	x := s.pastOf(d, ino)
	copy(x.recalled[:], x.recalled[1:])
	x.recalled[writeRecalls-1] = s.now
	if s.now-x.recalled[0] <= contendedWithin {
		if x.noWrite <= s.now {
			s.stats.Contended++
		}
		x.noWrite = s.now + contendedFor
	}
}

// contended reports whether nothing may be granted on a directory.
func (s *Server) contended(d *drive, dir meta.Ino) bool {
	x := d.history.of[dir]
	return x != nil && s.now < x.until && !s.breaks.grantContended
}

// shared reports whether nobody may have Write on an inode (FS of the rules).
func (s *Server) shared(d *drive, ino meta.Ino) bool {
	x := d.history.of[ino]
	return x != nil && (s.now < x.noWrite || s.now < x.until) && !s.breaks.grantContended
}

// promotes reports whether a session has a directory so much for itself that
// the others shall give it up (rule S7).
func (s *Server) promotes(d *drive, dir meta.Ino, se *session) bool {
	x := d.history.of[dir]
	return x != nil && x.by == se.ID && x.count >= promoteAfter && s.now-x.foreign >= promoteQuiet
}
