package core

import (
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/rules"
)

// errNoEntry answers a Lookup of a name that is known not to exist.
var errNoEntry = errs.E("lookup", errs.NotExist, "", nil)

// readLocal answers a read from the table, if it knows the answer.
func (c *Client) readLocal(r *request, body meta.Op) (done bool) {
	if c.cfg.NoLeases || r.done {
		return false
	}
	switch o := body.(type) {
	case *meta.StatFS:
		return c.statFSLocal(r)
	case *meta.Lookup:
		return c.lookupLocal(r, o)
	case *meta.ReadDir:
		return c.readDirLocal(r, o)
	case *meta.GetAttr:
		n := c.nodeOf(o.Ino)
		if !c.readable(n) || !n.attrOK {
			return false
		}
		c.touchNode(n)
		c.answerCached(r, &meta.AttrResult{Attr: c.merged(n.attr)}, nil, Cache{Attr: c.giveAttr(n)}, nil)
		return true
	case *meta.Readlink:
		n := c.nodeOf(o.Ino)
		if !c.readable(n) || n.target == nil {
			return false
		}
		c.touchNode(n)
		c.answer(r, &meta.BytesResult{Data: n.target}, nil)
		return true
	case *meta.GetXattr:
		if !c.noXattrs(o.Ino) {
			return false
		}
		err := rules.CheckXattrName(o.Name)
		if err == nil {
			err = errs.E("getxattr", errs.NoAttr, "", nil)
		}
		c.answer(r, nil, err)
		return true
	case *meta.ListXattr:
		if !c.noXattrs(o.Ino) {
			return false
		}
		c.answer(r, &meta.NamesResult{}, nil)
		return true
	}
	return false
}

// Ages of what the servers said of the drive's use.
const (
	useFresh = Time(1e9)  // answered as it is
	useStale = Time(10e9) // answered, and asked for again for the next call
)

// driveUse is what the servers said of the drive's use, last.
type driveUse struct {
	res    *meta.StatFSResult
	at     Time
	writes uint64 // Client.writes when it was asked for
	asking bool
}

// statFSLocal answers from memory if the use was asked for a moment ago and
// nothing was changed here since: walks of trees ask it for every file system
// they meet, and no order is promised between it and other operations.
func (c *Client) statFSLocal(r *request) (done bool) {
	u := &c.use
	if u.res == nil || u.writes != c.writes || u.at+useStale <= c.now || !c.valid() {
		return false
	}
	c.answer(r, u.res, nil)
	if u.at+useFresh <= c.now && !u.asking {
		u.asking = true
		o := &op{body: &meta.StatFS{}}
		writes := c.writes
		o.done = func(res meta.Result, err error) {
			u.asking = false
			c.learnUse(res, writes)
		}
		c.submit(o)
	}
	return true
}

func (c *Client) learnUse(res meta.Result, writes uint64) {
	if x, ok := res.(*meta.StatFSResult); ok && c.ses.phase != phaseEnded {
		c.use.res, c.use.at, c.use.writes = x, c.now, writes
	}
}

// noXattrs reports whether the inode is known to have no extended attributes.
func (c *Client) noXattrs(ino meta.Ino) bool {
	n := c.nodeOf(ino)
	if !c.readable(n) || !n.attrOK || n.attr.Xattrs {
		return false
	}
	c.touchNode(n)
	return true
}

// readAfter is how far the log must be executed before a read: what it looks at
// must contain what was done locally.
func (c *Client) readAfter(body meta.Op) uint64 {
	if c.broken("read-without-after") {
		return 0
	}
	switch o := body.(type) {
	case *meta.Lookup:
		after := c.lastSeq(o.Parent)
		if n := c.nodeOf(o.Parent); n != nil {
			if ino, _, known := n.dir.find(o.Name); known && ino != 0 {
				after = max(after, c.said(ino))
			} else {
				after = c.log.last
			}
		}
		return after
	case *meta.GetAttr:
		return c.said(o.Ino)
	case *meta.Readlink:
		return c.lastSeq(o.Ino)
	case *meta.GetXattr:
		return c.lastSeq(o.Ino)
	case *meta.ListXattr:
		return c.lastSeq(o.Ino)
	case *meta.ReadMap:
		return c.said(o.Ino)
	}
	return c.log.last
}

