package core

import (
	"cmp"

	"github.com/tidwall/btree"

	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/rules"
)

// listedAll is the listed of a directory whose every name is known.
const listedAll = ^uint64(0)

// entry is what is known of one name in a directory.
type entry struct {
	cookie   uint64
	name     string
	known    bool     // otherwise a hole: the name changed and nothing is known
	ino      meta.Ino // 0: there is no such name; kept in a hole, for the kernel may reference it
	typ      uint32   // type bits
	mutating int      // own synchronous changes of the name without an answer
	blocked  int      // recalls of the name without an Ack
	until    Time     // the kernel believes it until then
	gen      uint32   // of that lifetime
}

// directory is what is known of the names of one directory: entries, and that
// every name up to the cookie listed which has no entry does not exist.
type directory struct {
	memo   *cookies
	names  *btree.BTreeG[*entry]
	listed uint64
	until  Time // no lifetime of a name given here lasts longer
	// negUntil is until for names without an entry: the kernel believes that
	// they do not exist.
	negUntil Time
	negGen   uint32

	group uint64 // locality group of children born locally; 0 = none yet
	slot  uint32 // next one in it
}

// cookies remembers the cookies of the last few names: each costs a hash, and
// one request asks for the same ones several times.
type cookies struct {
	last [4]struct {
		name   string
		cookie uint64
	}
	next int
	key  entry // for look-ups only
}

// of returns a key for a name, good until the next call.
func (m *cookies) of(name string) *entry {
	m.key.name = name
	for i := range m.last {
		if m.last[i].name == name {
			m.key.cookie = m.last[i].cookie
			return &m.key
		}
	}
	m.key.cookie = meta.NameCookie(name)
	m.last[m.next].name, m.last[m.next].cookie = name, m.key.cookie
	m.next = (m.next + 1) % len(m.last)
	return &m.key
}

// page of a listing: the key to begin with.
func (m *cookies) from(cookie uint64) *entry {
	m.key.name, m.key.cookie = "", cookie
	return &m.key
}

func newDirectory(memo *cookies) *directory {
	return &directory{memo: memo, names: btree.NewBTreeGOptions(func(a, b *entry) bool {
		if a.cookie != b.cookie {
			return a.cookie < b.cookie
		}
		return cmp.Less(a.name, b.name)
	}, btree.Options{NoLocks: true, Degree: 16})}
}

// dirOf returns the names of a directory, and makes the record if there is
// none.
func (c *Client) dirOf(n *node) *directory {
	if n.dir == nil {
		n.dir = newDirectory(&c.leases.memo)
	}
	return n.dir
}

// get returns the entry of a name, or nil.
func (d *directory) get(name string) *entry {
	if d == nil {
		return nil
	}
	e, _ := d.names.Get(d.memo.of(name))
	return e
}

// at returns the entry of a name, and makes it, as a hole, if there is none.
func (d *directory) at(name string) *entry {
	k := d.memo.of(name)
	if e, ok := d.names.Get(k); ok {
		return e
	}
	e := &entry{cookie: k.cookie, name: name}
	d.names.Set(e)
	return e
}

// find tells what a name stands for: 0 for nothing; known is false if that is
// not known.
func (d *directory) find(name string) (ino meta.Ino, typ uint32, known bool) {
	if d == nil {
		return 0, 0, false
	}
	k := d.memo.of(name)
	if e, ok := d.names.Get(k); ok {
		if !e.known {
			return 0, 0, false
		}
		return e.ino, e.typ, true
	}
	return 0, 0, k.cookie <= d.listed
}

// set notes what a name stands for from now on: own changes.
func (d *directory) set(name string, ino meta.Ino, typ uint32) {
	e := d.at(name)
	e.known, e.ino, e.typ = true, ino, typ&meta.ModeType
	d.settle(e)
}

// learn takes what an answer says of a name. What is known already is newer,
// or the same.
func (d *directory) learn(name string, ino meta.Ino, typ uint32) {
	k := d.memo.of(name)
	e, ok := d.names.Get(k)
	switch {
	case !ok && k.cookie <= d.listed:
		return // known not to exist
	case !ok:
		e = &entry{cookie: k.cookie, name: name}
		d.names.Set(e)
	case e.known || e.mutating > 0 || e.blocked > 0:
		return
	}
	e.known, e.ino, e.typ = true, ino, typ&meta.ModeType
	d.settle(e)
}

// settle removes an entry that says no more than its absence.
func (d *directory) settle(e *entry) {
	if e.mutating > 0 || e.blocked > 0 {
		return
	}
	if e.known && e.ino == 0 && e.cookie <= d.listed && e.until == 0 || !e.known && e.ino == 0 && e.cookie > d.listed && e.until == 0 {
		d.names.Delete(e)
	}
}

// page takes one page of a listing: the names with cookies in (from, to], all
// of them.
func (d *directory) page(from, to uint64, list []meta.DirEntry) {
	var holes []*entry
	d.names.Ascend(d.memo.from(from+1), func(e *entry) bool {
		if e.cookie > to {
			return false
		}
		if !e.known && e.mutating == 0 && e.blocked == 0 {
			holes = append(holes, e)
		}
		return true
	})
	for i := range list {
		d.learn(list[i].Name, list[i].Attr.Ino, list[i].Attr.Mode)
	}
	if from <= d.listed && to > d.listed {
		d.listed = to
	}
	for _, e := range holes {
		if !e.known {
			e.known, e.ino = true, 0
			d.settle(e)
		}
	}
}

