package core

import (
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// stallAge is how long data may be on its way before writes wait for it: what
// a crash can take is bounded in time, not only in bytes.
const stallAge = Time(5e8)

// writeFile accepts a write: at once, when the file may be changed here and
// there is room; else when it was executed at the server.
func (c *Client) writeFile(r *request, w WriteFile) {
	r.write = &w
	w.Append = w.Append && !w.Writeback
	switch {
	case c.cfg.Open.Capability.ReadOnly:
		c.answer(r, nil, errs.E("write", errs.ReadOnly, "", nil))
	case uint64(len(w.Data)) > meta.MaxSize || !w.Append && w.Off > meta.MaxSize-uint64(len(w.Data)):
		c.answer(r, nil, errs.E("write", errs.FileTooLarge, "", nil))
	case len(w.Data) == 0:
		c.answer(r, &meta.AttrResult{Attr: c.merged(c.knownAttr(w.Ino)), Off: w.Off}, nil)
	case c.cfg.NoLeases && w.Append:
		c.appendFile(r)
	case c.cfg.NoLeases:
		c.roomFor(r)
	default:
		c.leasedWrite(r)
	}
}

func (c *Client) knownAttr(ino meta.Ino) meta.Attr {
	if f, ok := c.files.Get(ino); ok && f.known {
		return f.attr
	}
	return meta.Attr{Ino: ino, Mode: meta.ModeRegular}
}

// leasedWrite buffers a write if the file is, or can be had, exclusively, and
// else has the server execute it.
func (c *Client) leasedWrite(r *request) {
	w := r.write
	f, ok := c.files.Get(w.Ino)
	switch {
	case ok && f.lost != nil:
		c.answer(r, nil, f.lost)
		return
	case c.bufferable(w):
		c.roomFor(r)
		return
	case w.Writeback && (c.recalled(w.Ino) || c.invalidating(w.Ino)):
		c.writeAside(r)
		return
	}
	c.acquire(r, []meta.Grant{{Ino: w.Ino, Kind: meta.LeaseWrite}}, func(err error) {
		switch {
		case r.done:
		case err != nil:
			c.answer(r, nil, err)
		case c.bufferable(w):
			c.roomFor(r)
		default:
			c.appendFile(r)
		}
	})
}

// bufferable reports whether a write may be taken into the buffer: the file is
// held exclusively; or it is still, and the kernel, told to forget its pages,
// waits for this write (C7).
func (c *Client) bufferable(w *WriteFile) bool {
	n := c.nodeOf(w.Ino)
	if n == nil || n.lease != meta.LeaseWrite {
		return false
	}
	return n.attrOK && c.mayBuffer(w.Ino) || !w.Append && c.driven(n)
}

// driven reports whether the kernel is told to forget the pages of a file that
// is held exclusively: it writes the dirty ones, and waits for all others that
// are being written.
func (c *Client) driven(n *node) bool { return n.lease == meta.LeaseWrite && c.invalidating(n.ino) }

// writeAside answers for dirty pages that are driven out of a file that is not
// held exclusively: a recall waits for them, and the server, who would have to
// execute them, for the recall. They are written after it.
func (c *Client) writeAside(r *request) {
	w := *r.write
	c.answer(r, &meta.AttrResult{Attr: meta.Attr{Ino: w.Ino, Mode: meta.ModeRegular}, Off: w.Off}, nil)
	c.appendFile(&request{write: &w, quiet: true})
}

// roomFor buffers a write when there is room. What a recall waits for does not
// wait for that.
func (c *Client) roomFor(r *request) {
	b := &c.buf
	n := c.nodeOf(r.write.Ino)
	switch {
	case !c.cfg.NoLeases && c.driven(n):
		c.buffer(r)
	case len(b.room) > 0 || !c.fits(len(r.write.Data)) || c.stalled():
		b.room = append(b.room, r)
	default:
		c.buffer(r)
	}
}

// fits reports whether n more bytes may be held. One write of any size fits
// into an empty buffer.
func (c *Client) fits(n int) bool {
	return c.buf.held == 0 || c.buf.held+n+segmentCost <= c.cfg.MaxDirty
}

// stalled reports whether the oldest data under way is so for too long.
func (c *Client) stalled() bool {
	e := c.buf.queue.Front()
	return !c.cfg.NoLeases && e != nil && e.Value.(*part).taken+stallAge < c.now
}

// admit lets waiting writes in, first come first served, and keeps the data
// moving: at most half the bound may lie untaken, and none while writes wait
// and nothing is under way.
func (c *Client) admit() {
	b := &c.buf
	for len(b.room) > 0 && (b.room[0].done || c.fits(len(b.room[0].write.Data)) && !c.stalled()) {
		r := shift(&b.room)
		switch {
		case r.done:
		case c.cfg.NoLeases || c.bufferable(r.write):
			c.buffer(r)
		default:
			c.leasedWrite(r) // the lease went meanwhile
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
	first := f.seq + 1
	if !c.cfg.NoLeases {
		var ok bool
		if first, ok = c.writeLocal(f, r); !ok {
			return
		}
	}
	f.seq = first - 1
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
		c.answer(r, &meta.AttrResult{Attr: c.ownAttr(f), Off: w.Off}, nil)
		return
	}
	c.afterPublish(w.Ino, r, func(err error) {
		c.answer(r, &meta.AttrResult{Attr: c.ownAttr(f), Off: w.Off}, c.report(w.Ino, err))
	})
}

// writeLocal makes a write part of the truth about a file that is held
// exclusively, and returns the number of its first piece: numbers are the
// times of the pieces. It is not ok if the write went another way.
func (c *Client) writeLocal(f *file, r *request) (first uint64, ok bool) {
	w, at := r.write, c.nodeOf(f.ino)
	// The servers take a writer's privileges away by the same rule.
	w.KillPriv = w.KillPriv || w.Cred.UID != 0
	f.mapped = f.mapped || w.Writeback
	now := max(c.stamp(at), int64(f.seq)+1)
	if !at.attrOK {
		return uint64(now), true // driven out while nothing is known
	}
	if w.Append {
		w.Off = at.attr.Size
		if w.Off > meta.MaxSize-uint64(len(w.Data)) {
			c.answer(r, nil, errs.E("write", errs.FileTooLarge, "", nil))
			return 0, false
		}
	}
	end := w.Off + uint64(len(w.Data))
	after, guess := at.attr.Bytes, false
	switch {
	case at.attr.Bytes == at.attr.Size && w.Off <= at.attr.Size: // no holes
		after = max(after, end)
	case w.Off >= at.attr.Size:
		after += end - w.Off
	default:
		after, guess = min(after+end-w.Off, max(after, at.attr.Size, end)), true
	}
	if !c.driven(at) && !c.spend(after-at.attr.Bytes) {
		c.appendFile(r)
		return 0, false
	}
	if w.KillPriv {
		at.attr.Mode = killPriv(at.attr, w.Cred)
	}
	chunk := f.dirty.chunk
	pieces := (end-1)/chunk - w.Off/chunk + 1
	last := now + int64(pieces) - 1
	at.attr.Size, at.attr.Bytes, at.guess = max(at.attr.Size, end), after, at.guess || guess
	at.attr.Mtime, at.attr.Ctime = last, last
	f.attr, f.known = at.attr, true
	return uint64(now), true
}
