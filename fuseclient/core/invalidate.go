package core

import (
	"slices"

	"agentdrive/metaserver/meta"
)

// maxEntryInvals bounds the names told to the kernel one by one; more go at once
// by an epoch.
const maxEntryInvals = 64

// epochs number the moments at which the kernel was told to forget every name.
// A lifetime carries the number that was current when it was given.
type epochs struct {
	given uint32 // of lifetimes given now
	done  uint32 // lifetimes with a smaller number have ended
}

// inval is the kernel being told to forget something.
type inval struct {
	token uint64 // of the effect; 0: not emitted, a directory is locked
	items []Inval
	epoch uint32 // lifetimes before it end with this one, if it has an Epoch
	until Time   // without pages: nothing of it is believed after that anyway
	fn    []func()
	done  bool
}

// invalidate tells the kernel to forget and calls fn when it has. With no items
// it is a barrier: fn is called when every reply answered before is written.
func (c *Client) invalidate(items []Inval, fn func()) {
	if c.broken("C4-no-inval") || c.broken("C5-no-entry") && c.onlyEntries(items) {
		if fn != nil {
			fn()
		}
		return
	}
	v := &inval{items: items}
	if fn != nil {
		v.fn = append(v.fn, fn)
	}
	v.until = c.believedUntil(items)
	c.leases.invals = append(c.leases.invals, v)
	if !c.cfg.IncEpoch && c.lockedEntries(v) {
		return // told when the directory is free, or over by itself
	}
	c.emitInval(v)
}

func (c *Client) emitInval(v *inval) {
	l := &c.leases
	l.lastTok++
	v.token = l.lastTok
	for i := range v.items {
		if v.items[i].Epoch {
			c.epochs.given++
			v.epoch = c.epochs.given
		}
	}
	c.emit(Invalidate{Token: v.token, Items: v.items})
}

func (c *Client) onlyEntries(items []Inval) bool {
	return len(items) > 0 && !slices.ContainsFunc(items, func(i Inval) bool { return i.Ino != 0 })
}

// believedUntil is when the lifetimes of what is to be forgotten are over; 0 if
// pages or an epoch are among it, or nothing.
func (c *Client) believedUntil(items []Inval) (until Time) {
	for i := range items {
		switch it := &items[i]; {
		case it.Epoch, it.Ino != 0 && !it.Attr:
			return 0
		case it.Ino != 0:
			if n := c.nodeOf(it.Ino); n != nil {
				until = max(until, n.attrUntil)
			}
		default:
			if n := c.nodeOf(it.Dir); n != nil && n.dir != nil {
				until = max(until, n.dir.until)
			}
		}
	}
	return until
}

// lockedEntries reports whether a name is to be forgotten in a directory whose
// lock an open request holds: INVAL_ENTRY would wait for its answer.
func (c *Client) lockedEntries(v *inval) bool {
	return slices.ContainsFunc(v.items, func(i Inval) bool { return i.Dir != 0 && c.lockedDir(i.Dir) })
}

func (c *Client) lockedDir(dir meta.Ino) bool {
	n, _ := c.leases.locked.Get(dir)
	return n > 0
}

// invalidated ends what a token stands for.
func (c *Client) invalidated(token uint64) {
	for _, v := range c.leases.invals {
		if v.token == token {
			c.endInval(v)
			return
		}
	}
}

// endInval notes that the kernel believes nothing of v any more.
func (c *Client) endInval(v *inval) {
	if v.done {
		return
	}
	v.done = true
	l := &c.leases
	l.progress++
	if i := slices.Index(l.invals, v); i >= 0 {
		l.invals = slices.Delete(l.invals, i, i+1)
	}
	c.epochs.done = max(c.epochs.done, v.epoch)
	for i := range v.items {
		it := &v.items[i]
		if it.Ino != 0 {
			if n := c.nodeOf(it.Ino); n != nil {
				n.attrUntil = 0
			}
			continue
		}
		if it.Dir != 0 {
			if n := c.nodeOf(it.Dir); n != nil {
				if e := n.dir.get(it.Name); e != nil {
					e.until = 0
					n.dir.settle(e)
				}
			}
		}
	}
	for _, fn := range v.fn {
		fn()
	}
}

// invalsDue ends what is over by itself, tells what had to wait for a lock, and
// gives up on names whose directory got locked by a request that waits for the
// servers: they may be waiting for us (C5). INVAL_ENTRY ends by itself then.
func (c *Client) invalsDue() {
	for _, v := range slices.Clone(c.leases.invals) {
		switch {
		case v.done:
		case v.until != 0 && v.until <= c.now:
			c.endInval(v)
		case v.token == 0 && !c.lockedEntries(v):
			c.emitInval(v)
		case v.token != 0 && c.cfg.IncEpoch && c.lockedEntries(v):
			c.escalate(v)
		}
	}
}

// escalate replaces names by an epoch.
func (c *Client) escalate(v *inval) {
	rest := []Inval{{Epoch: true}}
	for _, it := range v.items {
		if it.Dir == 0 && !it.Epoch {
			rest = append(rest, it)
		}
	}
	w := &inval{items: rest, fn: []func(){func() { c.endInval(v) }}}
	v.items = slices.DeleteFunc(v.items, func(i Inval) bool { return i.Dir != 0 })
	v.until = 0
	c.leases.invals = append(c.leases.invals, w)
	c.emitInval(w)
}

