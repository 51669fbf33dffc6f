package core

import (
	"slices"

	"agentdrive/metaserver/meta"
)

// cut is a truncation that stands in the log: maps from before it end there.
type cut struct {
	size    uint64
	version uint64 // of the content after it
}

// placeReady gives the parts of a file that are ready their places in the log.
func (c *Client) placeReady(f *file) {
	for {
		n := f.fit(true)
		if n == 0 {
			return
		}
		c.place(f, n)
	}
}

// placeData gives all buffered data of a file its place in the log, so that
// records appended later come after it, and returns the last seq that belongs
// to the file (0: none is on its way).
func (c *Client) placeData(ino meta.Ino) uint64 {
	if f, ok := c.files.Get(ino); ok {
		c.takeAll(f)
		if !c.cfg.NoLeases {
			c.placeAll(f)
		}
	}
	return c.lastSeq(ino)
}

// placeAll places every part of a file, ready or not. A block that several
// files share gets all its records at once: were one of them late, the block
// might be freed with the data of the others before it is named again.
func (c *Client) placeAll(f *file) {
	var shared []*put
	for _, p := range f.parts[f.placed:] {
		if p.put != nil && len(p.put.parts) > 1 {
			shared = append(shared, p.put)
		}
	}
	for _, b := range shared {
		for _, p := range b.parts {
			for p.rec == nil {
				c.place(p.f, p.f.fit(false))
			}
		}
	}
	for f.placed < len(f.parts) {
		c.place(f, f.fit(false))
	}
}

// place appends the Write of the next n parts to the log. It is sent when
// their blocks are durable.
func (c *Client) place(f *file, n int) {
	parts := f.parts[f.placed : f.placed+n]
	at := c.nodeOf(f.ino)
	r := &record{inos: []meta.Ino{f.ino}}
	version := uint64(1) // not known: maps asked for from now on have it
	if at.attrOK {
		at.attr.DataVersion++
		version = at.attr.DataVersion
		f.newest = version
	}
	for _, p := range parts {
		p.rec, p.version, p.size = r, version, at.attr.Size
		if p.put == nil {
			continue
		}
		if p.put.rec == nil {
			p.put.rec = r
		}
		if unplaced := func(q *part) bool { return q.rec == nil }; !slices.ContainsFunc(p.put.parts, unplaced) {
			// Whoever waits for one of the files that share the block, waits
			// for all of its records.
			for _, q := range p.put.parts {
				if q.f != f {
					r.inos = append(r.inos, q.f.ino)
				}
			}
		}
	}
	f.placed += n
	f.stampRecord(at, r, parts)
	r.done = func(err error) { c.placedDone(f, r, err) }
	r.ready = f.fill(r)
	c.logAppend(r)
	if !at.attrOK {
		f.blind = r.seq
	}
}

// stampRecord gives a Write the time that makes the servers' mtime what it is
// here: that of the newest write in it. What comes of one group in several
// Writes gets times before that: a group has at least as many writes as parts.
func (f *file) stampRecord(at *node, r *record, parts []*part) {
	last := parts[len(parts)-1]
	r.now = int64(last.newest)
	if !last.last {
		for _, p := range f.parts[f.placed:] {
			r.now--
			if p.last {
				break
			}
		}
	}
	r.now = max(r.now, f.recorded+1)
	f.recorded = r.now
	if at.attrOK {
		at.attr.Mtime, at.attr.Ctime = max(at.attr.Mtime, r.now), max(at.attr.Ctime, r.now)
	}
}

// fill makes the Write of a record from its parts, and tells whether all their
// blocks are durable.
func (f *file) fill(r *record) bool {
	w := &meta.Write{Ino: f.ino}
	ready := true
	for _, p := range f.parts[:f.placed] {
		if p.rec != r {
			continue
		}
		f.joinWriter(&w.Cred, &w.KillPriv, p.cred, p.kill)
		w.Extents = p.extents(w.Extents)
		ready = ready && p.ready
		if b := p.put; b != nil && b.rec == r && p.ready {
			w.Blocks = append(w.Blocks, b.fact)
		}
	}
	r.op = w
	return ready
}

// complete finishes the records of a file whose blocks have become durable.
func (c *Client) complete(f *file) {
	for i, p := range f.parts[:f.placed] {
		if r := p.rec; !r.ready && (i == 0 || f.parts[i-1].rec != r) && f.fill(r) {
			c.logReady(r)
		}
	}
}

// placedDone ends the life of the parts of a record that is durable. If it is
// lost, so is the session, and dropData sees to the rest.
func (c *Client) placedDone(f *file, r *record, err error) {
	n := 0
	for n < f.placed && f.parts[n].rec == r {
		n++
	}
	if err != nil || n == 0 {
		return
	}
	for _, p := range f.parts[:n] {
		c.foldMap(p)
		if p.put != nil && p.put.rec == r {
			c.latePublished(p.put)
		}
	}
	c.leave(f, n)
	c.fire(f)
	c.reap(f)
}

