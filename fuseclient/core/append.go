package core

import (
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// appending is a write that the server executes: to the true end of a file, or
// of one that cannot be had exclusively. Those of one file run one after the
// other: the kernel holds the file's lock around each anyway.
type appending struct {
	req     *request
	file    *file
	data    WriteFile
	started bool // it is the file's current one
	puts    []*put
	left    int // puts without an end
	err     error
	op      *op
}

func (c *Client) appendFile(r *request) {
	f := c.fileOf(r.write.Ino)
	a := &appending{req: r, file: f, data: *r.write}
	r.write, r.app = nil, a
	f.appends = append(f.appends, a)
	c.nextAppend(f)
}

// nextAppend starts the first append of a file: own buffered data comes before
// it.
func (c *Client) nextAppend(f *file) {
	if len(f.appends) == 0 || f.appends[0].started {
		return
	}
	a := f.appends[0]
	a.started = true
	c.afterPublish(f.ino, a.req, func(error) { c.storeAppend(a) })
}

// storeAppend brings the data into blocks, unless it travels inline.
func (c *Client) storeAppend(a *appending) {
	if a.file.lost != nil {
		c.appended(a, nil, a.file.lost)
		return
	}
	if len(a.data.Data) <= meta.MaxInline {
		c.sendAppend(a)
		return
	}
	for data := a.data.Data; len(data) > 0; {
		n := min(len(data), c.cfg.BlockSize)
		p := &put{data: data[:n:n]}
		p.done = func(err error) {
			if a.err == nil {
				a.err = err
			}
			if a.left--; a.left == 0 {
				c.sendAppend(a)
			}
		}
		a.puts = append(a.puts, p)
		data = data[n:]
	}
	if len(a.puts) > meta.MaxExtents {
		a.puts = nil
		c.appended(a, nil, errs.E("write", errs.Invalid, "append of more bytes than one operation carries", nil))
		return
	}
	a.left = len(a.puts)
	for _, p := range a.puts {
		c.enqueuePut(p)
	}
}

func (c *Client) sendAppend(a *appending) {
	if a.err != nil {
		c.appended(a, nil, a.err)
		return
	}
	w := &meta.Write{Cred: a.data.Cred, Ino: a.file.ino, Append: a.data.Append, KillPriv: a.data.KillPriv}
	o := &op{body: w, forReq: true}
	var off uint64
	if !w.Append {
		off = a.data.Off
	}
	if len(a.puts) == 0 {
		w.Extents = []meta.Extent{{Off: off, Len: uint32(len(a.data.Data)), Kind: meta.ExtentInline, Inline: a.data.Data}}
	}
	for _, p := range a.puts {
		w.Extents = append(w.Extents, meta.Extent{Off: off, Len: p.fact.Len, Kind: meta.ExtentBlock, Block: p.fact.ID})
		p.name(o, w)
		off += uint64(p.fact.Len)
	}
	o.done = func(res meta.Result, err error) { c.appended(a, res, err) }
	a.op, a.req.op = o, o
	if c.cfg.NoLeases {
		c.submit(o)
		return
	}
	c.syncChange(o)
}

// appended ends an append and starts the next.
func (c *Client) appended(a *appending, res meta.Result, err error) {
	f := a.file
	if at, ok := res.(*meta.AttrResult); ok && err == nil {
		for _, p := range a.puts {
			c.latePublished(p)
		}
		c.raiseFence(at.Attr)
		if !c.cfg.NoLeases {
			c.dropMap(f.ino) // maps asked for meanwhile may be older
		}
		c.answer(a.req, &meta.AttrResult{Attr: c.merged(at.Attr), Off: at.Off}, nil)
		if c.cfg.NoLeases {
			f.keep = c.ops.last
		}
	} else {
		if err == nil {
			err = errs.E("write", errs.Corrupt, "wrong kind of result", nil)
		}
		c.giveUpPuts(a)
		if a.req.quiet {
			c.blame(f, err)
		}
		c.answer(a.req, nil, err)
	}
	c.removeAppend(a)
}

func (c *Client) giveUpPuts(a *appending) {
	for _, p := range a.puts {
		c.forgetPut(p)
	}
	a.puts = nil
}

func (c *Client) removeAppend(a *appending) {
	f := a.file
	for i, b := range f.appends {
		if a == b {
			f.appends = append(f.appends[:i:i], f.appends[i+1:]...)
			break
		}
	}
	c.nextAppend(f)
	c.reap(f)
}

// appendCanceled takes an append back that was not sent; one that was stays
// until its outcome is known.
func (c *Client) appendCanceled(a *appending) {
	if a.op != nil && a.op.id != 0 {
		return
	}
	c.giveUpPuts(a)
	c.removeAppend(a)
}

// restartAppend makes the current append begin anew in the next session,
// unless it was sent: then its outcome is lost with the session.
func (c *Client) restartAppend(f *file) {
	if len(f.appends) == 0 || !f.appends[0].started || f.appends[0].op != nil && f.appends[0].op.id != 0 {
		return
	}
	a := f.appends[0]
	if a.op != nil {
		c.drop(a.op)
		a.op, a.req.op = nil, nil
	}
	f.dropWaiters(a.req)
	a.puts, a.left, a.err, a.started = nil, 0, nil, false
}
