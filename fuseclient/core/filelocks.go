package core

import (
	"agentdrive/internal/errs"
	"agentdrive/metaserver/locks"
	"agentdrive/metaserver/meta"
)

// Advisory locks are the servers' memory: every operation on them goes there.
// The client remembers what it was granted, to declare it on a new stream.

// lockDone takes the outcome of a SetLock. A lock that came when nobody waited
// for it any longer is given back.
func (c *Client) lockDone(o *op, abandoned bool, err error) {
	x := o.body.(*meta.SetLock)
	if err != nil {
		return
	}
	c.locks.Set(0, x.Lock, false)
	if !abandoned || x.Lock.Kind == meta.Unlocked {
		return
	}
	back := x.Lock
	back.Kind = meta.Unlocked
	u := &op{body: &meta.SetLock{Lock: back}}
	u.done = func(_ meta.Result, err error) { c.lockDone(u, false, err) }
	c.submit(u)
}

// cancelLock asks the servers to end a wait for a lock, and reports whether the
// answer will come from there.
func (c *Client) cancelLock(r *request) bool {
	o := r.op
	if _, ok := o.body.(*meta.SetLock); !ok || o.id == 0 || c.cfg.NoLeases {
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
// the file.
func (c *Client) loseLocks(err *errs.Error) {
	for _, l := range c.locks.Owned(0) {
		if f, ok := c.files.Get(l.Ino); ok && f.handles > 0 {
			f.lost = err
		}
	}
	c.locks = locks.New()
}