// forget drops what is known of all names. Lifetimes given go on.
func (d *directory) forget() {
	d.listed = 0
	var all []*entry
	d.names.Scan(func(e *entry) bool { all = append(all, e); return true })
	for _, e := range all {
		e.known = false
		if e.mutating == 0 && e.blocked == 0 && e.until == 0 {
			d.names.Delete(e)
		}
	}
}

// unblock ends all recalls of names.
func (d *directory) unblock() {
	d.names.Scan(func(e *entry) bool { e.blocked = 0; return true })
}

// busy reports whether the record of the names is still needed when nothing is
// known of them.
func (d *directory) busy(now Time) bool {
	if d.until > now {
		return true
	}
	busy := false
	d.names.Scan(func(e *entry) bool {
		busy = e.mutating > 0 || e.blocked > 0
		return !busy
	})
	return busy
}

// runs reports whether the kernel may still believe a name.
func (c *Client) runs(e *entry) bool {
	return e.until > c.now && e.gen >= c.epochs.done
}

// absenceRuns is runs for names without an entry.
func (c *Client) absenceRuns(d *directory) bool {
	return d != nil && d.negUntil > c.now && d.negGen >= c.epochs.done
}

// lookupLocal answers a Lookup from the table.
func (c *Client) lookupLocal(r *request, o *meta.Lookup) (done bool) {
	p := c.nodeOf(o.Parent)
	if !c.readable(p) || rules.CheckName(o.Name) != nil {
		return false
	}
	ino, _, known := p.dir.find(o.Name)
	if !known || c.nameChanging(p, o.Name) {
		return false
	}
	if ino == 0 {
		c.touchNode(p)
		c.answerCached(r, nil, errNoEntry, Cache{Entry: c.giveEntry(p, o.Name)}, nil)
		return true
	}
	n := c.nodeOf(ino)
	pn, _ := c.pins.table.Get(ino)
	if !c.readable(n) || !n.attrOK || pn.replies == 0 {
		return false
	}
	c.touchNode(p)
	c.touchNode(n)
	c.pinLocal(ino)
	res := &meta.EntryResult{Attr: c.merged(n.attr)}
	c.answerCached(r, res, nil, Cache{Entry: c.giveEntry(p, o.Name), Attr: c.giveAttr(n)}, nil)
	return true
}

// nameChanging reports whether an own synchronous change of a name is under way.
func (c *Client) nameChanging(p *node, name string) bool {
	e := p.dir.get(name)
	return e != nil && e.mutating > 0
}

// readDirLocal answers a page of a listing from the table, as far as it is
// known without a gap.
func (c *Client) readDirLocal(r *request, o *meta.ReadDir) (done bool) {
	p := c.nodeOf(o.Dir)
	if !c.readable(p) || p.dir == nil || o.Cookie >= p.dir.listed && p.dir.listed != listedAll {
		return false
	}
	res, list, gap := c.listLocal(p.dir, o)
	if gap && len(res.Entries) == 0 {
		return false
	}
	c.touchNode(p)
	var lives []Cache
	if o.Plus {
		lives = make([]Cache, len(res.Entries))
		for i := range res.Entries {
			e := &res.Entries[i]
			n := c.nodeOf(e.Attr.Ino)
			c.touchNode(n)
			c.pinLocal(e.Attr.Ino)
			e.Attr = c.merged(n.attr)
			lives[i] = Cache{Entry: c.giveName(p, list[i]), Attr: c.giveAttr(n)}
		}
	}
	c.answerCached(r, res, nil, Cache{}, lives)
	return true
}

// maxPage bounds the entries of a page answered locally.
const maxPage = 4096

// listLocal collects a page; gap: what comes next is not known. Equal cookies
// are never split.
func (c *Client) listLocal(d *directory, o *meta.ReadDir) (res *meta.DirResult, list []*entry, gap bool) {
	res = &meta.DirResult{EOF: true, Plus: o.Plus}
	limit := int(min(o.Limit, maxPage))
	if limit == 0 {
		limit = maxPage
	}
	cut := func() { // takes back the entries of the cookie that cannot be given whole
		res.EOF = false
	}
	d.names.Ascend(d.memo.from(o.Cookie+1), func(e *entry) bool {
		n := len(res.Entries)
		if n >= limit && res.Entries[n-1].Cookie != e.cookie {
			cut()
			return false
		}
		if e.cookie > d.listed || !e.known || e.mutating > 0 {
			gap = true
		} else if e.ino == 0 {
			return true
		} else if o.Plus {
			child := c.nodeOf(e.ino)
			p, _ := c.pins.table.Get(e.ino)
			gap = !c.readable(child) || !child.attrOK || p.replies == 0
		}
		if gap {
			cut()
			for n > 0 && res.Entries[n-1].Cookie == e.cookie {
				n--
			}
			res.Entries, list = res.Entries[:n], list[:n]
			return false
		}
		list = append(list, e)
		res.Entries = append(res.Entries, meta.DirEntry{Name: e.name, Cookie: e.cookie, Attr: meta.Attr{Ino: e.ino, Mode: e.typ}})
		return true
	})
	if res.EOF && d.listed != listedAll {
		res.EOF, gap = false, true
	}
	return res, list, gap
}
