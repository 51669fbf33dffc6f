package core

import (
	"slices"

	"agentdrive/metaserver/meta"
)

// recall is a Recall of the servers on its way to its Ack: the kernel forgets,
// what only this client has gets its place in the log, the log is sent.
type recall struct {
	id    uint64
	items []recallItem
	told  bool   // the kernel has forgotten
	seq   uint64 // the log must be sent up to here
	after []Inval
	locks int // answers to come to what the servers are told of locks
	began Time
	seen  uint64 // leases.progress at the last Renew
}

type recallItem struct {
	meta.RecallItem
	to    meta.LeaseKind
	known bool // something was held: the node counts this recall
}

// onRecall begins a recall: from now on its leases allow no more than what is
// left of them.
func (c *Client) onRecall(f *meta.Recall) {
	c.stats.Recalls++
	rc := &recall{id: f.ID, began: c.now}
	var items []Inval
	for i := range f.Items {
		it := recallItem{RecallItem: f.Items[i]}
		n := c.nodeOf(it.Ino)
		if n == nil {
			it.to = meta.LeaseNone
			rc.items = append(rc.items, it)
			continue
		}
		it.to, it.known = leftBy(it.Mode, n.lease), true
		if it.Mode != meta.RecallQuery && it.Mode != meta.RecallDrain {
			rc.locks += c.tellLocksThen(n, func() { rc.locks-- })
		}
		n.limit = min(n.limit, it.to)
		n.recalls++
		rc.items = append(rc.items, it)
		items = c.recallInvals(items, rc, n, &it)
	}
	c.leases.recalls = append(c.leases.recalls, rc)
	c.invalidate(items, func() { c.recallTold(rc) })
}

// leftBy is what a mode leaves of a lease.
func leftBy(mode meta.RecallMode, have meta.LeaseKind) meta.LeaseKind {
	switch mode {
	case meta.RecallQuery:
		return have
	case meta.RecallRelease:
		return meta.LeaseNone
	}
	return min(have, meta.LeaseRead)
}

// recallInvals adds what the kernel must forget for one item, and blocks the
// names that it is about.
func (c *Client) recallInvals(items []Inval, rc *recall, n *node, it *recallItem) []Inval {
	switch it.Mode {
	case meta.RecallDowngrade:
		if n.dir != nil && !c.cfg.IncEpoch {
			return c.invalDir(items, n) // given under Write only, see giveEntry
		}
		if f, ok := c.files.Get(n.ino); ok && f.handles > 0 && n.lease == meta.LeaseWrite {
			items = c.invalFile(items, n.ino) // dirty pages of a mapping come as WRITEs
		}
	case meta.RecallRelease:
		if n.dir != nil || n.attr.IsDir() {
			return c.invalDir(items, n)
		}
		items = c.invalFile(items, n.ino)
	case meta.RecallAttr:
		items = c.invalAttr(items, n)
	case meta.RecallNames:
		items = c.invalAttr(c.invalNames(items, n, it.Names), n)
		for _, name := range it.Names {
			e := c.dirOf(n).at(name)
			e.blocked++
			if p, _ := c.pins.table.Get(e.ino); e.ino != 0 && p.kernel > 0 && !c.runs(e) {
				// The kernel drops what it holds of the name only when told.
				rc.after = append(rc.after, Inval{Dir: n.ino, Name: name})
			}
		}
	}
	return items
}

// recallTold goes on when the kernel has forgotten: WRITEs that this caused
// are in the buffer.
func (c *Client) recallTold(rc *recall) {
	rc.told = true
	if !slices.Contains(c.leases.recalls, rc) {
		return // its stream ended
	}
	c.recallFlush(rc, true)
}

// recallFlush gives all data that a recall concerns its place in the log.
// Another invalidation may drive out more of it before the Ack. A Query wants
// what there was when it was told: the holder goes on meanwhile, and must not
// put the answer off by that.
func (c *Client) recallFlush(rc *recall, first bool) {
	for _, it := range rc.items {
		n := c.nodeOf(it.Ino)
		if n == nil || it.Mode == meta.RecallQuery && !first {
			continue
		}
		if n.lease == meta.LeaseWrite {
			c.placeData(it.Ino)
		}
		rc.seq = max(rc.seq, c.lastSeq(it.Ino))
	}
	c.log.want = max(c.log.want, rc.seq)
}

