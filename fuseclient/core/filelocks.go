package core

import (
	"slices"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/locks"
	"agentdrive/metaserver/meta"
)

// Advisory locks are the servers' memory. The client remembers what it was
// granted, to declare it on a new stream. While it holds Write on an inode and
// the servers have said that nobody else has to do with its locks (a grant of
// Write in the reply to a SetLock), it decides them itself; before it gives
// that up it tells the servers what has become of them.

// nodeLocks is what goes on with the locks of one inode.
type nodeLocks struct {
	own    bool          // decided here while Write lasts
	stale  []locks.Owner // whose locks the servers do not know as they are
	flight int           // SetLocks without an answer
	waits  []*lockWait   // blocked here
}

// lockWait is a request that is blocked by a lock of this mount.
type lockWait struct {
	ticket locks.Ticket
	req    *request
	op     *meta.SetLock
}

// decides reports whether locks of n are decided here now.
func (c *Client) decides(n *node) bool {
	return n != nil && n.locks.own && n.locks.flight == 0 && c.leaseNow(n) == meta.LeaseWrite
}

// setLock serves SetLock.
func (c *Client) setLock(r *request, x *meta.SetLock) {
	n := c.nodeOf(x.Lock.Ino)
	if !c.decides(n) {
		c.lockAtServer(r, x)
		return
	}
	c.touchNode(n)
	res := c.locks.Set(0, x.Lock, x.Wait)
	if res.Verdict == locks.Granted || x.Lock.Flock { // a flock is given up before another waits
		c.staleLocks(n, &x.Lock)
	}
	switch res.Verdict {
	case locks.Granted:
		c.answer(r, &meta.EmptyResult{}, nil)
	case locks.Conflict:
		c.answer(r, nil, errs.E("lock.set", errs.WouldBlock, "", nil))
	case locks.Deadlock:
		c.answer(r, nil, errs.E("lock.set", errs.Deadlock, "", nil))
	case locks.Queued:
		w := &lockWait{res.Ticket, r, x}
		r.lock = w
		n.locks.waits = append(n.locks.waits, w)
	}
	c.wakeLocks(n, res.Woken)
}

// staleLocks notes that the servers do not know the locks of an owner any more.
func (c *Client) staleLocks(n *node, l *meta.FileLock) {
	o := locks.Owner{Flock: l.Flock, ID: l.Owner}
	if !slices.Contains(n.locks.stale, o) {
		n.locks.stale = append(n.locks.stale, o)
	}
}

// wakeLocks answers requests whose locks came.
func (c *Client) wakeLocks(n *node, woken []locks.Ticket) {
	for _, k := range woken {
		i := slices.IndexFunc(n.locks.waits, func(w *lockWait) bool { return w.ticket == k })
		if i < 0 {
			continue
		}
		w := n.locks.waits[i]
		n.locks.waits = slices.Delete(n.locks.waits, i, i+1)
		c.staleLocks(n, &w.op.Lock)
		w.req.lock = nil
		c.answer(w.req, &meta.EmptyResult{}, nil)
	}
}

// getLock serves GetLock.
func (c *Client) getLock(r *request, x *meta.GetLock) {
	n := c.nodeOf(x.Lock.Ino)
	if !c.decides(n) {
		c.tellLocks(n)
		c.call(r, x)
		return
	}
	l, found := c.locks.Get(0, x.Lock)
	if !found {
		l = meta.FileLock{Ino: x.Lock.Ino, Flock: x.Lock.Flock, Kind: meta.Unlocked, End: meta.LockEOF}
	}
	c.answer(r, &meta.LockResult{Lock: l}, nil)
}

// lockAtServer sends a SetLock, behind what the servers must know before.
func (c *Client) lockAtServer(r *request, x *meta.SetLock) {
	n := c.node(x.Lock.Ino)
	c.tellLocks(n)
	o := &op{body: x, forReq: true}
	o.done = func(_ meta.Result, err error) {
		c.lockDone(o, r.done, err)
		c.answer(r, &meta.EmptyResult{}, err)
	}
	r.op = o
	c.submitLock(n, o)
}

// submitLock sends a SetLock and counts it until its answer.
func (c *Client) submitLock(n *node, o *op) {
	n.locks.flight++
	over := func() {
		n.locks.flight--
		c.tidy(n)
	}
	done := o.done
	o.done = func(res meta.Result, err error) {
		over()
		done(res, err)
	}
	o.withdrawn = over
	c.submit(o)
}

