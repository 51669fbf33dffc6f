package core

import (
	"cmp"
	"slices"

	"agentdrive/metaserver/meta"
)

// grantsOfRead decides which inodes of an answer the session may believe: the
// answer is as of some moment since r.token, so nothing of it may have changed
// since then, or be about to change.
func (s *Server) grantsOfRead(r *read, o *meta.Outcome) []meta.Grant {
	se := r.stream.session
	if !s.mayGrant(se) {
		return nil
	}
	g := granting{s: s, se: se}
	switch op := r.op.(type) {
	case *meta.Lookup:
		if o.Err != nil && !isAbsence(o) {
			return nil
		}
		if s.cleanName(se, op.Parent, op.Name, r.token) {
			g.dir(op.Parent, meta.LeaseRead)
		} else {
			g.refused()
		}
		g.children(o, se.drive.kindOf(op.Parent, se), r.token)
	case *meta.ReadDir:
		if o.Err != nil {
			return nil
		}
		if s.cleanInode(se, op.Dir, r.token) {
			g.dir(op.Dir, meta.LeaseRead)
		} else {
			g.refused()
		}
		g.children(o, se.drive.kindOf(op.Dir, se), r.token)
	default:
		ino, _ := subject(r.op)
		if ino == 0 || o.Err != nil && !isAbsence(o) {
			return nil
		}
		if s.cleanInode(se, ino, r.token) {
			g.inode(ino, meta.LeaseRead)
		} else {
			g.refused()
		}
	}
	return g.list
}

// grantsOfMutation decides the same for the reply to a mutation: its outcome
// is of this moment, its own gates are open again, and later changes hold
// theirs.
func (s *Server) grantsOfMutation(se *session, op meta.Op, o *meta.Outcome) []meta.Grant {
	if o.Err != nil || !s.mayGrant(se) {
		return nil
	}
	now := s.lastToken + 1
	g := granting{s: s, se: se}
	name := func(dir meta.Ino, name string) {
		if s.cleanName(se, dir, name, now) {
			g.dir(dir, s.bestOf(se, dir))
		}
	}
	inode := func(ino meta.Ino) {
		if s.cleanInode(se, ino, now) {
			g.inode(ino, s.bestOf(se, ino))
		}
	}
	switch op := op.(type) {
	case *meta.Make:
		name(op.Parent, op.Name)
		inode(o.Result.(*meta.EntryResult).Attr.Ino)
	case *meta.Link:
		name(op.Parent, op.Name)
		inode(op.Ino)
	case *meta.Unlink:
		name(op.Parent, op.Name)
		if a := &o.Result.(*meta.AttrResult).Attr; a.Nlink > 0 {
			inode(a.Ino)
		}
	case *meta.Rmdir:
		name(op.Parent, op.Name)
	case *meta.Rename:
		name(op.OldParent, op.OldName)
		if op.NewParent != op.OldParent {
			name(op.NewParent, op.NewName)
		}
		inode(o.Result.(*meta.AttrResult).Attr.Ino)
	case *meta.SetAttr:
		inode(op.Ino)
	case *meta.Write:
		inode(op.Ino)
	}
	return g.list
}

// outdatedBy adds to the grants of a mutation's reply what it changed besides:
// inodes on which its session holds a lease and that the session may not know
// to be touched, since it did not name them. LeaseNone there says only that:
// what is believed of the inode is over.
func (s *Server) outdatedBy(p *pending, o *meta.Outcome, list []meta.Grant) []meta.Grant {
	if o.Err != nil {
		return list
	}
	for _, ino := range p.set.Inos {
		if p.drive.kindOf(ino, p.se) == meta.LeaseNone {
			continue
		}
		if !slices.ContainsFunc(list, func(g meta.Grant) bool { return g.Ino == ino }) {
			list = append(list, meta.Grant{Ino: ino, Kind: meta.LeaseNone})
		}
	}
	return list
}

// outdatedByRecord is outdatedBy for a recorded reply. What a rename replaced
// is not known any more: it may be anything.
func (s *Server) outdatedByRecord(se *session, op meta.Op, o *meta.Outcome) []meta.Grant {
	if o.Err != nil || len(se.leases) == 0 {
		return nil
	}
	var list []meta.Grant
	switch op.(type) {
	case *meta.Unlink, *meta.Rmdir:
		if res, ok := o.Result.(*meta.AttrResult); ok && se.leases[res.Attr.Ino] != nil {
			list = append(list, meta.Grant{Ino: res.Attr.Ino})
		}
	case *meta.Rename:
		for ino := range se.leases {
			list = append(list, meta.Grant{Ino: ino})
		}
		slices.SortFunc(list, func(a, b meta.Grant) int { return cmp.Compare(a.Ino, b.Ino) })
	}
	return list
}

