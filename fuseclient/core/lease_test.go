package core

import (
	"slices"
	"testing"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// holding is ready with leases: the server's clock is 1e18 at the time 1e9.
func holding(t *testing.T, change ...func(*Config)) *hand {
	h := newHand(t, append([]func(*Config){func(c *Config) { c.NoLeases, c.IncEpoch = false, true }}, change...)...)
	h.up()
	h.frame(&meta.Welcome{Session: 77, Epoch: 4, Root: dirAttr(1), TTLMillis: 15000, Now: 1e18})
	h.out = nil
	return h
}

func dirAttr(ino meta.Ino) meta.Attr {
	return meta.Attr{Ino: ino, Mode: meta.ModeDir | 0o755, Nlink: 2, Mtime: 1000, Ctime: 1000, DataVersion: 1}
}

func read(inos ...meta.Ino) (g []meta.Grant) {
	for _, i := range inos {
		g = append(g, meta.Grant{Ino: i, Kind: meta.LeaseRead})
	}
	return g
}

func write(inos ...meta.Ino) (g []meta.Grant) {
	for _, i := range inos {
		g = append(g, meta.Grant{Ino: i, Kind: meta.LeaseWrite})
	}
	return g
}

// granted answers an operation with grants.
func (h *hand) granted(id meta.OpID, r meta.Result, grants []meta.Grant) {
	h.t.Helper()
	h.frame(&meta.Reply{ID: id, Outcome: done(r), Grants: grants})
}

func (h *hand) answer(id ReqID) Answer {
	h.t.Helper()
	a := one(h, take[Answer](h), "answers")
	if a.ID != id {
		h.t.Fatalf("answer %+v, want one for %d", a, id)
	}
	return a
}

// told carries out the one Invalidate there is.
func (h *hand) told() []Inval {
	h.t.Helper()
	v := one(h, take[Invalidate](h), "invalidations")
	h.step(Invalidated{Token: v.Token})
	return v.Items
}

// lookup makes a name known under a lease of both inodes.
func (h *hand) lookup(dir meta.Ino, name string, a meta.Attr, grants []meta.Grant) {
	h.t.Helper()
	id := h.request(&meta.Lookup{Parent: dir, Name: name})
	h.granted(h.op().ID, &meta.EntryResult{Attr: a}, grants)
	h.answered(id)
}

// own acquires a directory with attributes, all names known (none but list).
func (h *hand) own(dir meta.Ino, list ...meta.DirEntry) {
	h.t.Helper()
	id := h.request(&meta.ReadDir{Dir: dir, Limit: 100, Plus: true})
	grants := write(dir)
	for _, e := range list {
		grants = append(grants, meta.Grant{Ino: e.Attr.Ino, Kind: meta.LeaseWrite})
	}
	h.granted(h.op().ID, &meta.DirResult{EOF: true, Plus: true, Entries: list}, grants)
	h.answered(id)
	id = h.request(&meta.GetAttr{Ino: dir})
	a := dirAttr(dir)
	a.Size = uint64(len(list))
	h.granted(h.op().ID, &meta.AttrResult{Attr: a}, write(dir))
	h.answered(id)
	frames[*meta.Credit](h)
	h.frame(&meta.Credited{FirstGroup: 500, Groups: 64, Unlimited: true})
}

func entryOf(name string, ino meta.Ino) meta.DirEntry {
	return meta.DirEntry{Name: name, Cookie: meta.NameCookie(name), Attr: regular(ino, 0, 1)}
}

func TestOpenAnnouncesLeases(t *testing.T) {
	for _, no := range []bool{false, true} {
		h := newHand(t, func(c *Config) { c.NoLeases = no })
		h.up()
		if o := one(h, frames[*meta.Open](h), "opens"); o.Leases == no {
			t.Fatalf("NoLeases %v announces %v", no, o.Leases)
		}
	}
}

func TestCachedReads(t *testing.T) {
	h := holding(t)
	h.lookup(1, "a", regular(10, 5, 1), read(1, 10))
	a := h.answer(h.request(&meta.Lookup{Parent: 1, Name: "a"}))
	if e := a.Result.(*meta.EntryResult); e.Attr.Ino != 10 || a.Cache.Entry != 8e9 || a.Cache.Attr != 8e9 {
		t.Fatalf("%+v", a) // C3: 10 s of trust, less 2
	}
	a = h.answer(h.request(&meta.GetAttr{Ino: 10}))
	if a.Result.(*meta.AttrResult).Attr.Size != 5 || a.Cache.Attr != 8e9 {
		t.Fatalf("%+v", a)
	}
	h.refused(h.request(&meta.GetXattr{Ino: 10, Name: "security.capability"}), errs.NoAttr)
	h.refused(h.request(&meta.GetXattr{Ino: 10, Name: "system.posix_acl_access"}), errs.Unsupported)
	if n := h.answered(h.request(&meta.ListXattr{Ino: 10})).(*meta.NamesResult); len(n.Names) != 0 {
		t.Fatalf("%+v", n)
	}
	h.none("all of it was local")
	// A name that does not exist.
	id := h.request(&meta.Lookup{Parent: 1, Name: "no"})
	h.frame(&meta.Reply{ID: h.op().ID, Outcome: fail(errs.NotExist), Grants: read(1)})
	if a := h.answer(id); !errs.Is(a.Err, errs.NotExist) || a.Cache.Entry != 8e9 {
		t.Fatalf("%+v", a)
	}
	if a := h.answer(h.request(&meta.Lookup{Parent: 1, Name: "no"})); !errs.Is(a.Err, errs.NotExist) || a.Cache.Entry != 8e9 {
		t.Fatalf("%+v", a)
	}
	// The target of a link.
	link := regular(11, 3, 1)
	link.Mode = meta.ModeSymlink | 0o777
	h.lookup(1, "l", link, read(1, 11))
	id = h.request(&meta.Readlink{Ino: 11})
	h.granted(h.op().ID, &meta.BytesResult{Data: []byte("to")}, read(11))
	h.answered(id)
	if b := h.answered(h.request(&meta.Readlink{Ino: 11})).(*meta.BytesResult); string(b.Data) != "to" {
		t.Fatalf("%+v", b)
	}
	if s := h.c.Stats(); s.ReadLeases != 3 || s.WriteLeases != 0 || s.Local != 7 || s.Waits != 4 {
		t.Fatalf("%+v", s)
	}
}

func TestNotGrantedIsUsedOnce(t *testing.T) {
	h := holding(t)
	id := h.request(&meta.Lookup{Parent: 1, Name: "a"})
	h.granted(h.op().ID, &meta.EntryResult{Attr: regular(10, 5, 1)}, read(1))
	if a := h.answer(id); a.Cache.Entry != 8e9 || a.Cache.Attr != 0 {
		t.Fatalf("%+v", a)
	}
	id = h.request(&meta.Lookup{Parent: 1, Name: "a"}) // the attributes are not known
	h.granted(h.op().ID, &meta.EntryResult{Attr: regular(10, 5, 1)}, nil)
	if a := h.answer(id); a.Cache.Attr != 0 {
		t.Fatalf("%+v", a)
	}
	id = h.request(&meta.Lookup{Parent: 2, Name: "b"})
	h.granted(h.op().ID, &meta.EntryResult{Attr: regular(12, 5, 1)}, read(12))
	if a := h.answer(id); a.Cache.Entry != 0 || a.Cache.Attr != 8e9 {
		t.Fatalf("%+v", a)
	}
}

func TestListing(t *testing.T) {
	h := holding(t)
	names := []string{"a", "b", "c", "d", "e"}
	slices.SortFunc(names, func(a, b string) int {
		if meta.NameCookie(a) < meta.NameCookie(b) {
			return -1
		}
		return 1
	})
	var all []meta.DirEntry
	for i, n := range names {
		all = append(all, entryOf(n, meta.Ino(10+i)))
	}
	page := func(cookie uint64, part []meta.DirEntry, eof bool) {
		id := h.request(&meta.ReadDir{Dir: 1, Cookie: cookie, Limit: 3, Plus: true})
		grants := read(1)
		for _, e := range part {
			grants = append(grants, read(e.Attr.Ino)...)
		}
		h.granted(h.op().ID, &meta.DirResult{EOF: eof, Plus: true, Entries: part}, grants)
		a := h.answer(id)
		if len(a.Lives) != len(part) || a.Lives[0] != (Cache{8e9, 8e9}) {
			t.Fatalf("%+v", a)
		}
	}
	page(0, all[:3], false)
	id := h.request(&meta.Lookup{Parent: 1, Name: "zz"}) // not known yet, unless its place is
	if meta.NameCookie("zz") > all[2].Cookie {
		h.frame(&meta.Reply{ID: h.op().ID, Outcome: fail(errs.NotExist)})
	}
	h.refused(id, errs.NotExist)
	page(all[2].Cookie, all[3:], true)
	h.refused(h.request(&meta.Lookup{Parent: 1, Name: "yy"}), errs.NotExist)
	var got []string
	for cookie, eof := uint64(0), false; !eof; {
		r := h.answered(h.request(&meta.ReadDir{Dir: 1, Cookie: cookie, Limit: 2, Plus: true})).(*meta.DirResult)
		for _, e := range r.Entries {
			got = append(got, e.Name)
			cookie = e.Cookie
		}
		eof = r.EOF
	}
	if !slices.Equal(got, names) {
		t.Fatalf("%v, want %v", got, names)
	}
	h.none("local")
	// A name changes elsewhere: the page ends before it, and it is asked for.
	h.frame(&meta.Recall{ID: 1, Items: []meta.RecallItem{{Ino: 1, Mode: meta.RecallNames, Names: []string{names[1]}}}})
	h.told()
	one(h, frames[*meta.Ack](h), "acks")
	r := h.answered(h.request(&meta.ReadDir{Dir: 1, Limit: 10, Plus: true})).(*meta.DirResult)
	if len(r.Entries) != 1 || r.EOF {
		t.Fatalf("%+v", r)
	}
	id = h.request(&meta.ReadDir{Dir: 1, Cookie: r.Entries[0].Cookie, Limit: 10, Plus: true})
	h.granted(h.op().ID, &meta.DirResult{EOF: true, Plus: true, Entries: all[2:]}, read(1))
	h.answered(id)
	r = h.answered(h.request(&meta.ReadDir{Dir: 1, Limit: 10})).(*meta.DirResult)
	if len(r.Entries) != 4 || !r.EOF {
		t.Fatalf("%+v", r)
	}
}

func TestRecallNames(t *testing.T) {
	h := holding(t)
	h.lookup(1, "a", regular(10, 5, 1), read(1, 10))
	h.lookup(1, "b", regular(11, 5, 1), read(1, 11))
	h.frame(&meta.Recall{ID: 9, Items: []meta.RecallItem{{Ino: 1, Mode: meta.RecallNames, Names: []string{"a", "never"}}}})
	v := one(h, take[Invalidate](h), "invalidations")
	if len(v.Items) != 1 || v.Items[0] != (Inval{Dir: 1, Name: "a"}) {
		t.Fatalf("%+v", v.Items)
	}
	if len(frames[*meta.Ack](h)) > 0 {
		t.Fatal("ack before the kernel forgot")
	}
	// Meanwhile: the truth, with no lifetime.
	if a := h.answer(h.request(&meta.Lookup{Parent: 1, Name: "a"})); a.Cache.Entry != 0 {
		t.Fatalf("%+v", a)
	}
	h.step(Invalidated{Token: v.Token})
	if a := one(h, frames[*meta.Ack](h), "acks"); a.Recall != 9 || a.LogSeq != 0 || len(a.Less) != 0 {
		t.Fatalf("%+v", a)
	}
	h.answered(h.request(&meta.Lookup{Parent: 1, Name: "b"}))
	h.request(&meta.Lookup{Parent: 1, Name: "a"})
	h.op()
}

func TestRecallRelease(t *testing.T) {
	h := holding(t)
	h.lookup(1, "a", regular(10, 5, 1), read(1, 10))
	h.frame(&meta.Recall{ID: 1, Items: []meta.RecallItem{{Ino: 10, Mode: meta.RecallRelease}, {Ino: 1, Mode: meta.RecallRelease}, {Ino: 99, Mode: meta.RecallRelease}}})
	items := h.told()
	want := []Inval{{Ino: 10}, {Dir: 1, Name: "a"}}
	if !slices.Equal(items, want) {
		t.Fatalf("%+v, want %+v", items, want)
	}
	one(h, frames[*meta.Ack](h), "acks")
	if s := h.c.Stats(); s.ReadLeases != 0 {
		t.Fatalf("%+v", s)
	}
	// A grant that crossed the ack counts for nothing.
	id := h.request(&meta.GetAttr{Ino: 10})
	early := h.op()
	h.frame(&meta.Recall{ID: 2, Items: []meta.RecallItem{{Ino: 10, Mode: meta.RecallRelease}}})
	h.told()
	h.granted(early.ID, attrOf(10, 5, 1), read(10))
	if a := h.answer(id); a.Cache.Attr != 0 {
		t.Log("a recall of what is not held bars nothing", a)
	}
}

func TestGrantThatCrossesARelease(t *testing.T) {
	h := holding(t)
	h.lookup(1, "a", regular(10, 5, 1), read(1, 10))
	id := h.request(&meta.Lookup{Parent: 1, Name: "b"})
	early := h.op()
	h.frame(&meta.Recall{ID: 2, Items: []meta.RecallItem{{Ino: 1, Mode: meta.RecallRelease}}})
	h.told()
	h.granted(early.ID, &meta.EntryResult{Attr: regular(11, 5, 1)}, read(1, 11))
	if a := h.answer(id); a.Cache.Entry != 0 || a.Cache.Attr == 0 {
		t.Fatalf("%+v", a)
	}
	id = h.request(&meta.Lookup{Parent: 1, Name: "b"})
	h.granted(h.op().ID, &meta.EntryResult{Attr: regular(11, 5, 1)}, read(1, 11))
	if a := h.answer(id); a.Cache.Entry == 0 {
		t.Fatalf("%+v", a)
	}
}

func TestDrain(t *testing.T) {
	h := holding(t)
	h.lookup(1, "a", regular(10, 5, 1), read(1, 10))
	h.now += 1e9
	h.frame(&meta.Recall{ID: 1, Items: []meta.RecallItem{{Ino: 1, Mode: meta.RecallDrain}}})
	h.told()
	one(h, frames[*meta.Ack](h), "acks")
	if a := h.answer(h.request(&meta.Lookup{Parent: 1, Name: "a"})); a.Cache.Entry != 0 {
		t.Fatalf("%+v", a)
	}
	h.after(4e9)
	r := one(h, frames[*meta.Renew](h), "renewals")
	h.frame(&meta.Renewed{Seq: r.Seq, Now: 1e18})
	h.after(2e9) // 7 s since the lifetime was given, which was 8
	if len(frames[*meta.Release](h)) > 0 {
		t.Fatal("released while a lifetime runs")
	}
	h.after(1e9)
	if f := one(h, frames[*meta.Release](h), "releases"); len(f.Leases) != 1 || f.Leases[0] != (meta.Grant{Ino: 1}) {
		t.Fatalf("%+v", f)
	}
	h.request(&meta.Lookup{Parent: 1, Name: "a"})
	h.op()
}

// TestSelfRecall: before a synchronous change leaves, the kernel forgets.
func TestSelfRecall(t *testing.T) {
	h := holding(t)
	h.lookup(1, "a", regular(10, 5, 1), read(1, 10))
	id := h.request(&meta.Unlink{Parent: 1, Name: "a"})
	acq := h.op() // acquire first
	if w := acq.Op.(*meta.Acquire); !slices.Equal(w.Wants, write(1, 10)) {
		t.Fatalf("%+v", w)
	}
	h.granted(acq.ID, &meta.AcquireResult{Attrs: []meta.Attr{dirAttr(1), regular(10, 5, 1)}}, read(1, 10))
	h.none("before the kernel forgot")
	items := h.told()
	if want := []Inval{{Epoch: true}, {Ino: 10, Attr: true}}; !slices.Equal(items, want) {
		t.Fatalf("%+v", items)
	}
	u := h.op()
	// While it is under way nothing is known.
	look := h.request(&meta.GetAttr{Ino: 10})
	ga := h.op()
	h.granted(ga.ID, attrOf(10, 5, 1), read(10))
	if a := h.answer(look); a.Cache.Attr != 0 {
		t.Fatalf("%+v", a)
	}
	gone := regular(10, 5, 1)
	gone.Nlink = 0
	h.granted(u.ID, &meta.AttrResult{Attr: gone}, read(1))
	h.answered(id)
	h.refused(h.request(&meta.Lookup{Parent: 1, Name: "a"}), errs.NotExist)
	// Refused a moment ago: not asked for again.
	h.request(&meta.Make{Parent: 1, Name: "a", Mode: meta.ModeRegular})
	if o := one(h, take[Invalidate](h), "invalidations"); !o.Items[0].Epoch {
		t.Fatalf("%+v", o)
	}
}

func TestLifetimesWithoutEpoch(t *testing.T) {
	h := holding(t, func(c *Config) { c.IncEpoch = false })
	h.lookup(1, "a", regular(10, 5, 1), read(1, 10))
	if a := h.answer(h.request(&meta.Lookup{Parent: 1, Name: "a"})); a.Cache.Entry != 0 || a.Cache.Attr == 0 {
		t.Fatalf("%+v", a)
	}
	h.lookup(2, "b", regular(11, 5, 1), write(2, 11))
	if a := h.answer(h.request(&meta.Lookup{Parent: 2, Name: "b"})); a.Cache.Entry != 8e9 {
		t.Fatalf("%+v", a)
	}
}

// TestLockedDirectory: with an own request open that holds the directory's
// lock, no name is told to the kernel one by one.
func TestLockedDirectory(t *testing.T) {
	h := holding(t)
	h.lookup(1, "a", regular(10, 5, 1), read(1, 10))
	h.request(&meta.Lookup{Parent: 1, Name: "other"})
	h.op()
	h.frame(&meta.Recall{ID: 1, Items: []meta.RecallItem{{Ino: 1, Mode: meta.RecallNames, Names: []string{"a"}}}})
	if items := h.told(); len(items) != 1 || !items[0].Epoch {
		t.Fatalf("%+v", items)
	}
	one(h, frames[*meta.Ack](h), "acks")

	h = holding(t)
	h.lookup(1, "a", regular(10, 5, 1), read(1, 10))
	h.frame(&meta.Recall{ID: 1, Items: []meta.RecallItem{{Ino: 1, Mode: meta.RecallNames, Names: []string{"a"}}}})
	first := one(h, take[Invalidate](h), "invalidations")
	h.request(&meta.Lookup{Parent: 1, Name: "other"}) // takes the lock before the notification does
	h.op()
	if items := h.told(); len(items) != 1 || !items[0].Epoch {
		t.Fatalf("%+v", items)
	}
	one(h, frames[*meta.Ack](h), "acks")
	h.step(Invalidated{Token: first.Token}) // ends by itself
	h.none("long done")
}

func TestValidity(t *testing.T) {
	h := holding(t)
	h.lookup(1, "a", regular(10, 5, 1), read(1, 10))
	h.step(OpenFile{Ino: 10})
	h.down()
	h.now += 9e9
	if a := h.answer(h.request(&meta.Lookup{Parent: 1, Name: "a"})); a.Cache.Entry != 0 {
		t.Fatalf("%+v", a) // the leases count, lifetimes are over
	}
	h.after(1e9)
	if items := h.told(); !slices.Equal(items, []Inval{{Epoch: true}, {Ino: 10}}) {
		t.Fatalf("%+v", items)
	}
	id := h.request(&meta.GetAttr{Ino: 10})
	h.none("validity is in doubt")
	h.up()
	h.frame(&meta.Welcome{Session: 77, Epoch: 4, Root: dirAttr(1), TTLMillis: 15000, Now: 1e18, Resumed: true})
	sent := take[Send](h)
	rc, ok := sent[1].Frame.(*meta.Reclaim)
	if !ok || !slices.Equal(rc.Leases, read(1, 10)) || !rc.Last {
		t.Fatalf("%+v", sent[1].Frame)
	}
	h.granted(sent[2].Frame.(*meta.OpFrame).ID, attrOf(10, 5, 1), read(10))
	h.answered(id)
	h.answered(h.request(&meta.Lookup{Parent: 1, Name: "a"})) // counts again
}

func TestIdleLeasesAreReleased(t *testing.T) {
	h := holding(t)
	h.lookup(1, "a", regular(10, 5, 1), read(1, 10))
	for range 9 {
		h.after(5e9)
		for _, r := range frames[*meta.Renew](h) {
			h.frame(&meta.Renewed{Seq: r.Seq, Now: 1e18})
		}
	}
	if s := h.c.Stats(); s.ReadLeases != 0 || s.Nodes != 0 {
		t.Fatalf("%+v", s)
	}
}

// TestLateAnswerIsOlder: an answer to a read from before an own change is not
// taken for the truth after it.
func TestLateAnswerIsOlder(t *testing.T) {
	h := holding(t)
	h.lookup(1, "a", regular(10, 5, 1), write(1, 10))
	id := h.request(&meta.ReadDir{Dir: 1, Limit: 10, Plus: true})
	early := h.op()
	x := h.request(&meta.SetXattr{Ino: 10, Name: "user.x"})
	h.told()
	h.granted(h.op().ID, &meta.EmptyResult{}, write(10))
	h.answered(x)
	h.granted(early.ID, &meta.DirResult{EOF: true, Plus: true, Entries: []meta.DirEntry{entryOf("a", 10)}}, write(1, 10))
	if a := h.answer(id); a.Lives[0].Attr != 0 {
		t.Fatalf("%+v", a)
	}
	h.request(&meta.GetAttr{Ino: 10})
	h.op()
}

// TestCrowdedTable: beyond the cap the least recently used go early.
func TestCrowdedTable(t *testing.T) {
	h := holding(t, func(c *Config) { c.MaxNodes = 3 })
	for i := range 6 {
		id := h.request(&meta.GetAttr{Ino: meta.Ino(10 + i)})
		h.granted(h.op().ID, attrOf(meta.Ino(10+i), 0, 1), read(meta.Ino(10+i)))
		h.answered(id)
		h.after(1e6)
	}
	if n := h.c.Stats().Nodes; n != 6 {
		t.Fatalf("%d nodes: the kernel believes their attributes", n)
	}
	for range 2 {
		h.after(5e9)
		for _, r := range frames[*meta.Renew](h) {
			h.frame(&meta.Renewed{Seq: r.Seq, Now: 1e18})
		}
	}
	h.after(1e9)
	if n := h.c.Stats().Nodes; n != 3 {
		t.Fatalf("%d nodes", n)
	}
	h.answered(h.request(&meta.GetAttr{Ino: 15}))
}

// TestDriveUse: statfs is answered from memory while nothing changes here, and
// asked for again behind the answer.
func TestDriveUse(t *testing.T) {
	h := holding(t)
	ask := func() *meta.StatFSResult { return h.answered(h.request(&meta.StatFS{})).(*meta.StatFSResult) }
	id := h.request(&meta.StatFS{})
	h.ok(h.op().ID, &meta.StatFSResult{Bytes: 5})
	h.answered(id)
	if u := ask(); u.Bytes != 5 {
		t.Fatalf("%+v", u)
	}
	h.none("fresh")
	h.after(useFresh)
	if u := ask(); u.Bytes != 5 {
		t.Fatalf("%+v", u)
	}
	h.ok(h.op().ID, &meta.StatFSResult{Bytes: 6})
	if u := ask(); u.Bytes != 6 {
		t.Fatalf("%+v", u)
	}
	h.own(1)
	h.make(1, "f", meta.ModeRegular)
	h.request(&meta.StatFS{})
	sent := take[Send](h) // behind what was changed
	if o, ok := sent[len(sent)-1].Frame.(*meta.OpFrame); !ok || o.After != 1 {
		t.Fatalf("%+v", sent)
	}
}
