package core

import (
	"container/list"
	"slices"

	"github.com/tidwall/btree"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/rules"
)

// Times of leases. Those named after a TTL are for one of 15 s; a shorter one
// scales them.
const (
	maxLife     = Time(10e9) // longest the kernel believes an answer (C3)
	refusalTime = Time(1e9)  // a refused Acquire is not repeated before
	idleTime    = Time(30e9) // a lease unused for so long beyond its lifetimes is given back
	idleWrite   = 10         // a write lease, after so many times as long
	idleBatch   = 512        // leases in one Release
	// crowdedPause is between looks for leases to give back early.
	crowdedPause = Time(100e6)
)

// node is what the client knows of one inode: its lease, and what may be
// believed under it. It lives as long as a lease, a lifetime given to the
// kernel, a record in the log or an operation under way needs it.
type node struct {
	ino    meta.Ino
	lease  meta.LeaseKind // what the servers may count this session as holding
	limit  meta.LeaseKind // what is left of it while recalls are being answered
	attr   meta.Attr      // true while attrOK; under LeaseWrite the only truth
	attrOK bool           // needs a lease
	guess  bool           // attr.Bytes is an estimate
	target []byte         // of a symbolic link, if known

	dir *directory // names, or nil

	locks nodeLocks

	attrUntil Time   // the kernel believes attributes until then
	seq       uint64 // the last record of the log that changes it
	born      uint64 // the record that makes it; 0: none
	mutating  int    // own synchronous changes of it without an answer
	recalls   int    // recalls of it without an Ack
	drain     bool   // a directory to be given back when its lifetimes are over
	gone      bool   // its last name is
	dying     bool   // it is in leases.dead

	changed meta.OpID // answers to reads sent up to this one are older than an own change
	renamed meta.OpID // the same for names, and synchronous changes
	granted meta.OpID // the last listing that granted it; scratch
	ignore  meta.OpID // grants in replies to operations up to this one are void: a Release left after them
	refused Time      // no Write is asked for before
	lost    error     // operations here were lost; the first one is told

	at   Time          // last use
	used Time          // the same, or a later moment before which it is not looked at
	turn *list.Element // in leases.turns, by last use
}

// leases is the table of nodes and what goes on around them.
type leases struct {
	table btree.Map[meta.Ino, *node]
	turns *list.List // *node, the least recently used first
	acq   acquisitions
	memo  cookies

	recalls   []*recall // unanswered, oldest first
	invals    []*inval  // the kernel is being told
	lastTok   uint64
	locked    btree.Map[meta.Ino, int] // requests open that hold the kernel's lock of a directory
	draining  []*node                  // nodes with drain
	dead      []*node                  // without names, to be given back when nobody uses them
	crowdedAt Time                     // when more leases than there should be are looked at next
	lapsed    bool                     // validity passed and was not renewed
	progress  uint64                   // moves whenever the flush of a recall may have moved
}

func (l *leases) init() { *l = leases{turns: list.New(), lastTok: l.lastTok} }

// broken reports whether a test wants this rule broken.
func (c *Client) broken(rule string) bool { return c.cfg.Break != "" && c.cfg.Break == rule }

// valid reports whether the servers certainly keep the session, and with it
// its leases.
func (c *Client) valid() bool {
	s := &c.ses
	return s.id != 0 && s.phase != phaseEnded && !c.log.poisoned && (c.now < s.trustUntil || c.broken("trust-forever"))
}

// life is how long the kernel may believe an answer given now (C3).
func (c *Client) life() Time {
	s := &c.ses
	if c.broken("C3-long") {
		return 6 * maxLife
	}
	return max(0, min(maxLife, s.trustUntil-c.now-s.ttl*2/15))
}