// lockDone takes the outcome of a SetLock. A lock that came when nobody waited
// for it any longer is given back.
func (c *Client) lockDone(o *op, abandoned bool, err error) {
	x := o.body.(*meta.SetLock)
	if err != nil {
		return
	}
	c.locks.Set(0, x.Lock, false)
	n := c.grantOf(o, x.Lock.Ino)
	if n != nil && n.locks.flight == 0 && c.leaseNow(n) == meta.LeaseWrite && !c.cfg.NoLeases &&
		slices.Contains(o.grants, meta.Grant{Ino: n.ino, Kind: meta.LeaseWrite}) {
		n.locks.own = true
	}
	if abandoned && x.Lock.Kind != meta.Unlocked {
		back := x.Lock
		back.Kind = meta.Unlocked
		c.tellLock(c.node(back.Ino), back, nil)
	}
}

// tellLock tells the servers of a lock that this mount has decided on.
func (c *Client) tellLock(n *node, l meta.FileLock, fn func()) {
	u := &op{body: &meta.SetLock{Lock: l}}
	u.done = func(_ meta.Result, err error) {
		if fn == nil {
			c.lockDone(u, false, err)
		} else {
			fn()
		}
	}
	c.submitLock(n, u)
}

// tellLocks gives the decision about the locks of an inode up: the servers are
// told what became of them, and requests blocked here wait there. What is sent
// on the stream from now on comes behind. It returns the number of answers to
// come.
func (c *Client) tellLocks(n *node) (told int) { return c.tellLocksThen(n, func() {}) }

// tellLocksThen is tellLocks; fn is called with each answer.
func (c *Client) tellLocksThen(n *node, fn func()) (told int) {
	if n == nil || !n.locks.own {
		return 0
	}
	stale, waits := n.locks.stale, n.locks.waits
	n.locks.own, n.locks.stale, n.locks.waits = false, nil, nil
	for _, o := range stale {
		all := meta.FileLock{Ino: n.ino, Flock: o.Flock, Owner: o.ID, End: meta.LockEOF}
		c.tellLock(n, all, fn)
		told++
		for _, l := range c.locks.OwnedOn(n.ino, 0) {
			if l.Flock == o.Flock && l.Owner == o.ID {
				c.tellLock(n, l, fn)
				told++
			}
		}
	}
	for _, w := range waits {
		c.locks.Cancel(w.ticket)
		if w.req.lock = nil; !w.req.done {
			c.lockAtServer(w.req, w.op)
		}
	}
	return told
}

// cancelLock takes a request for a lock back, and reports whether its answer
// will come: blocked at the servers, from there.
func (c *Client) cancelLock(r *request) bool {
	if w := r.lock; w != nil {
		c.locks.Cancel(w.ticket)
		r.lock = nil
		if n := c.nodeOf(w.op.Lock.Ino); n != nil {
			n.locks.waits = slices.DeleteFunc(n.locks.waits, func(x *lockWait) bool { return x == w })
		}
		return false
	}
	o := r.op
	if o == nil || o.id == 0 || c.cfg.NoLeases {
		return false
	}
	if _, ok := o.body.(*meta.SetLock); !ok {
		return false
	}
	o.canceled = true
	if c.ses.phase != phaseReady {
		return false // told when the operation is sent again
	}
	r.canceled = true
	c.send(&meta.CancelOp{ID: o.id})
	return true
}

// reclaimLocks declares the locks held.
func (c *Client) reclaimLocks(frame *meta.Reclaim) *meta.Reclaim {
	for _, l := range c.locks.Owned(0) {
		if len(frame.Locks) >= pinsPerReclaim {
			c.send(frame)
			frame = &meta.Reclaim{}
		}
		frame.Locks = append(frame.Locks, l)
	}
	return frame
}

// loseLocks forgets the locks of an ended session. Who relied on one is told by
// the file; who waits for one asks the next session.
func (c *Client) loseLocks(err *errs.Error) {
	for _, l := range c.locks.Owned(0) {
		if f, ok := c.files.Get(l.Ino); ok && f.handles > 0 {
			f.lost = err
		}
	}
	var waits []*lockWait
	c.leases.table.Scan(func(_ meta.Ino, n *node) bool {
		waits = append(waits, n.locks.waits...)
		n.locks.own, n.locks.stale, n.locks.waits = false, nil, nil
		return true
	})
	c.locks = locks.New()
	for _, w := range waits {
		if w.req.lock = nil; !w.req.done {
			c.lockAtServer(w.req, w.op)
		}
	}
}