// recallsDue answers the recalls whose flush has been sent.
func (c *Client) recallsDue() {
	l := &c.leases
	if c.ses.phase != phaseReady || len(l.recalls) == 0 {
		return
	}
	kept := l.recalls[:0]
	var done []*recall
	for _, rc := range l.recalls {
		if rc.told {
			c.recallFlush(rc, false)
		}
		if rc.told && rc.locks == 0 && (rc.seq <= c.log.sent || c.broken("ack-before-flush")) {
			done = append(done, rc)
		} else {
			kept = append(kept, rc)
		}
	}
	clear(l.recalls[len(kept):])
	l.recalls = kept
	for _, rc := range done {
		c.recallDone(rc)
	}
}

func (c *Client) recallDone(rc *recall) {
	var less []meta.Grant
	for i := range rc.items {
		it := &rc.items[i]
		n := c.nodeOf(it.Ino)
		if n == nil || !it.known {
			if lowers(it.Mode) {
				less = append(less, meta.Grant{Ino: it.Ino})
			}
			continue
		}
		was := n.lease
		c.recallItemDone(n, it)
		if n.lease < leftBy(it.Mode, meta.LeaseWrite) && lowers(it.Mode) {
			less = append(less, meta.Grant{Ino: it.Ino, Kind: n.lease})
		}
		if n.lease < was {
			n.ignore = c.ops.last
		}
		c.tidy(n)
	}
	c.stats.HandOver += c.now - rc.began
	c.stats.HandOverMax = max(c.stats.HandOverMax, c.now-rc.began)
	c.send(&meta.Ack{Recall: rc.id, LogSeq: rc.seq, Less: less})
	if len(rc.after) > 0 {
		c.invalidate(rc.after, nil)
	}
}

// voidRecalls drops the recalls of a stream that ended: nobody relies on them,
// nothing was changed by others. What is still wanted is asked for again.
func (c *Client) voidRecalls() {
	old := c.leases.recalls
	c.leases.recalls = nil
	for _, rc := range old {
		for i := range rc.items {
			if it := &rc.items[i]; it.known {
				if n := c.nodeOf(it.Ino); n != nil {
					c.recallEnds(n, it)
				}
			}
		}
	}
}

// recallEnds takes a recall off its node and names.
func (c *Client) recallEnds(n *node, it *recallItem) {
	if n.recalls--; n.recalls == 0 {
		n.limit = meta.LeaseWrite
	}
	if it.Mode != meta.RecallNames {
		return
	}
	for _, name := range it.Names {
		if e := n.dir.get(name); e != nil {
			e.blocked = max(e.blocked-1, 0)
			n.dir.settle(e)
		}
	}
}

// lowers reports whether the Ack of a mode may say that less is kept. While such
// a recall is unanswered the servers grant nothing on its inode; a Query does not
// hold them up, and what its Ack says may be older than a grant under way.
func lowers(mode meta.RecallMode) bool {
	return mode == meta.RecallDowngrade || mode == meta.RecallNames || mode == meta.RecallAttr
}

// recallItemDone forgets what the recall says is about to change.
func (c *Client) recallItemDone(n *node, it *recallItem) {
	switch it.Mode {
	case meta.RecallNames:
		n.attrOK = false
		for _, name := range it.Names {
			if e := n.dir.get(name); e != nil {
				e.known = false
			}
		}
	case meta.RecallAttr:
		n.attrOK = false
	case meta.RecallDrain:
		if n.lease > meta.LeaseNone && !n.drain {
			n.drain = true
			c.leases.draining = append(c.leases.draining, n)
		}
	}
	c.recallEnds(n, it)
	c.lower(n, min(n.lease, it.to))
	c.settlePin(n.ino)
}

// owedProgress lists the recalls of this stream whose flush may have moved
// since it was asked for last.
func (c *Client) owedProgress() (ids []uint64) {
	for _, rc := range c.leases.recalls {
		if rc.seen != c.leases.progress {
			rc.seen = c.leases.progress
			ids = append(ids, rc.id)
		}
	}
	return ids
}