// leaseOf tells what may be done with an inode locally right now: nothing
// while the session's validity is in doubt or an own synchronous change of it
// is under way, and no more than is left while a recall is being answered.
func (c *Client) leaseOf(ino meta.Ino) meta.LeaseKind {
	n := c.nodeOf(ino)
	if n == nil {
		return meta.LeaseNone
	}
	return c.leaseNow(n)
}

func (c *Client) leaseNow(n *node) meta.LeaseKind {
	if n.mutating > 0 || !c.valid() {
		return meta.LeaseNone
	}
	return min(n.lease, n.limit)
}

// readable reports whether what the table knows of n is the truth. It stays so
// until the Ack of a recall leaves: nobody can change it before.
func (c *Client) readable(n *node) bool {
	return n != nil && n.lease >= meta.LeaseRead && n.mutating == 0 && c.valid()
}

// owned reports whether n may be changed locally and everything needed for it
// is known.
func (c *Client) owned(n *node) bool {
	return n != nil && n.attrOK && c.leaseNow(n) == meta.LeaseWrite
}

// mayBuffer reports whether a WRITE of the file may be taken into the buffer:
// under a write lease, and also while the kernel is being told to forget pages
// for a recall, for then its WRITEs must not wait for the servers (C7).
func (c *Client) mayBuffer(ino meta.Ino) bool {
	n := c.nodeOf(ino)
	if n == nil || n.mutating > 0 || !c.valid() {
		return false
	}
	if min(n.lease, n.limit) == meta.LeaseWrite {
		return true
	}
	return n.lease == meta.LeaseWrite && c.invalidating(ino)
}

// nodeOf returns the record of an inode, or nil.
func (c *Client) nodeOf(ino meta.Ino) *node {
	n, _ := c.leases.table.Get(ino)
	return n
}

// node returns the record of an inode and makes it if there is none.
func (c *Client) node(ino meta.Ino) *node {
	n, ok := c.leases.table.Get(ino)
	if !ok {
		n = &node{ino: ino, limit: meta.LeaseWrite, at: c.now, used: c.now}
		n.turn = c.leases.turns.PushBack(n)
		c.leases.table.Set(ino, n)
	}
	return n
}

// touchNode notes a use.
func (c *Client) touchNode(n *node) {
	n.at, n.used = c.now, c.now
	c.leases.turns.MoveToBack(n.turn)
}

// tidy removes a node that nothing needs.
func (c *Client) tidy(n *node) {
	if n.lease != meta.LeaseNone || n.mutating > 0 || n.recalls > 0 || n.seq > c.log.acked ||
		n.attrUntil > c.now || n.refused > c.now || n.lost != nil || n.ignore >= c.ops.oldest() ||
		n.locks.own || n.locks.flight > 0 || n.dir != nil && n.dir.busy(c.now) {
		return
	}
	if m := c.nodeOf(n.ino); m == n {
		c.leases.table.Delete(n.ino)
		c.leases.turns.Remove(n.turn)
		c.settlePin(n.ino)
	}
}

// lower sets what is left of a lease, and forgets what needed more.
func (c *Client) lower(n *node, to meta.LeaseKind) {
	if to >= n.lease {
		return
	}
	was := n.lease
	n.lease = to
	if to == meta.LeaseNone {
		n.attrOK, n.target = false, nil
		n.attr = meta.Attr{}
		if n.dir != nil {
			n.dir.forget()
		}
		if n.drain {
			n.drain = false
			l := &c.leases
			l.draining = slices.DeleteFunc(l.draining, func(m *node) bool { return m == n })
		}
		c.dropMap(n.ino)
	} else if was == meta.LeaseWrite && n.attrOK && !c.exactAttr(n.ino) {
		n.attrOK = false
	}
	if to == meta.LeaseNone {
		c.tidy(n)
		c.settlePin(n.ino)
	}
}