// patch mends the log and the attributes after the loss of parts whose blocks
// could not be stored. Records keep their places; one that has nothing to
// bring any more leaves the size as it was. A last record makes the size here
// true: what is lost reads as it did before, or as zeros.
func (c *Client) patch(f *file, lost []*part) {
	for _, p := range lost {
		r := p.rec
		if r == nil || slices.ContainsFunc(f.parts, func(q *part) bool { return q.rec == r }) {
			continue
		}
		o := &meta.SetAttr{Ino: f.ino, Set: meta.SetSize, Size: p.size}
		if p.kill {
			o.Set |= meta.KillPriv
			o.Cred = p.cred
		}
		r.op = o
		c.logReady(r)
	}
	at := c.nodeOf(f.ino)
	if at == nil || at.lease != meta.LeaseWrite || !at.attrOK {
		return
	}
	c.placeData(f.ino)
	at.attr.DataVersion++
	now := c.stamp(at)
	at.attr.Mtime, at.attr.Ctime, at.guess = now, now, true
	c.logAppend(&record{
		now: now, ready: true, inos: []meta.Ino{f.ino},
		op: &meta.SetAttr{Ino: f.ino, Set: meta.SetSize, Size: at.attr.Size},
	})
}

// bornLocal notes that a regular file was made in the log at seq: what the
// servers have of it is nothing, and need not be asked for.
func (c *Client) bornLocal(ino meta.Ino, seq uint64) {
	c.keepMap(ino, &meta.MapResult{Attr: c.nodeOf(ino).attr, Covered: meta.MaxSize}, seq)
}

// beforeTruncate is placeData for a truncation: what it will cut off anyway
// is not brought to the servers.
func (c *Client) beforeTruncate(ino meta.Ino, size uint64) {
	if f, ok := c.files.Get(ino); ok && f.lost == nil {
		if size == 0 {
			c.discard(f)
		} else if f.dirty.end() > size {
			c.emptied(f, f.dirty.cost(), func() { f.dirty.cut(size, f.dirty.end()) })
			if f.dirty.bytes == 0 {
				f.writes, f.kill = 0, false
			}
		}
	}
	c.placeData(ino)
}

// truncateLocal cuts what is known of the content of a file whose truncation
// takes its place in the log. The caller has placed the data before it, set
// the node's attributes, and appends r now.
func (c *Client) truncateLocal(r *record, ino meta.Ino, size uint64) {
	f, at := c.fileOf(ino), c.nodeOf(ino)
	if at.attr.Bytes, at.guess = min(at.attr.Bytes, size), true; size == 0 {
		at.guess = false
	}
	for _, p := range f.parts {
		p.view = clip(p.view, size)
	}
	c.clipMap(ino, size)
	x := &cut{size: size, version: at.attr.DataVersion}
	f.cuts = append(f.cuts, x)
	f.newest = x.version
	done := r.done
	r.done = func(err error) {
		f.cuts = slices.DeleteFunc(f.cuts, func(y *cut) bool { return x == y })
		if err == nil { // else no map will ever be as new
			f.fence = max(f.fence, x.version)
		}
		if done != nil {
			done(err)
		}
		c.reap(f)
	}
}

// clip returns what spans have before size.
func clip(spans []span, size uint64) []span {
	out := make([]span, 0, len(spans))
	for _, s := range spans {
		if s.end() > size {
			s.data = s.data[:max(s.off, size)-s.off]
		}
		if len(s.data) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// unlinkLocal comes before the record that takes a name of an inode away, the
// last one or not. Data of a file without names that nobody has open waits
// for the kernel to forget it.
func (c *Client) unlinkLocal(ino meta.Ino, last bool) {
	f, ok := c.files.Get(ino)
	switch {
	case !ok:
	case last && f.handles == 0:
		f.dead = true
	default:
		c.placeData(ino)
	}
}

// nobodys reports whether nobody can read the file any more once the kernel
// has forgotten it.
func (f *file) nobodys() bool { return f.dead && f.handles == 0 }

// forgotten drops the data of a file without names that the kernel forgot.
func (c *Client) forgotten(ino meta.Ino) {
	if f, ok := c.files.Get(ino); ok && f.nobodys() && (f.dirty.bytes > 0 || len(f.parts) > f.placed) {
		c.discard(f)
		c.reap(f)
	}
}

// discard drops the data of a file that has no place in the log.
func (c *Client) discard(f *file) {
	if f.dirty.bytes > 0 {
		c.emptied(f, f.dirty.cost(), func() { f.dirty.takeAll() })
		f.writes, f.kill = 0, false
	}
	if n := len(f.parts) - f.placed; n > 0 {
		gone := slices.Clone(f.parts[f.placed:])
		c.removeParts(f, f.placed, n)
		for _, p := range gone {
			c.leavePut(p)
		}
	}
	c.fire(f)
}

// unsaid reports whether there is data of a file that answers of the servers
// may know nothing of.
func (c *Client) unsaid(ino meta.Ino) bool {
	f, ok := c.files.Get(ino)
	return ok && (f.dirty.bytes > 0 || len(f.parts) > 0)
}

// said is the last seq of the log that changes an inode, for a question to the
// servers. If their answer is what counts, it must have all own data.
func (c *Client) said(ino meta.Ino) uint64 {
	if !c.cfg.NoLeases && c.unsaid(ino) && !c.own(ino) {
		return c.placeData(ino)
	}
	return c.lastSeq(ino)
}

// exactAttr reports whether the attributes of an inode held under LeaseWrite
// are to the byte what the servers will have.
func (c *Client) exactAttr(ino meta.Ino) bool {
	n := c.nodeOf(ino)
	return n == nil || !n.guess
}
