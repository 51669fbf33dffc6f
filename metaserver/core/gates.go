package core

import (
	"slices"
	"sort"

	"agentdrive/metaserver/meta"
)

// gateKey is an inode (no name), or a name in a directory.
type gateKey struct {
	ino  meta.Ino
	name string
}

func (a gateKey) less(b gateKey) bool {
	return a.ino < b.ino || a.ino == b.ino && a.name < b.name
}

// gateMode says who may hold a gate beside us.
type gateMode uint8

const (
	gateShared gateMode = iota // whoever shares: a directory in which names change
	gateOwn                    // the same session: an inode that changes
	gateAlone                  // nobody: a name, or what an Acquire wants
)

// lockKey is a gate that a pending operation takes.
type lockKey struct {
	gateKey
	mode gateMode
}

// gate is a key held by operations between their recalls and their end.
// Nobody is given knowledge about it meanwhile.
type gate struct {
	count   [3]int   // holders by mode
	session *session // of all holders, nil when there are several
	queue   []*pending
}

func (g *gate) busy() bool { return g.count[gateShared]+g.count[gateOwn]+g.count[gateAlone] > 0 }

// admits reports whether one more may hold the gate.
func (g *gate) admits(se *session, mode gateMode) bool {
	switch {
	case !g.busy():
		return true
	case mode == gateAlone || g.count[gateAlone] > 0:
		return false
	case g.session == se:
		return true
	}
	return mode == gateShared && g.count[gateOwn] == 0
}

func (g *gate) take(se *session, mode gateMode) {
	if !g.busy() {
		g.session = se
	} else if g.session != se {
		g.session = nil
	}
	g.count[mode]++
}

// gateKeys gives the keys of a set in the one order in which all operations
// take them, so that no two wait for each other.
func gateKeys(set *TouchSet) []lockKey {
	keys := make([]lockKey, 0, len(set.Names)+len(set.Dirs)+len(set.Inos))
	for _, n := range set.Names {
		keys = append(keys, lockKey{gateKey{n.Dir, n.Name}, gateAlone})
	}
	for _, ino := range set.Dirs {
		keys = append(keys, lockKey{gateKey{ino: ino}, gateShared})
	}
	for _, ino := range set.Inos {
		keys = append(keys, lockKey{gateKey{ino: ino}, gateOwn})
	}
	return sortKeys(keys)
}

// sortKeys orders keys; of equal ones the strongest stays.
func sortKeys(keys []lockKey) []lockKey {
	sort.Slice(keys, func(i, j int) bool {
		a, b := &keys[i], &keys[j]
		if a.gateKey != b.gateKey {
			return a.less(b.gateKey)
		}
		return a.mode > b.mode
	})
	n := 0
	for i := range keys {
		if n == 0 || keys[i].gateKey != keys[n-1].gateKey {
			keys[n] = keys[i]
			n++
		}
	}
	return keys[:n]
}

// lock takes p's gates one after the other, first come first served, and runs
// p.inside when it holds them all.
func (s *Server) lock(p *pending) {
	for p.next < len(p.keys) {
		k := p.keys[p.next]
		g := p.drive.gates[k.gateKey]
		if g == nil {
			g = &gate{}
			p.drive.gates[k.gateKey] = g
		}
		if len(g.queue) > 0 || !g.admits(p.se, k.mode) {
			g.queue = append(g.queue, p)
			s.stats.GateWaits++
			return
		}
		g.take(p.se, k.mode)
		p.next++
	}
	p.inside()
}

// unlock opens the gates that p holds. If it changed what they guard, reads
// begun before may have seen the state before it.
func (s *Server) unlock(p *pending, changed bool) {
	d := p.drive
	held := p.keys[:p.next]
	p.next = 0
	for _, k := range held {
		if changed {
			s.changed(d, k.gateKey, k.mode != gateShared)
		}
		g := d.gates[k.gateKey]
		g.count[k.mode]--
		s.admit(d, k.gateKey, g)
	}
	s.closeToken(p.lookedAt)
	p.lookedAt = 0
}

// admit lets in those at the head of a gate's queue who may be, and forgets a
// gate that nobody needs.
func (s *Server) admit(d *drive, k gateKey, g *gate) {
	for len(g.queue) > 0 {
		q := g.queue[0]
		mode := q.keys[q.next].mode
		if !g.admits(q.se, mode) {
			return
		}
		g.queue = g.queue[1:]
		g.take(q.se, mode)
		q.next++
		s.ready = append(s.ready, &wait{then: func() { s.lock(q) }})
	}
	if !g.busy() {
		delete(d.gates, k)
	}
}

// leave takes p out of the queue in which it waits, and opens what it holds.
func (s *Server) leave(p *pending) {
	if p.next < len(p.keys) {
		k := p.keys[p.next].gateKey
		if g := p.drive.gates[k]; g != nil {
			if i := slices.Index(g.queue, p); i >= 0 {
				g.queue = slices.Delete(g.queue, i, i+1)
				s.admit(p.drive, k, g)
			}
		}
	}
	p.inside = func() { s.unlock(p, false) } // it may have been let in just now
	s.unlock(p, false)
	p.keys = nil
}

// gated reports whether an inode is in the hands of a mutation; with any, also
// when only names in it are.
func (d *drive) gated(k gateKey, any bool) bool {
	g := d.gates[k]
	return g != nil && (any && g.busy() || g.count[gateOwn]+g.count[gateAlone] > 0)
}

// tokenClock orders reads and changes: tokens grow, so a change after a read
// was issued has a stamp that is not below the read's token.
type tokenClock struct {
	open  map[Token]struct{} // of reads whose answers still matter
	order []Token            // ascending; may hold some that are not open any more
}

// openToken gives the token of a read that begins now.
func (s *Server) openToken() Token {
	t := s.token()
	s.clock.open[t] = struct{}{}
	s.clock.order = append(s.clock.order, t)
	return t
}

func (s *Server) closeToken(t Token) { delete(s.clock.open, t) }

// oldest gives the token of the oldest read under way, or one that no read
// has yet.
func (s *Server) oldest() Token {
	c := &s.clock
	for len(c.order) > 0 {
		if _, ok := c.open[c.order[0]]; ok {
			return c.order[0]
		}
		c.order = c.order[1:]
	}
	return s.lastToken + 1
}

// changes remembers which keys changed, as long as a read under way may have
// seen them before.
type changes struct {
	keys  map[gateKey]change
	queue []stamped // oldest first
	wiped Token     // when everything counts as changed
}

type change struct {
	any   Token // in any way
	whole Token // not only in names
}

type stamped struct {
	key gateKey
	at  Token
}

// changed notes that what a key guards has changed just now.
func (s *Server) changed(d *drive, k gateKey, whole bool) {
	c := &d.changes
	oldest := s.oldest()
	for len(c.queue) > 0 && c.queue[0].at < oldest {
		if x := c.queue[0]; c.keys[x.key].any == x.at {
			delete(c.keys, x.key)
		}
		c.queue = c.queue[1:]
	}
	if oldest > s.lastToken {
		return // nobody reads
	}
	at := c.keys[k]
	if at.any != s.lastToken {
		c.queue = append(c.queue, stamped{k, s.lastToken})
	}
	at.any = s.lastToken
	if whole {
		at.whole = s.lastToken
	}
	c.keys[k] = at
}

// since reports whether a key changed after the read of token t was issued.
func (c *changes) since(k gateKey, any bool, t Token) bool {
	x := c.keys[k]
	return c.wiped >= t || x.whole >= t || any && x.any >= t
}
