package core

import (
	"testing"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

func TestFirstSession(t *testing.T) {
	h := newHand(t)
	c := one(h, take[Connect](h), "connects")
	if c.Stream != 1 || c.Hint != "" || c.After != 0 {
		t.Fatalf("connect %+v", c)
	}
	id := h.request(&meta.GetAttr{Ino: 1})
	h.none("without a stream")
	h.up()
	if o := one(h, frames[*meta.Open](h), "opens"); o.Nonce != [16]byte{9} {
		t.Fatalf("nonce %v", o.Nonce)
	}
	h.welcome(77)
	o := h.op()
	h.ok(o.ID, attrOf(1, 0, 1))
	h.answered(id)
	if s := h.c.Stats(); s.State != StateReady || s.Session != 77 {
		t.Fatalf("%+v", s)
	}
}

func TestBackOffDoublesAndWelcomeResetsIt(t *testing.T) {
	h := newHand(t)
	take[Connect](h)
	for _, want := range []Time{50e6, 100e6, 200e6, 250e6, 250e6} {
		h.down()
		if c := one(h, take[Connect](h), "connects"); c.After != h.now+want {
			t.Fatalf("after %d, want %d", c.After-h.now, want)
		}
	}
	h.up()
	h.welcome(1)
	h.down()
	if c := one(h, take[Connect](h), "connects"); c.After != h.now+50e6 {
		t.Fatalf("after welcome: %d", c.After-h.now)
	}
}

func TestNotLeaderGivesHint(t *testing.T) {
	h := ready(t)
	h.frame(&meta.NotLeader{Leader: 2, Address: "b:1"})
	c := one(h, take[Connect](h), "connects")
	if c.Hint != "b:1" || c.Stream != 2 || c.After >= h.now+50e6 || c.After <= h.now {
		t.Fatalf("connect %+v at %d", c, h.now)
	}
	one(h, take[Disconnect](h), "disconnects")
	// What still comes on the old stream is ignored.
	h.step(FrameIn{Stream: 1, Frame: &meta.Evicted{}})
	if h.c.Stats().Session != 77 {
		t.Fatal("old stream was heard")
	}
}

func TestRenewAndSilence(t *testing.T) {
	h := ready(t)
	h.after(5e9)
	r := one(h, frames[*meta.Renew](h), "renewals")
	h.frame(&meta.Renewed{Seq: r.Seq})
	h.after(5e9)
	one(h, frames[*meta.Renew](h), "renewals")
	// Valid from the send of the last one answered: 5 s after the start + 15 s.
	if got, want := h.c.ses.validUntil, Time(1e9+5e9+15e9); got != want {
		t.Fatalf("valid until %d, want %d", got, want)
	}
	h.after(5e9) // unanswered for a period: the stream is given up
	one(h, take[Disconnect](h), "disconnects")
	one(h, take[Connect](h), "connects")
	take[Notice](h)
	h.after(5e9 + 1)
	if n := one(h, take[Notice](h), "notices"); n.Err == nil || n.Err.Kind != errs.Timeout {
		t.Fatalf("notice %+v", n)
	}
	// The client does not end the session: the server may still know it.
	h.up()
	one(h, frames[*meta.Resume](h), "resumes")
}

func TestNoWelcome(t *testing.T) {
	h := newHand(t)
	h.up()
	take[Connect](h)
	h.after(10e9)
	one(h, take[Connect](h), "connects")
}

func TestResumeReclaimsAndResends(t *testing.T) {
	h := ready(t)
	lookup := h.request(&meta.Lookup{Parent: 1, Name: "a"})
	h.ok(h.op().ID, &meta.EntryResult{Attr: regular(10, 0, 1)})
	h.answered(lookup)
	mk := h.request(&meta.Make{Parent: 1, Name: "a", Mode: meta.ModeRegular})
	h.ok(h.op().ID, &meta.EntryResult{Attr: regular(10, 0, 1)})
	h.answered(mk)
	a := h.request(&meta.Unlink{Parent: 1, Name: "x"})
	b := h.request(&meta.GetAttr{Ino: 10})
	first := sentOps(h)
	h.down()
	h.none("while down")
	h.up()
	sent := take[Send](h)
	if r, ok := sent[0].Frame.(*meta.Resume); !ok || r.Session != 77 || r.Epoch != 4 || r.Nonce != [16]byte{9} {
		t.Fatalf("resume %+v", sent[0].Frame)
	}
	rc, ok := sent[1].Frame.(*meta.Reclaim)
	if !ok || len(sent) != 2 || !rc.Last || len(rc.Pins) != 1 || rc.Pins[0] != (meta.Pin{Ino: 10, Count: 2}) {
		t.Fatalf("reclaim %+v", rc)
	}
	h.welcome(77)
	again := sentOps(h)
	if len(again) != 2 || again[0].ID != first[0].ID || again[1].ID != first[1].ID || again[0].Op != first[0].Op {
		t.Fatalf("resent %+v, first %+v", again, first)
	}
	// The acknowledgement of the Make went with a frame whose arrival is not
	// proven by any reply on this stream: it is told again.
	if len(again[0].Acked) != 1 || again[0].Acked[0] != 2 {
		t.Fatalf("acked %v", again[0].Acked)
	}
	h.bad(first[0].ID, errs.NotExist)
	h.refused(a, errs.NotExist)
	h.ok(first[1].ID, attrOf(10, 0, 1))
	h.answered(b)
	h.bad(first[1].ID, errs.IO)
	h.none("a reply to nothing")
}

func TestReclaimInFrames(t *testing.T) {
	h := ready(t)
	const n = pinsPerReclaim + 5
	dir := &meta.DirResult{Plus: true, EOF: true}
	for i := range n {
		dir.Entries = append(dir.Entries, meta.DirEntry{Attr: regular(meta.Ino(1000+i), 0, 1)})
	}
	id := h.request(&meta.ReadDir{Dir: 1, Limit: n, Plus: true})
	h.ok(h.op().ID, dir)
	h.answered(id)
	h.down()
	h.up()
	rc := frames[*meta.Reclaim](h)
	if len(rc) != 2 || len(rc[0].Pins) != pinsPerReclaim || rc[0].Last || len(rc[1].Pins) != 5 || !rc[1].Last {
		t.Fatalf("%d reclaims", len(rc))
	}
}

func TestRefusedOpenIsFinal(t *testing.T) {
	h := newHand(t)
	a := h.request(&meta.GetAttr{Ino: 1})
	h.up()
	h.frame(&meta.Evicted{Err: errs.E("open", errs.NotExist, "no such drive", nil)})
	h.refused(a, errs.NotExist)
	if h.c.Stats().State != StateEnded {
		t.Fatal("not ended")
	}
	take[Connect](h)
	b := h.request(Fsync{Ino: 9})
	h.refused(b, errs.NotExist)
	h.after(60e9)
	if len(take[Connect](h)) > 0 {
		t.Fatal("connects again")
	}
}

// TestExpiredOpenIsTriedAgain: the session that an unanswered Open made ended
// before the client learned of it.
func TestExpiredOpenIsTriedAgain(t *testing.T) {
	h := newHand(t)
	h.up()
	h.down()
	h.up()
	o := frames[*meta.Open](h)
	if len(o) != 2 || o[0].Nonce != o[1].Nonce {
		t.Fatalf("opens %+v", o)
	}
	h.evict()
	h.up()
	if p := one(h, frames[*meta.Open](h), "opens"); p.Nonce == o[0].Nonce {
		t.Fatal("same nonce again")
	}
}

func TestEvictionLosesDataAndSaysSo(t *testing.T) {
	h := ready(t)
	h.step(OpenFile{Ino: 10})
	h.step(OpenFile{Ino: 10})
	h.step(OpenFile{Ino: 11})
	h.write(10, 0, 100)
	h.write(11, 0, 100)
	sync := h.request(Fsync{Ino: 10})
	h.op()
	change := h.request(&meta.Unlink{Parent: 1, Name: "x"})
	h.op()
	read := h.request(&meta.GetAttr{Ino: 12})
	getattr := h.op()
	h.evict()
	got := map[ReqID]errs.Kind{}
	for _, a := range take[Answer](h) {
		got[a.ID] = errs.KindOf(a.Err)
	}
	if len(got) != 2 || got[sync] != errs.IO || got[change] != errs.IO {
		t.Fatalf("answers %v", got)
	}
	h.up()
	if o := one(h, frames[*meta.Open](h), "opens"); o.Nonce == [16]byte{9} {
		t.Fatal("nonce used again")
	}
	h.welcome(78)
	if o := h.op(); o.ID != getattr.ID {
		t.Fatalf("sent %+v, want the read again", o)
	}
	h.ok(getattr.ID, attrOf(12, 0, 1))
	h.answered(read)
	for range 2 { // not once but until all handles are closed
		h.refused(h.request(WriteFile{Ino: 10, Data: []byte("x")}), errs.IO)
		h.refused(h.request(Flush{Ino: 10}), errs.IO)
	}
	h.step(CloseFile{Ino: 10})
	h.refused(h.request(Fsync{Ino: 10}), errs.IO)
	h.step(CloseFile{Ino: 10})
	h.step(OpenFile{Ino: 10})
	h.write(10, 0, 5)
	h.refused(h.request(Fsync{Ino: 11}), errs.IO)
}

func TestNewSessionDeclaresPins(t *testing.T) {
	h := ready(t)
	id := h.request(&meta.Lookup{Parent: 1, Name: "a"})
	h.ok(h.op().ID, &meta.EntryResult{Attr: regular(10, 0, 1)})
	h.answered(id)
	late := h.request(&meta.Unlink{Parent: 1, Name: "b"}) // never sent before the eviction
	h.op()
	h.down()
	queued := h.request(&meta.Rmdir{Parent: 1, Name: "c"})
	h.up()
	h.evict()
	h.refused(late, errs.IO)
	h.up()
	h.welcome(78)
	sent := take[Send](h)
	var order []meta.FrameKind
	for _, s := range sent[len(sent)-2:] {
		order = append(order, s.Frame.FrameKind())
	}
	if order[0] != meta.FrameReclaim || order[1] != meta.FrameOp {
		t.Fatalf("order %v", order)
	}
	h.ok(sent[len(sent)-1].Frame.(*meta.OpFrame).ID, attrOf(5, 0, 1))
	h.answered(queued)
}

func TestShutdown(t *testing.T) {
	h := ready(t)
	h.write(10, 0, 100)
	id := h.request(Shutdown{})
	w := h.op()
	h.refused(h.request(&meta.GetAttr{Ino: 1}), errs.Expired)
	if len(frames[*meta.Close](h)) > 0 {
		t.Fatal("closed before the data is published")
	}
	h.ok(w.ID, attrOf(10, 100, 2))
	one(h, frames[*meta.Close](h), "closes")
	// The stream breaks: Close is said again.
	h.down()
	h.up()
	h.welcome(77)
	one(h, frames[*meta.Close](h), "closes")
	h.evict()
	h.answered(id)
	h.refused(h.request(&meta.GetAttr{Ino: 1}), errs.Expired)
	if s := h.c.Stats(); s.State != StateEnded || s.Dirty+s.Files+s.Requests != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestShutdownTellsOfLostData(t *testing.T) {
	h := ready(t)
	h.write(10, 0, 100)
	id := h.request(Shutdown{})
	h.bad(h.op().ID, errs.NoSpace)
	h.evict()
	h.refused(id, errs.NoSpace)

	h = newHand(t)
	h.answered(h.request(Shutdown{})) // never connected, nothing to do
}

// TestSilentLeader: with an operation unanswered, silence is questioned after a
// second and ends the stream after another; idle streams are left alone.
func TestSilentLeader(t *testing.T) {
	h := ready(t)
	h.after(3e9)
	if len(frames[*meta.Renew](h)) > 0 {
		t.Fatal("an idle stream is questioned")
	}
	h.request(&meta.GetAttr{Ino: 1})
	o := h.op()
	h.after(quietDelay)
	r := one(h, frames[*meta.Renew](h), "renewals")
	h.after(quietDelay / 4)
	h.frame(&meta.Renewed{Seq: r.Seq}) // alive, the operation just takes long
	h.after(quietDelay)
	one(h, frames[*meta.Renew](h), "renewals")
	h.after(quietDelay / 2)
	one(h, take[Disconnect](h), "disconnects")
	h.up()
	h.welcome(77)
	if again := h.op(); again.ID != o.ID {
		t.Fatalf("%+v", again)
	}
	h.ok(o.ID, attrOf(1, 0, 1))

	// Waiting for a lock is no reason.
	h.request(&meta.SetLock{Wait: true})
	h.out = nil
	h.after(3 * quietDelay / 2)
	if n := len(frames[*meta.Renew](h)); n > 0 {
		t.Fatal("questioned")
	}
}
