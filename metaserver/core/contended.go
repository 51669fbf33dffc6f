package core

import "agentdrive/metaserver/meta"

// Counts of rules S4 and S7.
const (
	promoteAfter = 8 // changes in a row by one session
	writeRecalls = 4 // recalls of Write within Server.within
)

// Times of rules S4 and S7, in proportion to the TTL: 2, 30, 2 and 1 s of 15 s.

// within is how close changes of two sessions make contention.
func (s *Server) within() Time { return s.cfg.TTL * 2 / 15 }

// contendedFor is how long nothing is granted then.
func (s *Server) contendedFor() Time { return s.cfg.TTL * 2 }

// lookAgain is how soon after a foreign look another one lowers Write.
func (s *Server) lookAgain() Time { return s.cfg.TTL * 2 / 15 }

// promoteQuiet is for how long nobody else asked for a directory that a session
// shall have for itself.
func (s *Server) promoteQuiet() Time { return s.cfg.TTL / 15 }

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
		if s.now-x.touched <= s.contendedFor()+s.within() {
			if s.now-x.touched <= s.within() {
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
		x = &past{ino: ino, last: -s.within(), foreign: -s.promoteQuiet()}
		for i := range x.recalled {
			x.recalled[i] = -2*s.within() - 1
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
		if s.now-x.last <= s.within() {
			if x.until <= s.now {
				s.stats.Contended++
			}
			x.until = s.now + s.contendedFor()
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
	if s.now-x.recalled[0] <= s.within() {
		if x.noWrite <= s.now {
			s.stats.Contended++
		}
		x.noWrite = s.now + s.contendedFor()
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
	return x != nil && x.by == se.ID && x.count >= promoteAfter && s.now-x.foreign >= s.promoteQuiet()
}
