package core

import (
	"github.com/tidwall/btree"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// CheckInvariants compares what the client counts with what it holds. It is
// for tests and simulators; an error is a bug.
func (c *Client) CheckInvariants() error {
	var held, untaken, parts int
	bad := ""
	c.files.Scan(func(ino meta.Ino, f *file) bool {
		held += f.dirty.cost()
		untaken += f.dirty.cost()
		for i, p := range f.parts {
			held += p.cost
			parts++
			if i > 0 && f.parts[i-1].no >= p.no {
				bad = "parts out of order"
			}
		}
		for _, p := range f.shadows {
			held += p.cost
		}
		if (f.aged != nil) != (f.dirty.bytes > 0) {
			bad = "a file's age and its data disagree"
		}
		if len(f.parts) == 0 && (len(f.waiters) > 0 || f.pending != 0) {
			bad = "somebody waits for nothing"
		}
		if len(f.shadows) > 0 && f.reads == 0 {
			bad = "shadows without reads"
		}
		return true
	})
	mutations := 0
	c.ops.flight.Scan(func(id meta.OpID, o *op) bool {
		if !o.read {
			mutations++
		}
		if o.id != id {
			bad = "operation under a wrong id"
		}
		return true
	})
	c.pins.table.Scan(func(_ meta.Ino, p pin) bool {
		if p.replies == 0 {
			bad = "pin without a reply"
		}
		return true
	})
	switch {
	case bad != "":
	case held != c.buf.held || untaken != c.buf.untaken || parts != c.buf.parts:
		bad = "buffer accounts are wrong"
	case mutations != c.ops.mutations:
		bad = "mutations in flight are miscounted"
	case c.ops.mutations >= meta.OpWindow:
		bad = "more mutations in flight than the window"
	case c.puts.running > c.cfg.MaxPuts || c.puts.running < 0:
		bad = "blocks under way are miscounted"
	default:
		if bad = c.checkLeases(); bad == "" {
			bad = c.checkData()
		}
	}
	if bad == "" {
		return nil
	}
	return errs.E("core.invariant", errs.Other, bad, nil)
}

// checkLeases is CheckInvariants for leases, the log and what goes on around
// them; it describes what is wrong, if anything.
func (c *Client) checkLeases() (bad string) {
	if c.ses.phase == phaseEnded {
		return ""
	}
	l := &c.leases
	var locked, recalls, mutating btree.Map[meta.Ino, int]
	count := func(m *btree.Map[meta.Ino, int], ino meta.Ino) {
		n, _ := m.Get(ino)
		m.Set(ino, n+1)
	}
	c.reqs.Scan(func(_ ReqID, r *request) bool {
		for _, dir := range r.locks {
			count(&locked, dir)
		}
		return true
	})
	l.locked.Scan(func(dir meta.Ino, n int) bool {
		if m, _ := locked.Get(dir); m != n {
			bad = "locks of directories are miscounted"
		}
		return true
	})
	for _, rc := range l.recalls {
		for _, it := range rc.items {
			if it.known {
				count(&recalls, it.Ino)
			}
		}
	}
	c.ops.flight.Scan(func(_ meta.OpID, o *op) bool {
		if o.touched != nil {
			for _, ino := range o.touched.inos {
				count(&mutating, ino)
			}
		}
		return true
	})
	draining := 0
	l.table.Scan(func(ino meta.Ino, n *node) bool {
		if m, _ := recalls.Get(ino); m != n.recalls {
			bad = "recalls of a node are miscounted"
		}
		if m, _ := mutating.Get(ino); m > n.mutating {
			bad = "changes of a node are miscounted"
		}
		if n.drain {
			draining++
		}
		if b := n.check(); b != "" {
			bad = b
		}
		return true
	})
	switch {
	case bad != "":
		return bad
	case draining != len(l.draining):
		return "draining directories are miscounted"
	case l.turns.Len() != l.table.Len():
		return "the order of use and the table disagree"
	case locked.Len() != l.locked.Len():
		return "locks of directories are miscounted"
	}
	return c.checkLog()
}

// check describes what is wrong with a node by itself.
func (n *node) check() string {
	switch {
	case n.recalls == 0 && n.limit != meta.LeaseWrite:
		return "a node is limited without a recall"
	case n.locks.flight < 0 || !n.locks.own && len(n.locks.stale)+len(n.locks.waits) > 0:
		return "locks of a node are miscounted"
	case n.recalls < 0 || n.mutating < 0:
		return "a node counts below nothing"
	case n.lease > meta.LeaseNone:
	case n.attrOK || n.target != nil || n.drain:
		return "something is known of an inode without a lease"
	case n.dir != nil && n.dir.listed != 0:
		return "a listing is known without a lease"
	}
	if n.dir == nil {
		return ""
	}
	bad := ""
	n.dir.names.Scan(func(e *entry) bool {
		switch {
		case e.known && n.lease == meta.LeaseNone:
			bad = "a name is known without a lease"
		case e.mutating < 0 || e.blocked < 0:
			bad = "a name counts below nothing"
		case e.until > n.dir.until:
			bad = "a name is believed longer than its directory says"
		}
		return bad == ""
	})
	return bad
}

// checkLog describes what is wrong with the log.
func (c *Client) checkLog() string {
	l := &c.log
	bytes, unsent := 0, 0
	for i, r := range l.recs {
		if r.seq != l.acked+1+uint64(i) {
			return "the log has gaps"
		}
		bytes += r.bytes
		if r.seq > l.sent {
			unsent += r.bytes
		}
	}
	switch {
	case bytes != l.bytes || unsent != l.unsent:
		return "bytes of the log are miscounted"
	case l.last != l.acked+uint64(len(l.recs)):
		return "the log ends elsewhere"
	case l.sent < l.acked || l.sent > l.last:
		return "the log was sent beyond its ends"
	case len(l.stalled) != len(l.resume):
		return "stalled operations are miscounted"
	}
	return ""
}