// change makes a change of the namespace: locally if everything that it needs
// is held, which is asked for first, and by the servers otherwise.
func (c *Client) change(r *request, body meta.Op) {
	if err := c.lostHere(body); err != nil {
		c.answer(r, nil, err)
		return
	}
	c.tryLocal(r, body, 0)
}

// lostHere tells once, in each directory, that operations there were lost.
func (c *Client) lostHere(body meta.Op) (err error) {
	for _, dir := range dirsOf(body) {
		if n := c.nodeOf(dir); n != nil && n.lost != nil {
			if err == nil {
				err = n.lost
			}
			n.lost = nil
			c.tidy(n)
		}
	}
	return err
}

// dirsOf lists the directories in which an operation changes names.
func dirsOf(body meta.Op) []meta.Ino {
	switch o := body.(type) {
	case *meta.Make:
		return []meta.Ino{o.Parent}
	case *meta.Link:
		return []meta.Ino{o.Parent}
	case *meta.Unlink:
		return []meta.Ino{o.Parent}
	case *meta.Rmdir:
		return []meta.Ino{o.Parent}
	case *meta.Rename:
		if o.OldParent == o.NewParent {
			return []meta.Ino{o.OldParent}
		}
		return []meta.Ino{o.OldParent, o.NewParent}
	}
	return nil
}

// maxTries bounds the rounds in which an operation asks for what it lacks.
const maxTries = 6

// tryLocal executes a change locally, asks for what is missing, or sends it to
// the servers.
func (c *Client) tryLocal(r *request, body meta.Op, try int) {
	if r.done {
		return
	}
	if c.cfg.NoLeases || c.cfg.Open.Capability.ReadOnly || try >= maxTries || !c.valid() {
		c.changeSync(r, body)
		return
	}
	p := c.planLocal(body)
	switch {
	case p.sync:
		c.changeSync(r, body)
	case len(p.wants) > 0:
		again := func(error) { c.tryLocal(r, body, try+1) }
		c.acquireFor(r, p, again)
	case p.lookup != nil:
		c.resolve(r, p.lookup, func() { c.tryLocal(r, body, try+2) })
	case p.err != nil:
		c.answer(r, nil, p.err)
	case !c.mayAppend():
		c.stall(r, func() { c.tryLocal(r, body, try) })
	default:
		p.run(r)
	}
}

// acquireFor asks for what a plan lacks; where something was refused a moment
// ago the servers do it all.
func (c *Client) acquireFor(r *request, p *plan, fn func(error)) {
	for _, w := range p.wants {
		if n := c.nodeOf(w.Ino); n != nil && (n.refused > c.now || n.mutating > 0) {
			c.changeSync(r, p.body)
			return
		}
	}
	c.acquireMore(r, p.wants, p.extra, func(err error) {
		for _, w := range p.wants {
			if !c.has(w) && c.ses.phase != phaseEnded {
				c.changeSync(r, p.body)
				return
			}
		}
		fn(err)
	})
}

// resolve asks the servers what a name stands for, so that the table knows.
func (c *Client) resolve(r *request, body *meta.Lookup, fn func()) {
	o := &op{body: body, after: c.readAfter(body), forReq: true}
	o.done = func(res meta.Result, err error) {
		c.names.learn(body, res, err)
		c.learnRead(o, res, err)
		if e, ok := res.(*meta.EntryResult); ok {
			c.pinned(e.Attr.Ino, false)
		}
		r.op = nil
		if !r.done {
			fn()
		}
	}
	r.op = o
	c.log.want = max(c.log.want, o.after)
	c.submit(o)
}

// changeSync sends a change to the servers, behind the data that it concerns.
func (c *Client) changeSync(r *request, body meta.Op) {
	if !c.cfg.NoLeases {
		if o, ok := body.(*meta.Rename); ok {
			c.placeMoved(o)
		}
		c.call(r, body) // behind the log, into which it brings what it concerns
		return
	}
	switch o := body.(type) {
	case *meta.SetAttr:
		// Published data must not come after the change: it would undo times,
		// modes and sizes.
		c.afterPublish(o.Ino, r, func(error) { c.call(r, o) })
	case *meta.Link:
		c.afterPublish(o.Ino, r, func(err error) { c.callUnless(err, r, o) })
	case *meta.Rename:
		c.rename(r, o)
	default:
		c.call(r, body)
	}
}