func (c *Client) invalTimers(want func(Time)) {
	for _, v := range c.leases.invals {
		if v.until != 0 {
			want(max(v.until, c.now+1))
		}
	}
}

// invalidating reports whether the kernel is being told to forget pages of an
// inode.
func (c *Client) invalidating(ino meta.Ino) bool {
	return slices.ContainsFunc(c.leases.invals, func(v *inval) bool {
		return slices.ContainsFunc(v.items, func(i Inval) bool { return i.Ino == ino && !i.Attr })
	})
}

// invalNames adds what makes the kernel forget names of a directory: those
// whose lifetime runs.
func (c *Client) invalNames(items []Inval, n *node, names []string) []Inval {
	var running []Inval
	for _, name := range names {
		if e := n.dir.get(name); e != nil && c.runs(e) || e == nil && c.absenceRuns(n.dir) {
			running = append(running, Inval{Dir: n.ino, Name: name})
		}
	}
	return c.entriesOrEpoch(items, n.ino, running)
}

// entriesOrEpoch adds the names, or an epoch where they are too many or their
// directory's lock is held by a request that waits.
func (c *Client) entriesOrEpoch(items []Inval, dir meta.Ino, running []Inval) []Inval {
	switch {
	case len(running) == 0:
		return items
	case c.cfg.IncEpoch && (len(running) > maxEntryInvals || c.lockedDir(dir)):
		return append(items, Inval{Epoch: true})
	}
	return append(items, running...)
}

// invalDir adds what makes the kernel forget a whole directory.
func (c *Client) invalDir(items []Inval, n *node) []Inval {
	if n.dir != nil && n.dir.until > c.now {
		var running []Inval
		many := c.cfg.IncEpoch && c.absenceRuns(n.dir) // names without an entry
		n.dir.names.Scan(func(e *entry) bool {
			if c.runs(e) {
				running = append(running, Inval{Dir: n.ino, Name: e.name})
			}
			return !many || len(running) == 0
		})
		if many {
			items = append(items, Inval{Epoch: true})
		} else {
			items = c.entriesOrEpoch(items, n.ino, running)
		}
	}
	return c.invalAttr(items, n)
}

// invalAttr adds what makes the kernel forget attributes, if it believes any.
func (c *Client) invalAttr(items []Inval, n *node) []Inval {
	if n.attrUntil <= c.now {
		return items
	}
	return append(items, Inval{Ino: n.ino, Attr: true})
}

// invalFile adds what makes the kernel forget an inode with its pages. The
// adapter leaves out what own open writes and truncates have locked, until they
// are answered (C6).
func (c *Client) invalFile(items []Inval, ino meta.Ino) []Inval {
	if p, ok := c.pins.table.Get(ino); !ok || p.kernel == 0 {
		return items // the kernel does not know it
	}
	return append(items, Inval{Ino: ino})
}

// KeepPages reports whether the kernel may keep pages of an inode that it reads
// or writes now: a lease counts, and no recall of it is under way.
func (c *Client) KeepPages(ino meta.Ino) bool {
	if c.cfg.NoLeases {
		return true
	}
	n := c.nodeOf(ino)
	return n != nil && n.recalls == 0 && c.leaseNow(n) >= meta.LeaseRead
}

// giveEntry notes and returns how long the kernel may believe what the table
// says of a name.
func (c *Client) giveEntry(p *node, name string) Time {
	if p == nil || p.dir == nil {
		return 0
	}
	if e := p.dir.get(name); e != nil {
		return c.giveName(p, e)
	}
	if _, _, known := p.dir.find(name); !known || !c.givesNames(p) {
		return 0
	}
	d, life := p.dir, c.life()
	d.until = max(d.until, c.now+life)
	d.negUntil, d.negGen = max(d.negUntil, c.now+life), c.epochs.given
	return life
}

// giveName is giveEntry for a name with an entry.
func (c *Client) giveName(p *node, e *entry) Time {
	if !e.known || e.mutating > 0 || e.blocked > 0 || !c.givesNames(p) {
		return 0
	}
	life := c.life()
	p.dir.until = max(p.dir.until, c.now+life)
	e.until, e.gen = max(e.until, c.now+life), c.epochs.given
	return life
}

// givesNames reports whether names of a directory may be given for a time.
// Without INC_EPOCH only exclusive ones: others could not be taken back while an
// own request holds the directory's lock (C5).
func (c *Client) givesNames(p *node) bool {
	return !p.drain && p.recalls == 0 && c.readable(p) && (c.cfg.IncEpoch || c.leaseNow(p) == meta.LeaseWrite)
}

// giveAttr notes and returns how long the kernel may believe attributes.
func (c *Client) giveAttr(n *node) Time {
	if n == nil || !n.attrOK || n.drain || n.recalls > 0 || !c.readable(n) {
		return 0
	}
	life := c.life()
	n.attrUntil = max(n.attrUntil, c.now+life)
	return life
}
