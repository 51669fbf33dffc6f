package core

import (
	"container/list"
	"slices"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// file is the record of an inode with buffered data, open handles or reads
// under way. Data moves from dirty through parts to the server; each step
// keeps it visible to own reads.
type file struct {
	ino     meta.Ino
	attr    meta.Attr // newest of the server's that was seen, if known
	known   bool
	handles int

	dirty  dirtySet // not taken by a publication
	seq    uint64   // number of the last write
	writes int      // that dirty holds, for mtime
	cred   meta.Cred
	kill   bool // a write in dirty clears setuid and setgid
	since  Time // age of dirty
	aged   *list.Element

	parts    []*part // taken and not yet published, in order
	partsEnd uint64  // end of the last range in parts
	pending  int     // writes in parts, for mtime
	taken    uint64  // number of the last part taken
	placed   int     // parts that have their place in the log, from the first
	recorded int64   // time of the newest Write in the log
	write    *op     // the Write under way, nil if none; without leases only
	writing  int     // parts that it publishes, from the first

	waiters []*waiter
	appends []*appending

	reads   int     // ReadMaps under way
	shadows []*part // published while those were under way
	fence   uint64  // version of content that maps must not be older than
	blind   uint64  // seq of the last record of data of unknown version: maps must have been asked for after it
	newest  uint64  // version of content after the last record of the log
	cuts    []*cut  // truncations in the log
	drops   uint64  // counts what dropMap was told
	mapped  bool    // has had dirty pages of a mapping
	dead    bool    // its last name went: data nobody asks for is not published

	lost     *errs.Error // session loss: reported until all handles are closed
	failed   error       // publication failed: reported once
	keep     meta.OpID   // stay until operations up to this one have ended
	lingered bool
}

// waiter waits until part no and all before it are published or lost.
type waiter struct {
	no  uint64
	req *request // nil for the client's own
	err error    // what was lost meanwhile
	fn  func(err error)
}

func (c *Client) fileOf(ino meta.Ino) *file {
	f, ok := c.files.Get(ino)
	if !ok {
		f = &file{ino: ino, dirty: newDirtySet(uint64(c.cfg.BlockSize))}
		c.files.Set(ino, f)
	}
	return f
}

// inUse reports whether the inode must stay pinned for the file's sake.
func (f *file) inUse() bool {
	return f.handles > 0 || f.dirty.bytes > 0 || len(f.parts) > 0 || len(f.appends) > 0
}

// linger is a place in the queue of files kept for older operations.
type linger struct {
	upTo meta.OpID
	f    *file
}

// reap removes the record when nothing needs it. After a publication it stays
// until every operation sent before has ended: a late reply of these may carry
// attributes from before, and must not take a size back that was already seen.
func (c *Client) reap(f *file) {
	if !f.inUse() {
		c.settlePin(f.ino)
	}
	if f.handles == 0 {
		f.lost, f.failed = nil, nil
	}
	if f.inUse() || f.reads > 0 || len(f.shadows)+len(f.waiters)+len(f.cuts) > 0 {
		return
	}
	if f.keep >= c.ops.oldest() {
		if !f.lingered {
			f.lingered = true
			c.buf.lingered = append(c.buf.lingered, linger{f.keep, f})
		}
		return
	}
	if g, ok := c.files.Get(f.ino); ok && g == f {
		c.files.Delete(f.ino)
	}
}

func (c *Client) reapLingering() {
	oldest := c.ops.oldest()
	for len(c.buf.lingered) > 0 && c.buf.lingered[0].upTo < oldest {
		f := shift(&c.buf.lingered).f
		f.lingered = false
		c.reap(f)
	}
}

func (c *Client) openFile(ino meta.Ino) {
	if c.ses.phase != phaseEnded {
		c.fileOf(ino).handles++
	}
}

func (c *Client) closeFile(ino meta.Ino) {
	f, ok := c.files.Get(ino)
	if !ok || f.handles == 0 {
		return
	}
	f.handles--
	c.reap(f)
}

// merged returns what applications shall see when the server says a.
func (c *Client) merged(a meta.Attr) meta.Attr {
	if !c.cfg.NoLeases {
		if c.own(a.Ino) {
			return c.nodeOf(a.Ino).attr
		}
		return a
	}
	f, ok := c.files.Get(a.Ino)
	if !ok {
		return a
	}
	f.observe(a)
	return f.merged()
}

// ownAttr returns what applications shall see of a file just written.
func (c *Client) ownAttr(f *file) meta.Attr {
	if c.cfg.NoLeases {
		return f.merged()
	}
	return c.merged(meta.Attr{Ino: f.ino, Mode: meta.ModeRegular})
}

// observe keeps the newest attributes. Replies overtake each other; content
// and size are ordered by DataVersion, the rest by ctime.
func (f *file) observe(a meta.Attr) {
	if !f.known || a.DataVersion > f.attr.DataVersion ||
		a.DataVersion == f.attr.DataVersion && a.Ctime >= f.attr.Ctime {
		f.attr, f.known = a, true
	}
}

// raiseFence notes the version that an own truncate or append made.
func (c *Client) raiseFence(a meta.Attr) {
	if f, ok := c.files.Get(a.Ino); ok {
		f.fence = max(f.fence, a.DataVersion)
	}
}

// merged adds the buffered data to the server's attributes. Times of writes
// are given by the server when they are published; until then each write
// moves mtime and ctime on by a nanosecond, so that changes show. If the
// server's attributes are not known (nothing but writes so far), Nlink is 0
// and only Ino, type and Size mean something.
func (f *file) merged() meta.Attr {
	a := f.attr
	if !f.known {
		a = meta.Attr{Ino: f.ino, Mode: meta.ModeRegular}
	}
	if f.dirty.bytes == 0 && len(f.parts) == 0 {
		return a
	}
	a.Size = max(a.Size, f.partsEnd, f.dirty.end())
	n := int64(f.writes + f.pending)
	a.Mtime += n
	a.Ctime += n
	held := f.dirty.bytes
	for _, p := range f.parts {
		held += p.bytes
		if p.kill {
			a.Mode = killPriv(a, p.cred)
		}
	}
	if f.kill {
		a.Mode = killPriv(a, f.cred)
	}
	a.Bytes += (uint64(held) + 511) &^ 511
	return a
}

// joinWriter adds a write by w to what is published as one by cred. Setgid
// without group execution survives only writers of the file's group, so that
// one who is not must be the one named.
func (f *file) joinWriter(cred *meta.Cred, kill *bool, w meta.Cred, kills bool) {
	member := func(c meta.Cred) bool { return c.UID == 0 || c.GID == f.attr.GID }
	if *kill && (!kills || member(w) && !member(*cred)) {
		return
	}
	*cred, *kill = w, kills
}

// killPriv is what the servers will make of the mode: setgid without group
// execution stays for members of the group.
func killPriv(a meta.Attr, cred meta.Cred) uint32 {
	mode := a.Mode &^ meta.ModeSetuid
	if mode&0o010 != 0 || cred.UID != 0 && cred.GID != a.GID {
		mode &^= meta.ModeSetgid
	}
	return mode
}

// dropWaiters removes a cancelled request's waiters.
func (f *file) dropWaiters(r *request) {
	f.waiters = slices.DeleteFunc(f.waiters, func(w *waiter) bool { return w.req == r })
}

// afterPublish calls fn once everything buffered for the inode now is
// published, at once if that is nothing; under leases, once all that the log
// says of the inode is durable. fn's error tells of data that was lost
// instead.
func (c *Client) afterPublish(ino meta.Ino, r *request, fn func(error)) {
	if !c.cfg.NoLeases {
		c.afterPlaced(ino, r, fn)
		return
	}
	f, ok := c.files.Get(ino)
	if !ok {
		fn(nil)
		return
	}
	c.takeAll(f)
	c.waitParts(f, r, fn)
}

// waitParts calls fn when all parts of a file are published or lost.
func (c *Client) waitParts(f *file, r *request, fn func(error)) {
	if len(f.parts) == 0 {
		fn(nil)
		return
	}
	if r != nil {
		r.file = f
	}
	f.waiters = append(f.waiters, &waiter{no: f.taken, req: r, fn: fn})
}

// afterPlaced is afterPublish under leases.
func (c *Client) afterPlaced(ino meta.Ino, r *request, fn func(error)) {
	seq := c.placeData(ino)
	left := 1
	var lost error
	step := func(err error) {
		if lost == nil {
			lost = err
		}
		if left--; left == 0 {
			fn(lost)
		}
	}
	if f, ok := c.files.Get(ino); ok {
		left++
		c.waitParts(f, r, step)
	}
	if seq == 0 {
		step(nil)
		return
	}
	c.afterLog(seq, r, step)
}

// afterPublishAll is afterPublish for several inodes; fn gets the first error.
func (c *Client) afterPublishAll(inos []meta.Ino, r *request, fn func(error)) {
	left := len(inos)
	if left == 0 {
		fn(nil)
		return
	}
	var first error
	for _, ino := range inos {
		c.afterPublish(ino, nil, func(err error) {
			if first == nil {
				first = err
			}
			if left--; left == 0 && !r.done {
				fn(first)
			}
		})
	}
}

// dirtyInos lists the inodes with unpublished data, ascending.
func (c *Client) dirtyInos() (inos []meta.Ino) {
	c.files.Scan(func(ino meta.Ino, f *file) bool {
		if f.dirty.bytes > 0 || len(f.parts) > 0 {
			inos = append(inos, ino)
		}
		return true
	})
	return inos
}

// flushFile serves Flush. Under leases close publishes nothing: the log and
// the age of the data do, and others who look make them.
func (c *Client) flushFile(r *request, ino meta.Ino) {
	if c.cfg.NoLeases {
		c.syncFile(r, ino)
		return
	}
	c.answer(r, &meta.EmptyResult{}, c.report(ino, nil))
}

// syncFile serves Fsync.
func (c *Client) syncFile(r *request, ino meta.Ino) {
	c.afterPublish(ino, r, func(err error) {
		c.answer(r, &meta.EmptyResult{}, c.report(ino, err))
	})
}

// report chooses what a Flush, Fsync or O_SYNC write tells: what was lost
// while it waited, or else what was lost before and told to nobody.
func (c *Client) report(ino meta.Ino, err error) error {
	f, ok := c.files.Get(ino)
	if !ok {
		return err
	}
	if f.lost != nil {
		return f.lost
	}
	if err == nil {
		err = f.failed
	}
	f.failed = nil
	return err
}

func (c *Client) syncAll(r *request) {
	c.afterPublishAll(c.dirtyInos(), r, func(err error) {
		c.afterLog(c.log.last, r, func(lost error) {
			if err == nil {
				err = lost
			}
			c.answer(r, &meta.EmptyResult{}, err)
		})
	})
}
