package core

import (
	"sort"

	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
)

// Orphans in two steps (a variation of rule S6, docs/decisions): apply leaves
// an inode without a name as an unresolved orphan; the leader, who alone knows
// the pins, then stamps them into a second entry. So no operation has to read
// the state before it is proposed, and unlinks need not wait for each other.
//
// An orphan is resolved when nobody can gain a pin on it any more, and every
// pin is known: every read that began before it was found has ended, and every
// session of its drive has declared its pins to this leader.

type orphanKey struct {
	drive meta.DriveID
	ino   meta.Ino
}

type orphanage struct {
	pins     map[orphanKey][]meta.SessionID // resolved ones, ascending
	found    []foundOrphan                  // unresolved, in order of discovery
	known    map[orphanKey]bool             // in found or being resolved
	look     bool                           // an operation may have made one
	looking  bool                           // FindOrphans is under way
	resolves int                            // ResolveOrphans under way
}

type foundOrphan struct {
	orphanKey
	barrier Token // reads with older tokens may still bring pins
}

// resolveBatch bounds the orphans of one ResolveOrphans.
const resolveBatch = 256

func newOrphanage() orphanage {
	return orphanage{pins: map[orphanKey][]meta.SessionID{}, known: map[orphanKey]bool{}, look: true}
}

// add takes a resolved orphan found in the state at the beginning of a reign;
// unresolved ones are found by the first look.
func (o *orphanage) add(or Orphan) {
	if or.Resolved && len(or.Pins) > 0 {
		o.pins[orphanKey{or.Drive, or.Ino}] = or.Pins
	}
}

// unpin takes a session off an orphan and reports whether it was on it.
func (o *orphanage) unpin(k orphanKey, id meta.SessionID) bool {
	list, ok := o.pins[k]
	if !ok {
		return false
	}
	i := sort.Search(len(list), func(i int) bool { return list[i] >= id })
	if i == len(list) || list[i] != id {
		return false
	}
	if list = append(list[:i:i], list[i+1:]...); len(list) == 0 {
		delete(o.pins, k)
	} else {
		o.pins[k] = list
	}
	return true
}

// sessionEnded takes an ended session off all orphans; the entry that ended it
// did the same to the state.
func (o *orphanage) sessionEnded(id meta.SessionID) {
	for k := range o.pins { // order does not matter: each step is independent
		o.unpin(k, id)
	}
}

func (o *orphanage) resolveFailed(op *state.ResolveOrphans) {
	o.resolves--
	for _, or := range op.Orphans {
		delete(o.known, orphanKey{op.Drive, or.Ino})
	}
	o.look = true
}

func (s *Server) orphansFound(list []Orphan) {
	s.orphans.looking = false
	for _, o := range list {
		k := orphanKey{o.Drive, o.Ino}
		if !s.orphans.known[k] {
			s.orphans.known[k] = true
			s.orphans.found = append(s.orphans.found, foundOrphan{k, s.lastToken + 1})
		}
	}
}

// resolveOrphans looks for new orphans and resolves those that are ripe.
func (s *Server) resolveOrphans() {
	o := &s.orphans
	if o.look && !o.looking {
		o.look, o.looking = false, true
		s.emit(FindOrphans{})
	}
	if len(o.found) == 0 {
		return
	}
	oldest := s.lastToken + 1
	for t := range s.reads { // a minimum: order does not matter
		oldest = min(oldest, t)
	}
	var rest []foundOrphan
	batches := map[meta.DriveID]*state.ResolveOrphans{}
	var drives []meta.DriveID
	for _, f := range o.found {
		b := batches[f.drive]
		if f.barrier > oldest || !s.allReclaimed(f.drive) || (b != nil && len(b.Orphans) >= resolveBatch) {
			rest = append(rest, f)
			continue
		}
		if b == nil {
			b = &state.ResolveOrphans{Drive: f.drive}
			batches[f.drive] = b
			drives = append(drives, f.drive)
		}
		b.Orphans = append(b.Orphans, state.OrphanPins{Ino: f.ino, Pins: s.pinning(f.drive, f.ino)})
	}
	o.found = rest
	for _, d := range drives {
		o.resolves++
		s.enqueue(queued{item: state.Item{Internal: batches[d]}})
	}
}

func (s *Server) allReclaimed(d meta.DriveID) bool {
	for _, id := range s.order {
		if se := s.sessions[id]; se.Drive == d && !se.reclaimed {
			return false
		}
	}
	return true
}

// pinning lists the sessions that pin an inode, ascending.
func (s *Server) pinning(d meta.DriveID, ino meta.Ino) []meta.SessionID {
	var list []meta.SessionID
	for _, id := range s.order {
		if se := s.sessions[id]; se.Drive == d && se.holds(ino) {
			list = append(list, id)
		}
	}
	return list
}

// orphansResolved remembers who pins what, and gives back pins that ended
// while the entry was under way.
func (s *Server) orphansResolved(op *state.ResolveOrphans) {
	s.orphans.resolves--
	s.garbage = true
	for _, o := range op.Orphans {
		k := orphanKey{op.Drive, o.Ino}
		delete(s.orphans.known, k)
		var still []meta.SessionID
		for _, id := range o.Pins {
			se := s.sessions[id]
			switch {
			case se == nil: // its end takes the pin off
			case se.reclaimed && !se.holds(o.Ino):
				s.proposeUnpin(id, []meta.Ino{o.Ino})
			default:
				still = append(still, id)
			}
		}
		if len(still) > 0 {
			s.orphans.pins[k] = still
		}
	}
}

// unpinUndeclared gives back pins that the state holds for a session and that
// it did not declare.
func (s *Server) unpinUndeclared(se *session) {
	var gone []meta.Ino
	for k, list := range s.orphans.pins {
		if k.drive != se.Drive || se.holds(k.ino) {
			continue
		}
		i := sort.Search(len(list), func(i int) bool { return list[i] >= se.ID })
		if i < len(list) && list[i] == se.ID {
			gone = append(gone, k.ino)
		}
	}
	sort.Slice(gone, func(i, j int) bool { return gone[i] < gone[j] })
	for _, ino := range gone {
		s.orphans.unpin(orphanKey{se.Drive, ino}, se.ID)
	}
	s.proposeUnpin(se.ID, gone)
}