// granted takes the grants of a reply into the table. A lower kind than the
// one held says only that the answer may be kept: leases fall by recalls, and
// by what the client gives back. None, in the reply to an own change, tells of
// an inode that it changed without naming it.
func (c *Client) granted(o *op, grants []meta.Grant) {
	o.grants = grants
	if c.cfg.NoLeases {
		return
	}
	for _, g := range grants {
		if g.Kind == meta.LeaseNone {
			c.outdated(g.Ino)
			continue
		}
		if c.cfg.Strict {
			g.Kind = meta.LeaseRead // the servers may believe that more is held
		}
		n := c.node(g.Ino)
		if o.id <= n.ignore && !c.broken("stale-grant") {
			c.tidy(n)
			continue
		}
		c.touchNode(n)
		if g.Kind > n.lease {
			n.lease = g.Kind
			if g.Kind == meta.LeaseWrite {
				n.refused = 0
				c.wantCredit()
			}
		}
	}
}

// grantOf is what a reply's grants say of an inode, as far as it counts.
func (c *Client) grantOf(o *op, ino meta.Ino) *node {
	if c.cfg.NoLeases {
		return nil
	}
	for _, g := range o.grants {
		if g.Ino == ino && g.Kind > meta.LeaseNone {
			if n := c.nodeOf(ino); n != nil && (o.id > n.ignore || c.broken("stale-grant")) && n.lease > meta.LeaseNone {
				return n
			}
			return nil
		}
	}
	return nil
}

// wallNow estimates the servers' wall clock, Unix nanoseconds.
func (c *Client) wallNow() int64 { return int64(c.now) + c.ses.wall }

// tellWall takes the servers' clock from a frame that just came.
func (c *Client) tellWall(now int64) {
	if now != 0 {
		c.ses.wall = now - int64(c.now)
	}
}

// stamp is the time of a local operation that changes these nodes: later than
// everything they have seen.
func (c *Client) stamp(nodes ...*node) int64 {
	now := c.wallNow()
	for _, n := range nodes {
		if n != nil && n.attrOK {
			now = max(now, rules.Later(n.attr.Ctime, now), rules.Later(n.attr.Mtime, now))
		}
	}
	return now
}

// lastSeq is the last record of the log that changes the inode and is not
// durable; 0: none.
func (c *Client) lastSeq(ino meta.Ino) uint64 {
	if n := c.nodeOf(ino); n != nil && n.seq > c.log.acked {
		return n.seq
	}
	return 0
}

// renewedValidity follows an answered Open, Resume or Renew sent at: the
// servers keep the session at least until two thirds of its life from then.
func (c *Client) renewedValidity(at Time) {
	s := &c.ses
	s.trustUntil = max(s.trustUntil, at+s.ttl*2/3)
	if c.now < s.trustUntil {
		c.leases.lapsed = false
	}
}

// leasesDue does what the time asks for: the loss of validity, leases to give
// back.
func (c *Client) leasesDue() {
	s := &c.ses
	if s.id != 0 && s.phase != phaseEnded && !c.leases.lapsed && s.trustUntil != 0 && c.now >= s.trustUntil {
		c.leases.lapsed = true
		c.leaseLost()
	}
	c.releaseDrained()
	c.releaseIdle()
	c.unstall()
}

// leaseLost runs when validity passed: lifetimes are over by C3, but pages of
// open files ask nobody.
func (c *Client) leaseLost() {
	if c.cfg.NoLeases {
		return
	}
	var items []Inval
	if c.cfg.IncEpoch {
		items = append(items, Inval{Epoch: true})
	}
	c.files.Scan(func(ino meta.Ino, f *file) bool {
		if f.handles > 0 {
			items = append(items, Inval{Ino: ino})
		}
		return true
	})
	if len(items) > 0 {
		c.invalidate(items, nil)
	}
}

// releaseDrained gives directories back whose last lifetime is over.
func (c *Client) releaseDrained() {
	if len(c.leases.draining) == 0 || c.ses.phase != phaseReady {
		return
	}
	var done []*node
	for _, n := range c.leases.draining {
		if !c.busy(n) && c.lifetimesEnd(n) <= c.now {
			done = append(done, n)
		}
	}
	c.release(done)
}

