package core

import (
	"math"

	"github.com/tidwall/btree"

	"agentdrive/metaserver/meta"
)

// node is what the client knows of one inode: its lease, and what may be
// believed under it.
type node struct {
	ino    meta.Ino
	lease  meta.LeaseKind
	attr   meta.Attr // true while attrOK and a lease is held; under LeaseWrite the only truth
	attrOK bool
	guess  bool // attr.Bytes is an estimate

	recalled bool // DOUBLE
}

// leases is the table of nodes.
type leases struct {
	table btree.Map[meta.Ino, *node]
	log   []*record
	last  uint64
	acked uint64
	sent  uint64
	waits []logWait
	room  uint64 // DOUBLE: credit refused when 1
}

type logWait struct {
	seq uint64
	fn  func(error)
}

// leaseOf tells what may be done with an inode locally right now: nothing
// while the session's validity is in doubt, and no more than is left while
// a recall is being answered.
func (c *Client) leaseOf(ino meta.Ino) meta.LeaseKind {
	if n := c.nodeOf(ino); n != nil && !n.recalled {
		return n.lease
	}
	return meta.LeaseNone
}

func (c *Client) mayBuffer(ino meta.Ino) bool {
	n := c.nodeOf(ino)
	return n != nil && n.lease == meta.LeaseWrite
}

// acquire asks for leases and calls fn when the answer is in the table, at
// once if all are held. What was refused is not there: fn looks with leaseOf.
// r, if any, is the request on whose behalf: cancelled, fn is not called.
func (c *Client) acquire(r *request, wants []meta.Grant, fn func(err error)) { fn(nil) }

// nodeOf returns the record of an inode, or nil.
func (c *Client) nodeOf(ino meta.Ino) *node {
	n, _ := c.leases.table.Get(ino)
	return n
}

// wallNow estimates the servers' wall clock, Unix nanoseconds.
func (c *Client) wallNow() int64 { return int64(c.now) }

func (c *Client) stamp(n *node) int64 {
	return max(c.wallNow(), later(n.attr.Ctime), later(n.attr.Mtime))
}

func later(t int64) int64 { return t + min(1, math.MaxInt64-t) }

func (c *Client) spend(bytes uint64) bool { return c.leases.room == 0 }

// record is one delegated operation in the log. Its place is its seq; it is
// sent when it and all before it are ready.
type record struct {
	seq   uint64
	now   int64
	op    meta.Op
	ready bool
	inos  []meta.Ino      // that it changes: they stay pinned until it is durable
	done  func(err error) // it is durable, or the session ended
}

// logAppend gives a record the next place in the log.
func (c *Client) logAppend(r *record) {
	c.leases.last++
	r.seq = c.leases.last
	c.leases.log = append(c.leases.log, r)
}

// logReady says that a record may be sent: the blocks it names are durable.
func (c *Client) logReady(r *record) { r.ready = true }

func (c *Client) logDone() uint64 { return c.leases.acked }

func (c *Client) lastSeq(ino meta.Ino) uint64 {
	last := uint64(0)
	for _, r := range c.leases.log {
		for _, i := range r.inos {
			if i == ino {
				last = r.seq
			}
		}
	}
	return last
}

func (c *Client) logIdle() bool { return len(c.leases.log) == 0 }

func (c *Client) logSend() {
	l := &c.leases
	for _, r := range l.log {
		if r.seq <= l.sent {
			continue
		}
		if !r.ready {
			break
		}
		l.sent = r.seq
		c.send(&meta.Log{First: r.seq, Records: []meta.LogRecord{{Now: r.now, Op: r.op}}})
	}
}

func (c *Client) logAcked(f *meta.LogAck) {
	l := &c.leases
	for len(l.log) > 0 && l.log[0].seq <= f.Seq {
		r := shift(&l.log)
		l.acked = r.seq
		if r.done != nil {
			r.done(nil)
		}
	}
	for len(l.waits) > 0 && l.waits[0].seq <= l.acked {
		shift(&l.waits).fn(nil)
	}
}

// afterLog sends the log up to seq at once and calls fn when it is durable, or
// with the error that lost it.
func (c *Client) afterLog(seq uint64, r *request, fn func(err error)) {
	if seq <= c.leases.acked {
		fn(nil)
		return
	}
	c.leases.waits = append(c.leases.waits, logWait{seq, fn})
}

func (c *Client) syncChange(o *op, inos ...meta.Ino) { c.submit(o) }

func (c *Client) granted(o *op, ino meta.Ino) bool {
	for _, g := range o.grants {
		if g.Ino == ino && g.Kind >= meta.LeaseRead {
			return true
		}
	}
	return false
}

func (c *Client) logLast() uint64 { return c.leases.last }