// placeMoved brings the data of what is renamed into the log: who finds a file
// under its new name finds its content. Where that is not known all goes.
func (c *Client) placeMoved(o *meta.Rename) {
	for _, k := range [...]nameKey{{o.OldParent, o.OldName}, {o.NewParent, o.NewName}} {
		if c.named(k) != 0 {
			continue // syncChange does
		}
		if ino, known := c.names.byName[k]; known && ino == 0 || k.name == o.NewName && o.Flags&meta.RenameExchange == 0 {
			continue
		}
		for _, ino := range c.dirtyInos() {
			c.placeData(ino)
		}
		return
	}
}

// named is the inode that a name stands for, as far as anything remembers; 0:
// nothing does.
func (c *Client) named(k nameKey) meta.Ino {
	if n := c.nodeOf(k.parent); n != nil {
		if e := n.dir.get(k.name); e != nil && e.ino != 0 {
			return e.ino
		}
	}
	return c.names.byName[k]
}

// credit is what the session may use up without asking.
type credit struct {
	groups    []groupRange
	bytes     uint64
	files     uint64
	unlimited bool
	asked     bool // a Credit is on its way on this stream
	notBefore Time // the servers had no more a moment ago
}

type groupRange struct{ next, end uint64 }

// Amounts of credit.
const (
	wantGroups = 64
	fewGroups  = 16
	wantBytes  = 256 << 20
	wantFiles  = 8192
)

func (x *credit) groupsLeft() (n uint64) {
	for _, g := range x.groups {
		n += g.end - g.next
	}
	return n
}

// low reports whether it is time to ask for more.
func (x *credit) low() bool {
	return x.groupsLeft() < fewGroups || !x.unlimited && (x.files < wantFiles/4 || x.bytes < wantBytes/4)
}

// wantCredit asks for credit when there is little.
func (c *Client) wantCredit() {
	x := &c.credit
	if x.asked || c.cfg.NoLeases || c.cfg.Open.Capability.ReadOnly || c.ses.phase != phaseReady || !x.low() || x.notBefore > c.now {
		return
	}
	x.asked = true
	f := &meta.Credit{Bytes: wantBytes, Files: wantFiles}
	if x.groupsLeft() < fewGroups {
		f.Groups = wantGroups
	}
	c.send(f)
}

func (c *Client) credited(f *meta.Credited) {
	x := &c.credit
	x.asked = false
	if f.Groups > 0 {
		x.groups = append(x.groups, groupRange{f.FirstGroup, f.FirstGroup + uint64(f.Groups)})
	}
	x.unlimited = f.Unlimited
	x.bytes += f.Bytes
	x.files += f.Files
	if x.low() {
		x.notBefore = c.now + refusalTime
	}
}

// spend takes bytes off the credit, or reports that there are not enough.
func (c *Client) spend(bytes uint64) bool {
	x := &c.credit
	defer c.wantCredit()
	if x.unlimited {
		return true
	}
	if x.bytes < bytes {
		return false
	}
	x.bytes -= bytes
	return true
}

// newIno takes a number for a child of dir; 0: there is none.
func (c *Client) newIno(dir *node) meta.Ino {
	d, x := c.dirOf(dir), &c.credit
	if !x.unlimited && x.files == 0 {
		c.wantCredit()
		return 0
	}
	if d.group == 0 || d.slot >= 1<<meta.SlotBits {
		if x.groupsLeft() == 0 {
			c.wantCredit()
			return 0
		}
		g := &x.groups[0]
		d.group, d.slot = g.next, 0
		if g.next++; g.next == g.end {
			x.groups = x.groups[1:]
		}
		c.wantCredit()
	}
	if !x.unlimited {
		x.files--
		c.wantCredit()
	}
	ino := meta.Ino(d.group<<meta.SlotBits | uint64(d.slot))
	d.slot++
	return ino
}