// lifetimesEnd is when the kernel believes nothing of n any more.
func (c *Client) lifetimesEnd(n *node) Time {
	end := n.attrUntil
	if n.dir != nil {
		end = max(end, n.dir.until)
	}
	return end
}

// releaseIdle gives back read leases that nobody used for long, and more of
// them when the table is full.
func (c *Client) releaseIdle() {
	l := &c.leases
	if c.cfg.NoLeases || c.ses.phase != phaseReady || l.turns.Len() == 0 {
		return
	}
	over := 0
	if c.now >= l.crowdedAt {
		over = l.table.Len() - c.cfg.MaxNodes
	}
	var idle []*node
	e, last := l.turns.Front(), l.turns.Back()
	for scanned := 0; e != nil && len(idle) < idleBatch && scanned < 2*idleBatch; scanned++ {
		n := e.Value.(*node)
		if e = e.Next(); n.turn == last {
			e = nil // behind it are those that were looked at
		}
		crowded := len(idle) < over
		if !crowded && n.used+idleTime > c.now {
			break
		}
		if from := c.idleFrom(n, crowded); from > c.now {
			// Looked at again when it could be idle; the order by used stays
			// nearly one, for lifetimes are short.
			n.used = max(n.used, min(from-idleTime, c.now+maxLife))
			if crowded {
				n.used = c.now
			}
			l.turns.MoveToBack(n.turn)
			continue
		}
		idle = append(idle, n)
	}
	if over > 0 {
		l.crowdedAt = c.now + crowdedPause
	}
	c.release(idle)
}

// idleFrom is when a node may be given back. A crowded table waits for
// lifetimes only.
func (c *Client) idleFrom(n *node, crowded bool) Time {
	end := c.lifetimesEnd(n)
	switch {
	case c.busy(n):
		return c.now + idleTime
	case crowded:
		return end
	case n.lease == meta.LeaseWrite && !n.gone && n.at+idleWrite*idleTime > c.now:
		return c.now + idleTime // looked at in turn
	}
	return max(end, n.at) + idleTime
}

// busy reports whether a node must keep its lease.
func (c *Client) busy(n *node) bool {
	if n.mutating > 0 || n.recalls > 0 || n.seq > c.log.acked || n.locks.flight > 0 || len(n.locks.waits) > 0 {
		return true
	}
	if f, ok := c.files.Get(n.ino); ok && (f.inUse() || f.reads > 0) {
		return true
	}
	_, wanted := c.leases.acq.byIno.Get(n.ino)
	return wanted
}

// lastNameGone notes that an inode has no name any more: once the kernel has
// forgotten it and the servers have heard of it, everything is given back, so
// that its space is free.
func (c *Client) lastNameGone(n *node) {
	n.gone = true
	c.retire(n)
}

// retire gives an inode without names back if nobody uses it, and one of which
// nothing is known: a rename may have taken its last name.
func (c *Client) retire(n *node) {
	if p, known := c.pins.table.Get(n.ino); (n.gone || known && !n.attrOK) && !n.dying && n.lease > meta.LeaseNone && p.kernel == 0 && !c.busy(n) {
		n.dying = true
		c.leases.dead = append(c.leases.dead, n)
	}
}

// releaseDead gives back what retire found.
func (c *Client) releaseDead() {
	l := &c.leases
	for len(l.dead) > 0 && c.ses.phase == phaseReady {
		k := min(len(l.dead), idleBatch)
		var list []*node
		for _, n := range l.dead[:k] {
			n.dying = false
			if m := c.nodeOf(n.ino); m == n && !c.busy(n) {
				list = append(list, n)
			}
		}
		l.dead = l.dead[k:]
		c.release(list)
	}
	if len(l.dead) == 0 {
		l.dead = nil
	}
}

