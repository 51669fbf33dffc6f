package core

import (
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// writeFile accepts a write: at once, when there is room, or for appends when
// it was executed at the server.
func (c *Client) writeFile(r *request, w WriteFile) {
	r.write = &w
	switch {
	case c.cfg.Open.Capability.ReadOnly:
		c.answer(r, nil, errs.E("write", errs.ReadOnly, "", nil))
	case uint64(len(w.Data)) > meta.MaxSize || !w.Append && w.Off > meta.MaxSize-uint64(len(w.Data)):
		c.answer(r, nil, errs.E("write", errs.FileTooLarge, "", nil))
	case len(w.Data) == 0:
		c.answer(r, &meta.AttrResult{Attr: c.merged(c.knownAttr(w.Ino)), Off: w.Off}, nil)
	case w.Append:
		c.appendFile(r)
	case len(c.buf.room) > 0 || !c.fits(len(w.Data)):
		c.buf.room = append(c.buf.room, r)
	default:
		c.buffer(r)
	}
}

func (c *Client) knownAttr(ino meta.Ino) meta.Attr {
	if f, ok := c.files.Get(ino); ok && f.known {
		return f.attr
	}
	return meta.Attr{Ino: ino, Mode: meta.ModeRegular}
}

// fits reports whether n more bytes may be held. One write of any size fits
// into an empty buffer.
func (c *Client) fits(n int) bool {
	return c.buf.held == 0 || c.buf.held+n+segmentCost <= c.cfg.MaxDirty
}

// admit lets waiting writes in, first come first served, and keeps the data
// moving: at most half the bound may lie untaken, and none while writes wait
// and nothing is under way.
func (c *Client) admit() {
	b := &c.buf
	for len(b.room) > 0 && (b.room[0].done || c.fits(len(b.room[0].write.Data))) {
		if r := shift(&b.room); !r.done {
			c.buffer(r)
		}
	}
	for e := b.aged.Front(); e != nil; e = b.aged.Front() {
		if b.untaken <= c.cfg.MaxDirty/2 && (len(b.room) == 0 || b.parts > 0) {
			break
		}
		c.takeAll(e.Value.(*file))
	}
}

// buffer takes a write into the buffer.
func (c *Client) buffer(r *request) {
	w := r.write
	f := c.fileOf(w.Ino)
	if f.lost != nil {
		c.answer(r, nil, f.lost)
		return
	}
	for off, data := w.Off, w.Data; len(data) > 0; {
		n := int(min(f.dirty.chunk-off%f.dirty.chunk, uint64(len(data))))
		if f.aged == nil {
			f.since = c.now
			f.aged = c.buf.aged.PushBack(f)
		}
		f.seq++
		f.writes++
		f.joinWriter(&f.cred, &f.kill, w.Cred, w.KillPriv)
		before := f.dirty.cost()
		f.dirty.put(off, data[:n], f.seq)
		c.buf.held += f.dirty.cost() - before
		c.buf.untaken += f.dirty.cost() - before
		if f.dirty.full(off) {
			c.takeChunk(f, off)
		}
		off, data = off+uint64(n), data[n:]
	}
	r.write = nil
	if !w.Sync {
		c.answer(r, &meta.AttrResult{Attr: f.merged(), Off: w.Off}, nil)
		return
	}
	c.afterPublish(w.Ino, r, func(err error) {
		c.answer(r, &meta.AttrResult{Attr: f.merged(), Off: w.Off}, c.report(w.Ino, err))
	})
}
