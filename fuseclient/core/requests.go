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
	quiet    bool       // nobody waits: the kernel has its answer already
	done     bool       // answered: whatever still comes is absorbed
	canceled bool       // nobody waits, but the outcome must be told if it can be

	lock       *lockWait // SetLock that is blocked here
	leaseTries int       // of a ReadFile: leases asked for because it had none

	what  any        // the operation as the kernel asked for it
	locks []meta.Ino // directories whose kernel lock it holds
}

// answer completes a request; later ones for the same request are ignored, so
// that a late outcome finds its caller gone.
func (c *Client) answer(r *request, result any, err error) {
	c.answerCached(r, result, err, Cache{}, nil)
}

// answerCached is answer with lifetimes for the kernel.
func (c *Client) answerCached(r *request, result any, err error, cache Cache, lives []Cache) {
	if r.done {
		return
	}
	r.done = true
	r.op, r.write = nil, nil
	if r.quiet {
		return
	}
	c.reqs.Delete(r.id)
	if err != nil {
		result = nil
	}
	c.emit(Answer{ID: r.id, Result: result, Err: err, Cache: cache, Lives: lives})
	c.unlockDirs(r)
}

// lockDirs notes the directories whose lock the kernel holds while a request is
// open: a notification about a name in one would wait for its answer (C5).
func (c *Client) lockDirs(r *request) {
	body, ok := r.what.(meta.Op)
	if c.cfg.NoLeases || r.done || r.locks != nil || !ok {
		return
	}
	switch o := body.(type) {
	case *meta.Lookup:
		r.locks = []meta.Ino{o.Parent}
	case *meta.ReadDir:
		r.locks = []meta.Ino{o.Dir}
	case *meta.SetAttr:
		r.locks = []meta.Ino{o.Ino}
	case *meta.SetXattr:
		r.locks = []meta.Ino{o.Ino}
	case *meta.RemoveXattr:
		r.locks = []meta.Ino{o.Ino}
	case *meta.Make, *meta.Link, *meta.Unlink, *meta.Rmdir, *meta.Rename:
		// Also of the directories that are removed or moved; names in those
		// are notified of under their own locks.
		r.locks = append(append([]meta.Ino{}, dirsOf(body)...), c.namedDirs(body)...)
	}
	for _, dir := range r.locks {
		n, _ := c.leases.locked.Get(dir)
		c.leases.locked.Set(dir, n+1)
	}
}

// namedDirs lists the inodes that an Rmdir or Rename names, as far as known.
func (c *Client) namedDirs(body meta.Op) (inos []meta.Ino) {
	named := func(dir meta.Ino, name string) {
		if ino := c.named(nameKey{dir, name}); ino != 0 {
			inos = append(inos, ino)
		}
	}
	switch o := body.(type) {
	case *meta.Rmdir:
		named(o.Parent, o.Name)
	case *meta.Rename:
		named(o.OldParent, o.OldName)
		named(o.NewParent, o.NewName)
	}
	return inos
}

func (c *Client) unlockDirs(r *request) {
	for _, dir := range r.locks {
		if n, _ := c.leases.locked.Get(dir); n > 1 {
			c.leases.locked.Set(dir, n-1)
		} else {
			c.leases.locked.Delete(dir)
		}
	}
	r.locks = nil
}

