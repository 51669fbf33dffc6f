package core

import (
	"slices"
	"testing"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// log waits for the log to leave and returns it.
func (h *hand) log() *meta.Log {
	h.t.Helper()
	h.after(logDelay)
	return one(h, frames[*meta.Log](h), "logs")
}

func (h *hand) make(dir meta.Ino, name string, mode uint32) meta.Attr {
	h.t.Helper()
	a := h.answer(h.request(&meta.Make{Parent: dir, Name: name, Mode: mode, Excl: true}))
	if a.Err != nil || a.Cache.Attr != 0 {
		h.t.Fatalf("%+v", a)
	}
	return a.Result.(*meta.EntryResult).Attr
}

func TestLocalOperations(t *testing.T) {
	h := holding(t)
	h.own(1)
	f := h.make(1, "f", meta.ModeRegular|0o644)
	if f.Ino != 500<<meta.SlotBits || f.Nlink != 1 || f.Ctime != 1e18 {
		t.Fatalf("%+v", f)
	}
	d := h.make(1, "d", meta.ModeDir|0o755)
	if d.Nlink != 2 || d.Ino != 500<<meta.SlotBits+1 {
		t.Fatalf("%+v", d)
	}
	g := h.make(d.Ino, "g", meta.ModeFIFO|0o600)
	if g.Ino>>meta.SlotBits != 501 {
		t.Fatalf("%+v", g)
	}
	root := h.answered(h.request(&meta.GetAttr{Ino: 1})).(*meta.AttrResult).Attr
	if root.Size != 2 || root.Nlink != 3 || root.Mtime != 1e18+1 || root.DataVersion != 3 {
		t.Fatalf("%+v", root)
	}
	h.refused(h.request(&meta.Rmdir{Parent: 1, Name: "d"}), errs.NotEmpty)
	h.answered(h.request(&meta.Link{Parent: d.Ino, Name: "f2", Ino: f.Ino}))
	h.answered(h.request(&meta.Unlink{Parent: 1, Name: "f"}))
	h.answered(h.request(&meta.Rename{OldParent: d.Ino, OldName: "f2", NewParent: 1, NewName: "f3"}))
	h.answered(h.request(&meta.SetAttr{Ino: f.Ino, Set: meta.SetMode, Mode: 0o600}))
	h.answered(h.request(&meta.Unlink{Parent: d.Ino, Name: "g"}))
	h.answered(h.request(&meta.Rmdir{Parent: 1, Name: "d"}))
	h.refused(h.request(&meta.Lookup{Parent: 1, Name: "d"}), errs.NotExist)
	h.refused(h.request(&meta.Unlink{Parent: 1, Name: "nothing"}), errs.NotExist)
	a := h.answered(h.request(&meta.Lookup{Parent: 1, Name: "f3"})).(*meta.EntryResult).Attr
	if a.Ino != f.Ino || a.Mode != meta.ModeRegular|0o600 || a.Nlink != 1 {
		t.Fatalf("%+v", a)
	}
	h.none("all of it was local")
	l := h.log()
	var kinds []meta.OpKind
	for _, r := range l.Records {
		kinds = append(kinds, r.Op.Kind())
	}
	want := []meta.OpKind{meta.KindMake, meta.KindMake, meta.KindMake, meta.KindLink, meta.KindUnlink, meta.KindRename, meta.KindSetAttr, meta.KindUnlink, meta.KindRmdir}
	if l.First != 1 || !slices.Equal(kinds, want) || l.Records[0].Op.(*meta.Make).Ino != f.Ino {
		t.Fatalf("first %d, %v", l.First, kinds)
	}
	h.frame(&meta.LogAck{Seq: 9})
	if s := h.c.Stats(); s.LogRecords != 0 || s.LogBytes != 0 {
		t.Fatalf("%+v", s)
	}
}

// TestAcquireFirst: a change asks for what it lacks, then is local.
func TestAcquireFirst(t *testing.T) {
	h := holding(t)
	h.lookup(1, "a", regular(10, 5, 1), read(1, 10))
	h.frame(&meta.Credited{FirstGroup: 500, Groups: 64, Unlimited: true})
	id := h.request(&meta.Unlink{Parent: 1, Name: "a"})
	acq := h.op()
	dir := dirAttr(1)
	dir.Size = 1
	h.granted(acq.ID, &meta.AcquireResult{Attrs: []meta.Attr{dir, regular(10, 5, 1)}}, write(1, 10))
	if a := h.answered(id).(*meta.AttrResult).Attr; a.Nlink != 0 {
		t.Fatalf("%+v", a)
	}
	// A name that is not known is looked up on the way.
	id = h.request(&meta.Make{Parent: 1, Name: "b", Mode: meta.ModeRegular})
	sent := take[Send](h)
	_, ok := sent[0].Frame.(*meta.Log) // it comes behind what was done locally
	l, ok2 := sent[1].Frame.(*meta.OpFrame)
	if !ok || !ok2 || l.Op.Kind() != meta.KindLookup || l.After != 1 {
		t.Fatalf("%+v", sent)
	}
	h.frame(&meta.Reply{ID: l.ID, Outcome: fail(errs.NotExist), Grants: write(1)})
	h.answered(id)
}

func TestLookupComesBehindTheLog(t *testing.T) {
	h := holding(t)
	h.lookup(1, "a", regular(10, 5, 1), write(1, 10))
	frames[*meta.Credit](h)
	h.frame(&meta.Credited{FirstGroup: 500, Groups: 64, Unlimited: true})
	id := h.request(&meta.GetAttr{Ino: 1})
	h.granted(h.op().ID, &meta.AttrResult{Attr: dirAttr(1)}, write(1))
	h.answered(id)
	h.answered(h.request(&meta.Unlink{Parent: 1, Name: "a"}))
	h.request(&meta.ReadDir{Dir: 1, Limit: 10, Plus: true})
	sent := take[Send](h)
	l, ok := sent[0].Frame.(*meta.Log)
	o, ok2 := sent[1].Frame.(*meta.OpFrame)
	if !ok || !ok2 || len(l.Records) != 1 || o.After != 1 {
		t.Fatalf("%+v", sent)
	}
	// What the table knows is newer than what the page says.
	h.granted(o.ID, &meta.DirResult{EOF: true, Plus: true, Entries: []meta.DirEntry{entryOf("b", 11)}}, write(1, 11))
	h.refused2(errs.NotExist, &meta.Lookup{Parent: 1, Name: "a"})
}

func (h *hand) refused2(k errs.Kind, op any) {
	h.t.Helper()
	take[Answer](h)
	h.refused(h.request(op), k)
}

func TestPrefetch(t *testing.T) {
	h := holding(t)
	id := h.request(&meta.ReadDir{Dir: 1, Limit: 100, Plus: true})
	list := []meta.DirEntry{entryOf("a", 10), entryOf("b", 11), entryOf("c", 12), entryOf("d", 13)}
	slices.SortFunc(list, func(a, b meta.DirEntry) int { return int(int64(a.Cookie>>1) - int64(b.Cookie>>1)) })
	list[3].Attr.Nlink = 2
	h.granted(h.op().ID, &meta.DirResult{EOF: true, Plus: true, Entries: list}, read(1, 10, 11, 12, 13))
	h.answered(id)
	h.request(&meta.Unlink{Parent: 1, Name: list[0].Name})
	w := h.op().Op.(*meta.Acquire)
	want := write(1, list[0].Attr.Ino, list[1].Attr.Ino, list[2].Attr.Ino)
	if !slices.Equal(w.Wants, want) {
		t.Fatalf("%+v", w)
	}
	h.request(&meta.Unlink{Parent: 1, Name: list[1].Name})
	h.none("asked for already")
}

func TestRecallOfWriteFlushesFirst(t *testing.T) {
	h := holding(t)
	h.own(1)
	f := h.make(1, "f", meta.ModeRegular|0o644)
	h.frame(&meta.Recall{ID: 3, Items: []meta.RecallItem{{Ino: 1, Mode: meta.RecallDowngrade}}})
	if items := h.told(); len(items) != 0 {
		t.Fatalf("%+v", items)
	}
	sent := take[Send](h)
	if len(sent) != 2 {
		t.Fatalf("%+v", sent)
	}
	if _, ok := sent[0].Frame.(*meta.Log); !ok {
		t.Fatalf("%+v", sent)
	}
	if a := sent[1].Frame.(*meta.Ack); a.LogSeq != 1 || a.Recall != 3 {
		t.Fatalf("%+v", a)
	}
	// The file stays this session's, the directory is read only.
	h.answered(h.request(&meta.SetAttr{Ino: f.Ino, Set: meta.SetMode, Mode: 0o600}))
	h.request(&meta.Make{Parent: 1, Name: "g", Mode: meta.ModeRegular})
	if o := h.op(); o.Op.Kind() != meta.KindAcquire {
		t.Fatalf("%+v", o)
	}
	// A resume declares what the rest of the log changes as held.
	h.down()
	h.up()
	h.frame(&meta.Welcome{Session: 77, Epoch: 4, Root: dirAttr(1), TTLMillis: 15000, Now: 1e18, Resumed: true})
	sent = take[Send](h)
	rc := sent[1].Frame.(*meta.Reclaim)
	if !slices.Equal(rc.Leases, write(1, f.Ino)) {
		t.Fatalf("%+v", rc)
	}
	for _, p := range rc.Pins {
		if p.Ino == f.Ino {
			t.Fatalf("%+v: the log will pin it", rc.Pins)
		}
	}
	if l := sent[2].Frame.(*meta.Log); l.First != 1 || len(l.Records) != 2 {
		t.Fatalf("%+v", l)
	}
}

func TestResumeAfterTheLogArrived(t *testing.T) {
	h := holding(t)
	h.own(1)
	f := h.make(1, "f", meta.ModeRegular|0o644)
	h.make(1, "g", meta.ModeRegular|0o644)
	h.log()
	h.down()
	h.up()
	h.frame(&meta.Welcome{Session: 77, Epoch: 4, Root: dirAttr(1), TTLMillis: 15000, Now: 1e18, Resumed: true, LastLogSeq: 1})
	sent := take[Send](h)
	rc := sent[1].Frame.(*meta.Reclaim)
	if !slices.Contains(rc.Pins, meta.Pin{Ino: f.Ino, Count: 1}) || len(rc.Pins) != 1 {
		t.Fatalf("%+v", rc.Pins)
	}
	if l := sent[2].Frame.(*meta.Log); l.First != 2 || len(l.Records) != 1 {
		t.Fatalf("%+v", l)
	}
}

func TestLogStall(t *testing.T) {
	h := holding(t)
	h.own(1)
	h.make(1, "a", meta.ModeRegular)
	h.log()
	h.after(logStall)
	id := h.request(&meta.Make{Parent: 1, Name: "b", Mode: meta.ModeRegular})
	h.none("the log does not move")
	h.frame(&meta.LogAck{Seq: 1})
	h.answered(id)
}

func TestLogIsSentInOrderWhenReady(t *testing.T) {
	h := holding(t)
	h.own(1)
	h.make(1, "a", meta.ModeRegular)
	r := &record{now: 5, op: &meta.Unlink{Parent: 1, Name: "z"}}
	h.c.logAppend(r)
	h.make(1, "b", meta.ModeRegular)
	h.c.afterLog(3, nil, func(error) {})
	h.step(Tick{})
	if l := one(h, frames[*meta.Log](h), "logs"); len(l.Records) != 1 {
		t.Fatalf("%+v", l)
	}
	h.after(10 * logDelay)
	if n := len(frames[*meta.Log](h)); n > 0 {
		t.Fatal("sent what is not ready, or behind it")
	}
	h.c.logReady(r)
	h.step(Tick{})
	if l := one(h, frames[*meta.Log](h), "logs"); l.First != 2 || len(l.Records) != 2 {
		t.Fatalf("%+v", l)
	}
}

// TestSynchronousComesBehindTheLog: an exchange is for the servers.
func TestSynchronousComesBehindTheLog(t *testing.T) {
	h := holding(t)
	h.own(1)
	h.make(1, "a", meta.ModeRegular)
	h.make(1, "b", meta.ModeRegular)
	id := h.request(&meta.Rename{OldParent: 1, OldName: "a", NewParent: 1, NewName: "b", Flags: meta.RenameExchange})
	h.told()
	sent := take[Send](h)
	l, ok := sent[0].Frame.(*meta.Log)
	o, ok2 := sent[1].Frame.(*meta.OpFrame)
	if !ok || !ok2 || len(l.Records) != 2 || o.After != 2 {
		t.Fatalf("%+v", sent)
	}
	h.frame(&meta.LogAck{Seq: 2})
	h.granted(o.ID, attrOf(500<<meta.SlotBits, 0, 3), write(1, 500<<meta.SlotBits))
	h.answered(id)
}

func TestEvictionLosesTheLog(t *testing.T) {
	h := holding(t)
	h.own(1, entryOf("old", 10))
	f := h.make(1, "f", meta.ModeRegular)
	h.step(OpenFile{Ino: f.Ino})
	h.evict()
	items := take[Invalidate](h)[0].Items
	if !items[0].Epoch || !slices.Contains(items, Inval{Ino: f.Ino}) || !slices.Contains(items, Inval{Ino: 10}) {
		t.Fatalf("%+v", items)
	}
	h.up()
	h.frame(&meta.Welcome{Session: 78, Epoch: 4, Root: dirAttr(1), TTLMillis: 15000, Now: 1e18})
	h.out = nil
	h.refused(h.request(&meta.Make{Parent: 1, Name: "x", Mode: meta.ModeRegular}), errs.IO)
	h.request(&meta.Make{Parent: 1, Name: "x", Mode: meta.ModeRegular}) // told once
	if o := h.op(); o.Op.Kind() != meta.KindAcquire {
		t.Fatalf("%+v", o)
	}
	h.refused(h.request(Fsync{Ino: f.Ino}), errs.IO)
}

func TestRefusedLog(t *testing.T) {
	h := holding(t)
	h.own(1)
	h.make(1, "f", meta.ModeRegular)
	h.log()
	h.frame(&meta.LogAck{Seq: 0, Refused: true, Err: errs.E("x", errs.Exist, "", nil)})
	one(h, frames[*meta.Close](h), "closes")
	h.request(&meta.Lookup{Parent: 1, Name: "f"})
	if a := take[Answer](h); len(a) > 0 {
		t.Fatalf("%+v: nothing that stands on the log is true", a)
	}
	h.evict()
	h.up()
	one(h, frames[*meta.Open](h), "opens")
}

func TestNoGroups(t *testing.T) {
	h := holding(t)
	h.own(1)
	h.c.credit = credit{unlimited: true, asked: true}
	id := h.request(&meta.Make{Parent: 1, Name: "f", Mode: meta.ModeRegular})
	h.told()
	o := h.op()
	if m := o.Op.(*meta.Make); m.Ino != 0 {
		t.Fatalf("%+v", m)
	}
	h.granted(o.ID, &meta.EntryResult{Attr: regular(40, 0, 1), Created: true}, write(1, 40))
	h.answered(id)
	h.answered(h.request(&meta.Lookup{Parent: 1, Name: "f"}))
}

func TestShutdownSendsTheLog(t *testing.T) {
	h := holding(t)
	h.own(1)
	h.make(1, "f", meta.ModeRegular)
	h.request(Shutdown{})
	one(h, frames[*meta.Log](h), "logs")
	h.frame(&meta.LogAck{Seq: 1})
	one(h, frames[*meta.Close](h), "closes")
}

func TestLocks(t *testing.T) {
	h := holding(t)
	lock := meta.FileLock{Ino: 10, Owner: 5, Kind: meta.LockExcl, Start: 0, End: 99}
	set := func(l meta.FileLock, wait bool) (ReqID, *meta.OpFrame) {
		id := h.request(&meta.SetLock{Lock: l, Wait: wait})
		return id, h.op()
	}
	id, o := set(lock, false)
	h.ok(o.ID, &meta.EmptyResult{})
	h.answered(id)
	half := lock
	half.Kind, half.End = meta.Unlocked, 49
	id, o = set(half, false)
	h.ok(o.ID, &meta.EmptyResult{})
	h.answered(id)

	// A wait that is cancelled ends by the servers' word.
	other := meta.FileLock{Ino: 11, Owner: 5, Kind: meta.LockShared, End: meta.LockEOF}
	id, o = set(other, true)
	h.step(Cancel{ID: id})
	if x := one(h, frames[*meta.CancelOp](h), "cancels"); x.ID != o.ID {
		t.Fatalf("%+v", x)
	}
	h.none("its answer comes from the servers")
	h.bad(o.ID, errs.Interrupted)
	h.refused(id, errs.Interrupted)

	// Without a stream the caller goes, and the wait is cancelled later.
	id, o = set(other, true)
	h.down()
	h.step(Cancel{ID: id})
	h.refused(id, errs.Interrupted)
	h.up()
	h.frame(&meta.Welcome{Session: 77, Epoch: 4, Root: dirAttr(1), TTLMillis: 15000, Now: 1e18, Resumed: true})
	sent := take[Send](h)
	rc := sent[1].Frame.(*meta.Reclaim)
	want := lock
	want.Start = 50
	if len(rc.Locks) != 1 || rc.Locks[0] != want {
		t.Fatalf("%+v", rc.Locks)
	}
	if x, ok := sent[3].Frame.(*meta.CancelOp); !ok || x.ID != o.ID {
		t.Fatalf("%+v", sent)
	}
	// It was granted all the same: it is given back.
	h.ok(o.ID, &meta.EmptyResult{})
	u := h.op().Op.(*meta.SetLock)
	if u.Lock.Kind != meta.Unlocked || u.Lock.Ino != 11 {
		t.Fatalf("%+v", u)
	}
}

// TestDeadInodesAreGivenBack: leases and pins of what was removed go as soon as
// the servers know and the kernel has forgotten.
func TestDeadInodesAreGivenBack(t *testing.T) {
	h := holding(t)
	h.own(1)
	f := h.make(1, "f", meta.ModeRegular)
	h.answered(h.request(&meta.Unlink{Parent: 1, Name: "f"}))
	h.step(Forget{Ino: f.Ino, N: 1})
	h.log()
	if len(frames[*meta.Release](h)) > 0 {
		t.Fatal("given back before the servers know")
	}
	h.frame(&meta.LogAck{Seq: 2})
	h.after(unpinDelay)
	sent := take[Send](h)
	r, ok := sent[0].Frame.(*meta.Release)
	u, ok2 := sent[1].Frame.(*meta.Unpin)
	if !ok || !ok2 || len(sent) != 2 || r.Leases[0] != (meta.Grant{Ino: f.Ino}) || u.Pins[0] != (meta.Pin{Ino: f.Ino, Count: 1}) {
		t.Fatalf("%+v", sent)
	}
	// Open files stay.
	f = h.make(1, "g", meta.ModeRegular)
	h.step(OpenFile{Ino: f.Ino})
	h.answered(h.request(&meta.Unlink{Parent: 1, Name: "g"}))
	h.step(Forget{Ino: f.Ino, N: 1})
	h.log()
	h.frame(&meta.LogAck{Seq: 4})
	h.after(unpinDelay)
	if len(take[Send](h)) > 0 {
		t.Fatal("given back while open")
	}
	h.step(CloseFile{Ino: f.Ino})
	h.after(unpinDelay)
	if n := len(take[Send](h)); n != 2 {
		t.Fatalf("%d frames", n)
	}
}

// TestLocksUnderWrite: once the servers have said that nobody else has to do
// with the locks of an inode held for writing, they are decided here; before
// the lease goes the servers are told.
func TestLocksUnderWrite(t *testing.T) {
	h := holding(t)
	h.lookup(1, "a", regular(10, 5, 1), write(1, 10))
	frames[*meta.Credit](h)
	lock := func(owner uint64, kind meta.LockKind, from, to uint64) *meta.SetLock {
		return &meta.SetLock{Lock: meta.FileLock{Ino: 10, Owner: owner, Kind: kind, Start: from, End: to}}
	}
	id := h.request(lock(5, meta.LockExcl, 0, 9))
	h.granted(h.op().ID, &meta.EmptyResult{}, write(10))
	h.answered(id)
	h.answered(h.request(lock(5, meta.Unlocked, 0, 4)))
	h.answered(h.request(lock(6, meta.LockExcl, 0, 4)))
	h.refused(h.request(lock(6, meta.LockShared, 3, 7)), errs.WouldBlock)
	g := h.answered(h.request(&meta.GetLock{Lock: lock(7, meta.LockExcl, 8, 8).Lock})).(*meta.LockResult)
	if g.Lock.Owner != 5 || g.Lock.Start != 5 {
		t.Fatalf("%+v", g)
	}
	wait := lock(6, meta.LockExcl, 3, 7)
	wait.Wait = true
	blocked := h.request(wait)
	h.none("blocked here")
	second := lock(7, meta.LockExcl, 0, 9)
	second.Wait = true
	other := h.request(second)
	h.answered(h.request(lock(8, meta.LockExcl, 50, 59)))
	h.step(Cancel{ID: other})
	h.refused(other, errs.Interrupted)

	// Somebody else looks: the servers hear of everything, then the Ack.
	h.frame(&meta.Recall{ID: 1, Items: []meta.RecallItem{{Ino: 10, Mode: meta.RecallDowngrade}}})
	h.told()
	told := sentOps(h)
	var held []meta.FileLock
	for _, o := range told[:len(told)-1] {
		if l := o.Op.(*meta.SetLock).Lock; l.Kind != meta.Unlocked {
			held = append(held, l)
		}
	}
	want := []meta.FileLock{lock(5, meta.LockExcl, 5, 9).Lock, lock(6, meta.LockExcl, 0, 4).Lock, lock(8, meta.LockExcl, 50, 59).Lock}
	if !slices.Equal(held, want) || len(told) != 7 {
		t.Fatalf("%d frames, %+v", len(told), held)
	}
	last := told[6].Op.(*meta.SetLock)
	if !last.Wait || last.Lock.Owner != 6 {
		t.Fatalf("%+v", last)
	}
	for i, o := range told[:6] {
		if len(frames[*meta.Ack](h)) > 0 {
			t.Fatalf("ack before answer %d", i)
		}
		h.ok(o.ID, &meta.EmptyResult{})
	}
	one(h, frames[*meta.Ack](h), "acks")
	h.ok(told[6].ID, &meta.EmptyResult{})
	h.answered(blocked)
	h.request(lock(9, meta.LockShared, 100, 100))
	if o := h.op(); o.Op.Kind() != meta.KindSetLock {
		t.Fatalf("%+v", o)
	}
}