// release gives leases back.
func (c *Client) release(nodes []*node) {
	var out []meta.Grant
	for _, n := range nodes {
		if n.locks.own {
			c.tellLocks(n) // and next time
		} else if n.lease != meta.LeaseNone {
			n.ignore = c.ops.last
			out = append(out, meta.Grant{Ino: n.ino})
			c.lower(n, meta.LeaseNone)
		} else {
			c.tidy(n)
		}
		if m := c.nodeOf(n.ino); m == n {
			// Not to be met again at the front at once.
			n.used = c.now
			c.leases.turns.MoveToBack(n.turn)
		}
	}
	if len(out) > 0 {
		c.send(&meta.Release{LogSeq: c.log.acked, Leases: out})
	}
}

// leaseTimers tells when leases want to be looked at.
func (c *Client) leaseTimers(want func(Time)) {
	l := &c.leases
	if c.ses.id != 0 && !l.lapsed && c.ses.trustUntil != 0 && !c.cfg.NoLeases {
		want(c.ses.trustUntil)
	}
	if c.ses.phase != phaseReady {
		return
	}
	for _, n := range l.draining {
		if !c.busy(n) {
			want(max(c.lifetimesEnd(n), c.now+1))
		}
	}
	if e := l.turns.Front(); e != nil {
		want(max(e.Value.(*node).used+idleTime, c.now+1))
	}
}

// loseLeases drops leases and log with their session, and makes the kernel
// forget.
func (c *Client) loseLeases(err *errs.Error) (lost lostLog) {
	if c.cfg.NoLeases {
		return lost
	}
	items := c.everything()
	c.forgetLeases()
	c.loseLocks(err)
	lost = c.logLost(err)
	c.ses.trustUntil, c.leases.lapsed = 0, false
	for _, q := range [][]*op{c.ops.reads, c.ops.changes} {
		for _, o := range q {
			o.after = 0
		}
	}
	for i := range c.ops.delayed {
		c.ops.delayed[i].op.after = 0
	}
	c.ops.flight.Scan(func(_ meta.OpID, o *op) bool { o.after = 0; return true })
	c.credit = credit{}
	if len(items) > 0 {
		c.invalidate(items, nil)
	}
	return lost
}

// everything is all that the kernel may believe or hold.
func (c *Client) everything() (items []Inval) {
	if c.cfg.IncEpoch {
		items = append(items, Inval{Epoch: true})
	}
	c.pins.table.Scan(func(ino meta.Ino, p pin) bool {
		if p.kernel > 0 {
			items = append(items, Inval{Ino: ino})
		}
		return true
	})
	c.leases.table.Scan(func(ino meta.Ino, n *node) bool {
		if p, _ := c.pins.table.Get(ino); p.kernel == 0 {
			items = c.invalAttr(items, n) // the root, which is not pinned
		}
		if n.dir != nil && n.dir.until > c.now && !c.cfg.IncEpoch {
			n.dir.names.Scan(func(e *entry) bool {
				if c.runs(e) {
					items = append(items, Inval{Dir: n.ino, Name: e.name})
				}
				return true
			})
		}
		return true
	})
	return items
}

// forgetLeases drops every lease. What the kernel may still believe and what
// was lost stays noted.
func (c *Client) forgetLeases() {
	l := &c.leases
	var all []*node
	l.table.Scan(func(_ meta.Ino, n *node) bool { all = append(all, n); return true })
	l.recalls = nil
	for _, n := range all {
		n.seq, n.born, n.recalls, n.limit, n.refused, n.ignore = 0, 0, 0, meta.LeaseWrite, 0, 0
		n.changed, n.renamed = 0, 0
		if n.dir != nil {
			n.dir.unblock()
			n.dir.group = 0 // it was the session's
		}
		c.lower(n, meta.LeaseNone)
		c.tidy(n)
	}
}