func (c *Client) request(ev Request) {
	r := &request{id: ev.ID, what: ev.Op}
	defer func() {
		if r.done {
			c.stats.Local++
			return
		}
		c.lockDirs(r)
	}()
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
	case *meta.Lookup, *meta.GetAttr, *meta.Readlink, *meta.ReadDir, *meta.GetXattr, *meta.ListXattr, *meta.StatFS:
		if !c.readLocal(r, o.(meta.Op)) {
			c.call(r, o.(meta.Op))
		}
	case *meta.SetLock:
		c.setLock(r, o)
	case *meta.GetLock:
		c.getLock(r, o)
	case *meta.Make, *meta.Unlink, *meta.Rmdir, *meta.SetAttr, *meta.Link, *meta.Rename, *meta.SetXattr, *meta.RemoveXattr:
		c.writes++
		c.change(r, o.(meta.Op))
	case ReadFile:
		c.readFile(r, o)
	case WriteFile:
		c.writes++
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
	o := &op{body: body, forReq: true}
	writes := c.writes
	o.done = func(res meta.Result, err error) {
		c.learnUse(res, writes)
		c.called(r, o, res, err)
	}
	r.op = o
	if !body.Kind().IsRead() {
		c.lockDirs(r)
		c.syncChange(o)
		return
	}
	if !c.cfg.NoLeases {
		o.after = c.readAfter(body)
		c.log.want = max(c.log.want, o.after)
	}
	c.submit(o)
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

func (c *Client) called(r *request, o *op, res meta.Result, err error) {
	body := o.body
	c.names.learn(body, res, err)
	if body.Kind().IsRead() {
		c.learnRead(o, res, err)
	}
	if err != nil {
		c.answerCached(r, nil, err, c.lifeOf(body, nil, err), nil)
		return
	}
	if a, ok := res.(*meta.AttrResult); ok && body.Kind() == meta.KindSetAttr {
		c.raiseFence(a.Attr)
	}
	res = c.adopt(res, !r.done)
	if r.done {
		return
	}
	c.answerCached(r, res, nil, c.lifeOf(body, res, nil), c.livesOf(body, res))
}

// lifeOf tells how long the kernel may believe an answer of the servers: as
// long as the table says the same (D3: what was not granted is not in it).
func (c *Client) lifeOf(body meta.Op, res meta.Result, err error) (life Cache) {
	if c.cfg.NoLeases {
		return life
	}
	entry := func(dir meta.Ino, name string, ino meta.Ino) Time {
		p := c.nodeOf(dir)
		if p == nil {
			return 0
		}
		if known, _, ok := p.dir.find(name); !ok || known != ino {
			return 0
		}
		return c.giveEntry(p, name)
	}
	switch o := body.(type) {
	case *meta.Lookup:
		if e, ok := res.(*meta.EntryResult); ok {
			life.Entry, life.Attr = entry(o.Parent, o.Name, e.Attr.Ino), c.giveAttr(c.nodeOf(e.Attr.Ino))
		} else if errs.Is(err, errs.NotExist) {
			life.Entry = entry(o.Parent, o.Name, 0)
		}
	case *meta.Make:
		if e, ok := res.(*meta.EntryResult); ok { // C2: no attributes
			life.Entry = entry(o.Parent, o.Name, e.Attr.Ino)
			if c.broken("C2-attr-in-create") {
				life.Attr = c.giveAttr(c.nodeOf(e.Attr.Ino))
			}
		}
	case *meta.Link:
		if e, ok := res.(*meta.EntryResult); ok {
			life.Entry = entry(o.Parent, o.Name, e.Attr.Ino)
		}
	case *meta.GetAttr, *meta.SetAttr:
		if a, ok := res.(*meta.AttrResult); ok {
			life.Attr = c.giveAttr(c.nodeOf(a.Attr.Ino))
		}
	}
	return life
}

func (c *Client) livesOf(body meta.Op, res meta.Result) []Cache {
	d, ok := res.(*meta.DirResult)
	o, isDir := body.(*meta.ReadDir)
	if !ok || !isDir || !d.Plus || c.cfg.NoLeases {
		return nil
	}
	p := c.nodeOf(o.Dir)
	lives := make([]Cache, len(d.Entries))
	for i := range d.Entries {
		e := &d.Entries[i]
		lives[i].Attr = c.giveAttr(c.nodeOf(e.Attr.Ino))
		if p == nil {
			continue
		}
		if known, _, ok := p.dir.find(e.Name); ok && known == e.Attr.Ino {
			lives[i].Entry = c.giveEntry(p, e.Name)
		}
	}
	return lives
}

// truth replaces what an answer says of an inode by what the table knows.
func (c *Client) truth(a meta.Attr) meta.Attr {
	if n := c.nodeOf(a.Ino); n != nil && n.attrOK && c.readable(n) {
		return n.attr
	}
	return a
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
		y.Attr = c.merged(c.truth(x.Attr))
		return &y
	case *meta.AttrResult:
		y := *x
		y.Attr = c.merged(c.truth(x.Attr))
		return &y
	case *meta.DirResult:
		if !x.Plus {
			return x
		}
		y := *x
		y.Entries = append([]meta.DirEntry(nil), x.Entries...)
		for i := range y.Entries {
			c.pinned(y.Entries[i].Attr.Ino, delivered)
			y.Entries[i].Attr = c.merged(c.truth(y.Entries[i].Attr))
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
	if c.cancelLock(r) {
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