// bestOf is Write where nobody else holds anything (rule S7), else Read.
func (s *Server) bestOf(se *session, ino meta.Ino) meta.LeaseKind {
	d := se.drive
	if se.ReadOnly || s.shared(d, ino) {
		return meta.LeaseRead
	}
	if d.foreign(ino, se) == meta.LeaseNone || s.breaks.grantDespiteOther {
		if g := d.gates[gateKey{ino: ino}]; g == nil || g.session == se && g.count[gateAlone] == 0 {
			return meta.LeaseWrite
		}
	}
	return meta.LeaseRead
}

// isAbsence reports whether an error says that a name or attribute is not
// there, which may be believed like a value.
func isAbsence(o *meta.Outcome) bool { return absences[o.Err.Kind] }

// mayGrant reports whether a session may be granted anything now.
func (s *Server) mayGrant(se *session) bool {
	return se.Leases && se.reclaimed && !se.closing && se.drive.sealed == 0 && (se.drive.undeclared == 0 || s.breaks.grantUndeclared)
}

// cleanName reports whether a name is as it was read under token t, and stays
// so for the moment.
func (s *Server) cleanName(se *session, dir meta.Ino, name string, t Token) bool {
	if s.breaks.staleGrant {
		return true
	}
	d, k, kd := se.drive, gateKey{dir, name}, gateKey{ino: dir}
	return !d.gated(k, true) && !d.gated(kd, false) && !d.changes.since(k, true, t) && !d.changes.since(kd, false, t)
}

// cleanInode is cleanName for an inode with everything in it.
func (s *Server) cleanInode(se *session, ino meta.Ino, t Token) bool {
	if s.breaks.staleGrant {
		return true
	}
	d, k := se.drive, gateKey{ino: ino}
	return !d.gated(k, true) && !d.changes.since(k, true, t) && se.logRemoved < t
}

// granting collects the grants of one reply.
type granting struct {
	s    *Server
	se   *session
	list []meta.Grant
}

func (g *granting) refused() { g.s.stats.Grants[meta.LeaseNone]++ }

// dir grants a directory, unless it is contended (rule S4).
func (g *granting) dir(ino meta.Ino, kind meta.LeaseKind) {
	if g.s.contended(g.se.drive, ino) {
		g.refused()
		return
	}
	g.inode(ino, kind)
}

// children grants the inodes that an answer gives by name; who holds the
// directory for writing gets the same on those that nobody else has.
func (g *granting) children(o *meta.Outcome, dir meta.LeaseKind, t Token) {
	children(o, func(a *meta.Attr) {
		if !g.s.cleanInode(g.se, a.Ino, t) {
			g.refused()
			return
		}
		kind := meta.LeaseRead
		if dir == meta.LeaseWrite {
			kind = g.s.bestOf(g.se, a.Ino)
		}
		if a.IsDir() {
			g.dir(a.Ino, kind)
		} else {
			g.inode(a.Ino, kind)
		}
	})
}

// inode grants what is possible up to kind, and repeats what is held.
func (g *granting) inode(ino meta.Ino, kind meta.LeaseKind) {
	se, d := g.se, g.se.drive
	if se.owing[ino] > 0 {
		g.refused() // M1: the recall comes first
		return
	}
	if n := d.nodes[ino]; n != nil {
		if h := n.find(se); h != nil {
			if h.draining || h.may < h.kind {
				g.refused() // on its way back
				return
			}
			kind = max(kind, h.kind)
		}
	}
	switch d.foreign(ino, se) {
	case meta.LeaseWrite:
		g.refused()
		return
	case meta.LeaseRead:
		if kind == meta.LeaseWrite && !g.s.breaks.grantDespiteOther {
			kind = meta.LeaseRead
		}
	}
	g.s.hold(se, ino, kind)
	g.s.stats.Grants[kind]++
	g.list = append(g.list, meta.Grant{Ino: ino, Kind: kind})
}
