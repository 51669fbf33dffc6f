package core

import (
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// request is a call of the kernel without an answer so far.
type request struct {
	id       ReqID
	op       *op        // the operation that stands for it, once there is one
	file     *file      // on whose publication it waits
	write    *WriteFile // until its data is buffered or sent
	app      *appending // WriteFile with Append
	done     bool       // answered: whatever still comes is absorbed
	canceled bool       // nobody waits, but the outcome must be told if it can be
}

// answer completes a request; later ones for the same request are ignored, so
// that a late outcome finds its caller gone.
func (c *Client) answer(r *request, result any, err error) {
	if r.done {
		return
	}
	r.done = true
	r.op, r.write = nil, nil
	c.reqs.Delete(r.id)
	if err != nil {
		result = nil
	}
	c.emit(Answer{ID: r.id, Result: result, Err: err})
}

func (c *Client) request(ev Request) {
	r := &request{id: ev.ID}
	if _, reused := c.reqs.Set(ev.ID, r); reused {
		panic("core: request id in use")
	}
	if c.ses.phase == phaseEnded {
		c.answer(r, nil, c.ses.err)
		return
	}
	if c.shutdown != nil {
		c.answer(r, nil, errs.E("request", errs.Expired, "the mount is shutting down", nil))
		return
	}
	switch o := ev.Op.(type) {
	case *meta.Lookup, *meta.GetAttr, *meta.Readlink, *meta.ReadDir, *meta.GetXattr, *meta.ListXattr,
		*meta.StatFS, *meta.Make, *meta.Unlink, *meta.Rmdir, *meta.SetXattr, *meta.RemoveXattr:
		c.call(r, o.(meta.Op))
	case *meta.SetAttr:
		// Published data must not come after the change: it would undo times,
		// modes and sizes.
		c.afterPublish(o.Ino, r, func(error) { c.call(r, o) })
	case *meta.Link:
		c.afterPublish(o.Ino, r, func(err error) { c.callUnless(err, r, o) })
	case *meta.Rename:
		c.rename(r, o)
	case ReadFile:
		c.readFile(r, o)
	case WriteFile:
		c.writeFile(r, o)
	case Flush:
		c.flushFile(r, o.Ino)
	case Fsync:
		c.syncFile(r, o.Ino)
	case SyncAll:
		c.syncAll(r)
	case Shutdown:
		c.shutdown = r
	default:
		c.answer(r, nil, errs.E("request", errs.Invalid, "not an operation of a client", nil))
	}
}

// call sends an operation for a request and answers with its outcome.
func (c *Client) call(r *request, body meta.Op) {
	if r.done {
		return
	}
	r.op = &op{body: body}
	r.op.done = func(res meta.Result, err error) { c.called(r, body, res, err) }
	c.submit(r.op)
}

// callUnless is call, or the answer err: a name must not appear for content
// that was lost on the way.
func (c *Client) callUnless(err error, r *request, body meta.Op) {
	if err != nil {
		c.answer(r, nil, err)
		return
	}
	c.call(r, body)
}

func (c *Client) called(r *request, body meta.Op, res meta.Result, err error) {
	c.names.learn(body, res, err)
	if err != nil {
		c.answer(r, nil, err)
		return
	}
	if a, ok := res.(*meta.AttrResult); ok && body.Kind() == meta.KindSetAttr {
		c.raiseFence(a.Attr)
	}
	c.answer(r, c.adopt(res, !r.done), nil)
}

// adopt counts the pins that a result carries and merges what is known here
// into it. A result that reaches nobody (delivered false) leaves no
// reference in the kernel. Results are copied, not changed: their sender may
// keep them.
func (c *Client) adopt(res meta.Result, delivered bool) meta.Result {
	switch x := res.(type) {
	case *meta.EntryResult:
		c.pinned(x.Attr.Ino, delivered)
		y := *x
		y.Attr = c.merged(x.Attr)
		return &y
	case *meta.AttrResult:
		y := *x
		y.Attr = c.merged(x.Attr)
		return &y
	case *meta.DirResult:
		if !x.Plus {
			return x
		}
		y := *x
		y.Entries = append([]meta.DirEntry(nil), x.Entries...)
		for i := range y.Entries {
			c.pinned(y.Entries[i].Attr.Ino, delivered)
			y.Entries[i].Attr = c.merged(y.Entries[i].Attr)
		}
		return &y
	}
	return res
}

// cancel answers a request early where that is no lie. A mutation that was
// sent may have happened: with a stream its outcome is near and is told;
// without one nobody knows when it comes, and the caller is let go.
func (c *Client) cancel(id ReqID) {
	r, ok := c.reqs.Get(id)
	if !ok {
		return
	}
	if o := r.op; o != nil && !o.read && o.id != 0 && c.ses.phase == phaseReady {
		r.canceled = true
		return
	}
	c.interrupt(r)
}

func (c *Client) interrupt(r *request) {
	o := r.op
	c.answer(r, nil, errs.E("request", errs.Interrupted, "", nil))
	if o != nil && o.id == 0 {
		c.drop(o)
	}
	if r.file != nil {
		r.file.dropWaiters(r)
	}
	if r.app != nil {
		c.appendCanceled(r.app)
	}
}

// interruptCanceled lets those go whose outcome got out of reach.
func (c *Client) interruptCanceled() {
	var gone []*request
	c.reqs.Scan(func(_ ReqID, r *request) bool {
		if r.canceled {
			gone = append(gone, r)
		}
		return true
	})
	for _, r := range gone {
		c.interrupt(r)
	}
}
