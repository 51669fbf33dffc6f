package core

import (
	"slices"

	"github.com/tidwall/btree"

	"agentdrive/metaserver/meta"
)

// acquisitions are the leases asked for. Wants of one moment travel together,
// and an inode is asked for once at a time.
type acquisitions struct {
	byIno btree.Map[meta.Ino, *wanted]
	queue []meta.Grant // to be asked for in the next Acquire
}

// wanted is one inode that is being asked for.
type wanted struct {
	kind    meta.LeaseKind
	waiters []*acquirer
}

// acquirer waits for several inodes.
type acquirer struct {
	left int
	req  *request
	fn   func(err error)
}

// has reports whether nothing needs to be asked for want.
func (c *Client) has(want meta.Grant) bool {
	n := c.nodeOf(want.Ino)
	return n != nil && n.attrOK && c.leaseNow(n) >= want.Kind
}

// acquire asks for leases and calls fn when the answer is in the table, at
// once if all are held. What was refused is not there: fn looks with leaseOf.
// r, if any, is the request on whose behalf: cancelled, fn is not called.
// Nothing is asked while one of them was refused a moment ago: with that one
// missing the operation goes to the servers anyway.
func (c *Client) acquire(r *request, wants []meta.Grant, fn func(err error)) {
	if c.cfg.Strict && slices.ContainsFunc(wants, func(w meta.Grant) bool { return w.Kind == meta.LeaseWrite }) {
		fn(nil) // as if it was refused: the operation goes to the servers
		return
	}
	if c.cfg.NoLeases || c.cfg.Open.Capability.ReadOnly || c.ses.phase == phaseEnded {
		fn(nil)
		return
	}
	for _, w := range wants {
		if n := c.nodeOf(w.Ino); n != nil && (n.refused > c.now || n.mutating > 0) && w.Kind == meta.LeaseWrite {
			fn(nil)
			return
		}
	}
	c.acquireMore(r, wants, nil, fn)
}

// acquireMore is acquire; extra are asked for on the way, if anything is, and
// not waited for by themselves.
func (c *Client) acquireMore(r *request, wants, extra []meta.Grant, fn func(err error)) {
	a := &acquirer{req: r, fn: fn}
	for _, w := range wants {
		if c.has(w) {
			continue
		}
		if c.ask(w, a) {
			a.left++
		}
	}
	if a.left == 0 {
		fn(nil)
		return
	}
	for _, w := range extra {
		if !c.has(w) {
			c.ask(w, nil)
		}
	}
}

// ask adds one inode to what is being asked for.
func (c *Client) ask(w meta.Grant, a *acquirer) bool {
	q := &c.leases.acq
	x, ok := q.byIno.Get(w.Ino)
	if !ok || x.kind < w.Kind {
		if ok {
			// Asked for less already: the stronger want goes out behind, and
			// who waits for the weaker one is served by whichever comes first.
			x.kind = w.Kind
		} else {
			x = &wanted{kind: w.Kind}
			q.byIno.Set(w.Ino, x)
		}
		q.queue = append(q.queue, w)
	}
	if a != nil {
		x.waiters = append(x.waiters, a)
	}
	return true
}

// sendAcquires asks for what has been collected.
func (c *Client) sendAcquires() {
	q := &c.leases.acq
	for len(q.queue) > 0 {
		n := min(len(q.queue), meta.MaxWants)
		o := &op{body: &meta.Acquire{Wants: q.queue[:n:n]}, forReq: true}
		for _, w := range q.queue[:n] {
			o.after = max(o.after, c.lastSeq(w.Ino))
		}
		c.log.want = max(c.log.want, o.after)
		q.queue = q.queue[n:]
		o.done = func(res meta.Result, err error) { c.acquired(o, res, err) }
		c.submit(o)
	}
	q.queue = nil
}

// acquired takes the answer to an Acquire.
func (c *Client) acquired(o *op, res meta.Result, err error) {
	body := o.body.(*meta.Acquire)
	r, ok := res.(*meta.AcquireResult)
	var done []*acquirer
	for i, w := range body.Wants {
		n := c.grantOf(o, w.Ino)
		if err == nil && ok && n != nil && i < len(r.Attrs) && r.Attrs[i].Ino == w.Ino {
			c.fillAttr(o, n, &r.Attrs[i])
		}
		if w.Kind == meta.LeaseWrite && !c.has(w) && err == nil {
			c.node(w.Ino).refused = c.now + refusalTime
		}
		x, waiting := c.leases.acq.byIno.Get(w.Ino)
		if !waiting || x.kind > w.Kind {
			continue // a stronger want of it is on its way
		}
		c.leases.acq.byIno.Delete(w.Ino)
		done = append(done, x.waiters...)
	}
	for _, a := range done {
		if a.left--; a.left == 0 && (a.req == nil || !a.req.done) {
			a.fn(nil)
		}
	}
}
