package core

import (
	"testing"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

func TestWindow(t *testing.T) {
	h := ready(t)
	var ids []ReqID
	for range meta.OpWindow + 10 {
		ids = append(ids, h.request(&meta.Unlink{Parent: 1, Name: "x"}))
	}
	sent := sentOps(h)
	if len(sent) != meta.OpWindow-1 {
		t.Fatalf("%d sent", len(sent))
	}
	// A read is not held up.
	h.request(&meta.GetAttr{Ino: 1})
	h.op()
	// One answered: its acknowledgement must reach the server before another
	// mutation may use its place, so a read carries it.
	h.bad(sent[0].ID, errs.NotExist)
	carrier := h.op()
	if !carrier.Op.Kind().IsRead() || len(carrier.Acked) != 1 || carrier.Acked[0] != sent[0].ID {
		t.Fatalf("carrier %+v", carrier)
	}
	h.ok(carrier.ID, attrOf(1, 0, 1))
	if next := h.op(); next.Op.Kind() != meta.KindUnlink || next.ID <= carrier.ID {
		t.Fatalf("next %+v", next)
	}
	h.refused(ids[0], errs.NotExist)
}

func TestIdleAcknowledgement(t *testing.T) {
	h := ready(t)
	h.request(&meta.Unlink{Parent: 1, Name: "x"})
	first := h.op()
	h.bad(first.ID, errs.NotExist)
	take[Answer](h)
	h.after(ackDelay)
	o := h.op()
	if len(o.Acked) != 1 || o.Acked[0] != first.ID {
		t.Fatalf("%+v", o)
	}
	h.ok(o.ID, attrOf(1, 0, 1))
	h.after(10 * ackDelay)
	h.none("nothing left to acknowledge")
}

func TestAgainIsTriedAgainLater(t *testing.T) {
	h := ready(t)
	id := h.request(&meta.SetAttr{Ino: 10, Set: meta.SetSize})
	first := h.op()
	h.bad(first.ID, errs.Again)
	h.none("at once")
	tm := take[Timer](h)
	if len(tm) == 0 || tm[len(tm)-1].At != h.now+againDelay {
		t.Fatalf("timers %+v", tm)
	}
	h.after(againDelay)
	second := h.op()
	if second.ID == first.ID || second.Op != first.Op {
		t.Fatalf("again as %+v", second)
	}
	h.bad(second.ID, errs.Again)
	h.after(againDelay)
	h.none("the pause doubles")
	h.after(againDelay)
	h.ok(h.op().ID, attrOf(10, 0, 3))
	h.answered(id)
}

func TestCancel(t *testing.T) {
	unlink := &meta.Unlink{Parent: 1, Name: "x"}
	lookup := &meta.Lookup{Parent: 1, Name: "x"}

	t.Run("waiting for a stream", func(t *testing.T) {
		h := newHand(t)
		id := h.request(unlink)
		h.step(Cancel{ID: id})
		h.refused(id, errs.Interrupted)
		h.up()
		h.welcome(1)
		h.none("a cancelled mutation that was not sent")
	})
	t.Run("read in flight", func(t *testing.T) {
		h := ready(t)
		id := h.request(lookup)
		o := h.op()
		h.step(Cancel{ID: id})
		h.refused(id, errs.Interrupted)
		h.ok(o.ID, &meta.EntryResult{Attr: regular(10, 0, 1)})
		h.after(unpinDelay)
		u := one(h, frames[*meta.Unpin](h), "unpins")
		if len(u.Pins) != 1 || u.Pins[0] != (meta.Pin{Ino: 10, Count: 1}) {
			t.Fatalf("unpin %+v", u)
		}
	})
	t.Run("mutation in flight", func(t *testing.T) {
		h := ready(t)
		id := h.request(unlink)
		o := h.op()
		h.step(Cancel{ID: id})
		h.none("its outcome is near")
		h.ok(o.ID, attrOf(10, 0, 1))
		h.answered(id)
	})
	t.Run("mutation in flight, then the stream breaks", func(t *testing.T) {
		h := ready(t)
		id := h.request(&meta.Make{Parent: 1, Name: "x", Mode: meta.ModeRegular})
		h.op()
		h.step(Cancel{ID: id})
		h.down()
		h.refused(id, errs.Interrupted)
		h.up()
		h.welcome(77)
		h.ok(h.op().ID, &meta.EntryResult{Attr: regular(10, 0, 1)})
		h.none("late reply")
		h.after(unpinDelay)
		one(h, frames[*meta.Unpin](h), "unpins")
	})
	t.Run("mutation in flight, stream already down", func(t *testing.T) {
		h := ready(t)
		id := h.request(unlink)
		h.down()
		h.step(Cancel{ID: id})
		h.refused(id, errs.Interrupted)
	})
	t.Run("after errs.Again", func(t *testing.T) {
		h := ready(t)
		id := h.request(&meta.SetAttr{Ino: 10, Set: meta.SetSize})
		h.bad(h.op().ID, errs.Again)
		h.step(Cancel{ID: id}) // it was not executed
		h.refused(id, errs.Interrupted)
		h.after(maxDelay / 2)
		for _, o := range sentOps(h) {
			if !o.Op.Kind().IsRead() {
				t.Fatalf("sent %+v", o)
			}
		}
	})
	t.Run("fsync", func(t *testing.T) {
		h := ready(t)
		h.write(10, 0, 10)
		id := h.request(Fsync{Ino: 10})
		o := h.op()
		h.step(Cancel{ID: id})
		h.refused(id, errs.Interrupted)
		h.ok(o.ID, attrOf(10, 10, 2))
		h.none("nobody waits")
	})
	t.Run("append before it is sent", func(t *testing.T) {
		h := ready(t)
		a := h.request(WriteFile{Ino: 10, Data: pattern(0, 8000), Append: true})
		p := h.put()
		b := h.request(WriteFile{Ino: 10, Data: []byte("b"), Append: true})
		h.step(Cancel{ID: a})
		h.refused(a, errs.Interrupted)
		w := h.op().Op.(*meta.Write)
		if string(w.Extents[0].Inline) != "b" {
			t.Fatalf("sent %+v", w)
		}
		h.stored(p)
		h.step(Cancel{ID: b})
		h.none("sent")
	})
	t.Run("read of a file before it is sent", func(t *testing.T) {
		h := newHand(t)
		id := h.request(ReadFile{Ino: 10, Len: 10})
		h.step(Cancel{ID: id})
		h.refused(id, errs.Interrupted)
		if h.c.Stats().Files != 0 {
			t.Fatal("record stays")
		}
	})
	t.Run("unknown", func(t *testing.T) {
		h := ready(t)
		h.step(Cancel{ID: 99})
		h.none("unknown request")
	})
}

func TestPins(t *testing.T) {
	h := ready(t)
	entry := func(op any, r meta.Result) {
		id := h.request(op)
		h.ok(h.op().ID, r)
		h.answered(id)
	}
	e := &meta.EntryResult{Attr: regular(10, 0, 1)}
	entry(&meta.Lookup{Parent: 1, Name: "a"}, e)
	entry(&meta.Link{Ino: 10, Parent: 1, Name: "b"}, e)
	entry(&meta.ReadDir{Dir: 1, Plus: true}, &meta.DirResult{Plus: true, Entries: []meta.DirEntry{{Attr: e.Attr}, {Attr: e.Attr}}})
	entry(&meta.ReadDir{Dir: 1}, &meta.DirResult{Entries: []meta.DirEntry{{Attr: e.Attr}}})
	h.step(Forget{Ino: 10, N: 3})
	h.after(unpinDelay)
	if len(frames[*meta.Unpin](h)) != 0 {
		t.Fatal("unpinned while referenced")
	}
	h.step(Forget{Ino: 10, N: 1})
	if len(frames[*meta.Unpin](h)) != 0 {
		t.Fatal("not batched")
	}
	// The next frame takes it along.
	h.request(&meta.GetAttr{Ino: 1})
	if u := one(h, frames[*meta.Unpin](h), "unpins"); u.Pins[0] != (meta.Pin{Ino: 10, Count: 4}) {
		t.Fatalf("unpin %+v", u)
	}
	h.step(Forget{Ino: 10, N: 7}) // unknown: ignored
	// An open file holds its pin.
	entry(&meta.Lookup{Parent: 1, Name: "a"}, e)
	h.step(OpenFile{Ino: 10})
	h.step(Forget{Ino: 10, N: 1})
	h.after(unpinDelay)
	if len(frames[*meta.Unpin](h)) != 0 {
		t.Fatal("unpinned while open")
	}
	h.step(CloseFile{Ino: 10})
	h.after(unpinDelay)
	one(h, frames[*meta.Unpin](h), "unpins")
	if s := h.c.Stats(); s.Pins+s.Files != 0 {
		t.Fatalf("%+v", s)
	}
}

// TestUnpinBeforeWelcome: what is forgotten between Reclaim and Welcome is
// given back, what is forgotten before Reclaim is not declared.
func TestUnpinBeforeWelcome(t *testing.T) {
	h := ready(t)
	for _, ino := range []meta.Ino{10, 11} {
		id := h.request(&meta.Lookup{Parent: 1, Name: "a"})
		h.ok(h.op().ID, &meta.EntryResult{Attr: regular(ino, 0, 1)})
		h.answered(id)
	}
	h.down()
	h.step(Forget{Ino: 10, N: 1})
	h.up()
	rc := one(h, frames[*meta.Reclaim](h), "reclaims")
	if len(rc.Pins) != 1 || rc.Pins[0].Ino != 11 {
		t.Fatalf("reclaim %+v", rc)
	}
	h.step(Forget{Ino: 11, N: 1})
	h.welcome(77)
	h.after(unpinDelay)
	if u := one(h, frames[*meta.Unpin](h), "unpins"); u.Pins[0] != (meta.Pin{Ino: 11, Count: 1}) {
		t.Fatalf("unpin %+v", u)
	}
}

// TestRoomOfRemovedFiles: a drive that is full for an operation behind a
// removal is asked again, since the room comes back a moment later; one that is
// full otherwise is not.
func TestRoomOfRemovedFiles(t *testing.T) {
	h := ready(t)
	h.request(&meta.Lookup{Parent: 1, Name: "a"})
	h.ok(h.op().ID, &meta.EntryResult{Attr: regular(10, 0, 1)})
	take[Answer](h)
	id := h.request(&meta.Make{Parent: 1, Name: "b", Mode: meta.ModeDir})
	h.bad(h.op().ID, errs.Quota)
	h.refused(id, errs.Quota)

	h.request(&meta.Unlink{Parent: 1, Name: "a"})
	h.ok(h.op().ID, attrOf(10, 0, 1))
	take[Answer](h)
	h.step(Forget{Ino: 10, N: 1})
	id = h.request(&meta.Make{Parent: 1, Name: "b", Mode: meta.ModeDir})
	h.bad(h.op().ID, errs.Quota)
	h.none("at once")
	h.after(againDelay)
	h.ok(h.op().ID, &meta.EntryResult{Attr: meta.Attr{Ino: 11, Mode: meta.ModeDir | 0o755, Nlink: 2}})
	h.answered(id)

	h.request(&meta.Make{Parent: 1, Name: "c", Mode: meta.ModeDir})
	tries, over := 0, false
	for end := h.now + 60e9; !over && h.now < end; h.after(againDelay) {
		for _, o := range sentOps(h) {
			if o.Op.Kind() == meta.KindMake {
				tries++
				h.bad(o.ID, errs.Quota)
			}
		}
		over = len(take[Answer](h)) > 0
	}
	if tries < 2 || !over {
		t.Errorf("asked %d times, though something was removed just now; at last answered: %v", tries, over)
	}
}
