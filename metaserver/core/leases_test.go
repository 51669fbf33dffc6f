package core

import (
	"testing"

	"agentdrive/metaserver/meta"
)

// three makes a world with a directory d and a file f in the root, and two
// sessions on streams 1 and 2. Nobody holds anything.
func two(t *testing.T, brk string) (w *world, d, f meta.Ino) {
	w = newWorld(t, brk)
	w.open(9, func(o *meta.Open) { o.Leases = false })
	d = made(t, w.call(9, 1, mkdirIn(1, "d")))
	f = made(t, w.call(9, 2, mk("f")))
	w.open(1)
	w.open(2)
	w.later(3e9)
	return w, d, f
}

func TestOldClientsGetNoGrants(t *testing.T) {
	w := newWorld(t, "")
	w.open(1, func(o *meta.Open) { o.Leases = false })
	wantGrants(t, w.call(1, 1, mk("f")), "")
	wantGrants(t, w.call(1, 2, &meta.Lookup{Parent: 1, Name: "f"}), "")
}

func TestGrantsOfReads(t *testing.T) {
	w, d, f := two(t, "")
	want := func(r *meta.Reply, inos ...meta.Ino) {
		t.Helper()
		if len(r.Grants) != len(inos) {
			t.Fatalf("grants %s, want %d", grants(r), len(inos))
		}
		for i, g := range r.Grants {
			if g.Ino != inos[i] || g.Kind != meta.LeaseRead {
				t.Fatalf("grants %s, want Read on %v", grants(r), inos)
			}
		}
	}
	want(w.call(1, 1, &meta.Lookup{Parent: 1, Name: "f"}), 1, f)
	want(w.call(1, 2, &meta.Lookup{Parent: 1, Name: "none"}), 1)
	want(w.call(2, 1, &meta.GetAttr{Ino: f}), f)
	want(w.call(2, 2, &meta.ReadMap{Ino: f, Len: 10, Limit: 4}), f)
	want(w.call(2, 3, &meta.GetXattr{Ino: f, Name: "user.x"}), f)
	r := w.call(1, 3, &meta.ReadDir{Dir: 1, Limit: 10, Plus: true})
	if len(r.Grants) != 3 || r.Grants[0].Ino != 1 {
		t.Fatalf("grants %s", grants(r))
	}
	want(w.call(1, 4, &meta.ReadDir{Dir: d, Limit: 10}), d)
	want(w.call(1, 5, &meta.GetAttr{Ino: 1 << 30}))
	want(w.call(1, 6, &meta.StatFS{}))
}

func TestMutationGrantsWriteWhereNobodyElseHolds(t *testing.T) {
	w, _, _ := two(t, "")
	r := w.call(1, 1, mk("x"))
	x := made(t, r)
	if len(r.Grants) != 2 || r.Grants[0] != (meta.Grant{Ino: 1, Kind: meta.LeaseWrite}) || r.Grants[1] != (meta.Grant{Ino: x, Kind: meta.LeaseWrite}) {
		t.Fatalf("grants %s", grants(r))
	}
	w, _, f := two(t, "")
	w.call(2, 1, &meta.GetAttr{Ino: f})
	w.call(2, 2, &meta.GetAttr{Ino: 1})
	w.op(1, 1, &meta.Unlink{Parent: 1, Name: "f"})
	rec := w.wantRecall(2, "1 names f; "+show64(f)+" release")
	w.nothing(1)
	w.frame(2, &meta.Ack{Recall: rec.ID})
	wantGrants(t, take[*meta.Reply](w, 1), "1r")
	if w.s.Lease(w.ids[2], f) != meta.LeaseNone || w.s.Lease(w.ids[2], 1) != meta.LeaseRead {
		t.Fatal("the holder has not what the recall leaves it")
	}
}

// S1: no mutation is proposed before every other holder has answered.
func TestS1WaitsForAcks(t *testing.T) {
	for _, brk := range []string{"", "S1-no-wait"} {
		w, _, f := two(t, brk)
		w.call(2, 1, &meta.GetAttr{Ino: f})
		w.op(1, 1, &meta.SetAttr{Ino: f, Set: meta.SetSize, Size: 3})
		early := len(w.sent[1]) > 0
		if early != (brk != "") {
			t.Fatalf("break %q: answered before the ack: %v", brk, early)
		}
		if brk == "" {
			rec := w.wantRecall(2, show64(f)+" release")
			w.frame(2, &meta.Ack{Recall: rec.ID})
			wantGrants(t, take[*meta.Reply](w, 1), show64(f)+"w")
		}
	}
}

// S1: an ack counts when the log that it names is executed.
func TestS1AckWaitsForTheLog(t *testing.T) {
	w, d, _ := two(t, "")
	r := w.call(2, 1, wantWrite(d))
	wantGrants(t, r, show64(d)+"w")
	first := groupOf(w, 2)
	w.op(1, 1, mkdirIn(d, "mine"))
	rec := w.wantRecall(2, show64(d)+" names mine")
	w.hold = holdPropose
	w.frame(2, &meta.Log{First: 1, Records: []meta.LogRecord{{Now: 5, Op: logMake(d, "theirs", first)}}})
	w.frame(2, &meta.Ack{Recall: rec.ID, LogSeq: 1})
	w.nothing(1)
	if w.s.Lease(w.ids[2], d) != meta.LeaseWrite {
		t.Fatal("the lease is gone before the log is executed")
	}
	// Its log has no right any more.
	w.step(StreamFrame{2, &meta.Log{First: 2, Records: []meta.LogRecord{{Now: 6, Op: logMake(d, "late", first+1)}}}})
	if !w.s.sessions[w.ids[2]].closing {
		t.Fatal("a record behind the ack was taken")
	}
	w.release()
	take[*meta.LogAck](w, 2)
	take[*meta.Reply](w, 1)
}

// S1: what a name stands for is looked at again when it may have changed.
func TestS1LooksAgain(t *testing.T) {
	for _, brk := range []string{"", "S1-no-recheck"} {
		w, d, _ := two(t, brk)
		first := groupOf(w, 2)
		w.call(2, 1, wantWrite(d))
		w.op(1, 1, &meta.Unlink{Parent: d, Name: "x"}) // nothing is there yet
		rec := w.wantRecall(2, show64(d)+" names x")
		w.frame(2, &meta.Log{First: 1, Records: []meta.LogRecord{{Now: 5, Op: logMake(d, "x", first)}}})
		take[*meta.LogAck](w, 2)
		w.frame(2, &meta.Ack{Recall: rec.ID, LogSeq: 1})
		if brk != "" {
			if o := take[*meta.Reply](w, 1).Outcome; o.Err != nil {
				t.Fatal(o.Err)
			}
			if w.s.Lease(w.ids[2], first) != meta.LeaseWrite {
				t.Fatal("broken on purpose, and the victim was recalled")
			}
			continue
		}
		// The victim is held by session 2 since its log brought it.
		rec = w.wantRecall(2, show64(d)+" names x; "+show64(first)+" release")
		w.nothing(1)
		w.frame(2, &meta.Ack{Recall: rec.ID, LogSeq: 1})
		if o := take[*meta.Reply](w, 1).Outcome; o.Err != nil {
			t.Fatal(o.Err)
		}
	}
}

// S2: who owes an ack is answered at once, and may not believe it.
func TestS2AnswersWhoOwesAnAck(t *testing.T) {
	for _, brk := range []string{"", "S2-queue"} {
		w, _, f := two(t, brk)
		w.call(2, 1, &meta.Lookup{Parent: 1, Name: "f"})
		w.op(1, 1, &meta.SetAttr{Ino: f, Set: meta.SetSize, Size: 3})
		w.wantRecall(2, show64(f)+" release")
		w.op(2, 2, &meta.GetAttr{Ino: f})
		if brk != "" {
			w.nothing(2)
			continue
		}
		wantGrants(t, take[*meta.Reply](w, 2), "")
		// Its names are not touched: that part may be believed.
		wantGrants(t, w.call(2, 3, &meta.Lookup{Parent: 1, Name: "f"}), "1r")
	}
}

// S3: grants and answers leave behind a confirmation begun after the request.
func TestS3Confirms(t *testing.T) {
	for _, brk := range []string{"", "S3-no-confirm"} {
		w, d, f := two(t, brk)
		w.hold = holdConfirms
		w.op(1, 1, &meta.GetAttr{Ino: f})
		w.op(1, 2, wantWrite(d))
		if answered := len(w.sent[1]) > 0; answered != (brk != "") {
			t.Fatalf("break %q: answered unconfirmed: %v", brk, answered)
		}
	}
	// A read that had to wait for a holder is confirmed again.
	w, d, _ := two(t, "")
	w.call(2, 1, wantWrite(d))
	w.op(1, 1, &meta.ReadDir{Dir: d, Limit: 5})
	rec := w.wantRecall(2, show64(d)+" query")
	w.hold = holdConfirms
	w.frame(2, &meta.Ack{Recall: rec.ID})
	w.nothing(1)
	w.release()
	wantGrants(t, take[*meta.Reply](w, 1), "")
}

// S4: a directory that two sessions change is not granted for a while.
func TestS4Contention(t *testing.T) {
	for _, brk := range []string{"", "S4-grant-contended"} {
		w, _, _ := two(t, brk)
		w.call(1, 1, mk("a"))
		w.op(2, 1, mk("b"))
		rec := w.wantRecall(1, "1 names b")
		w.frame(1, &meta.Ack{Recall: rec.ID})
		take[*meta.Reply](w, 2)
		r := w.call(2, 2, &meta.Lookup{Parent: 1, Name: "none"})
		if granted := len(r.Grants) > 0; granted != (brk != "") {
			t.Fatalf("break %q: grants %s", brk, grants(r))
		}
		if brk != "" {
			continue
		}
		w.call(1, 5, &meta.GetAttr{Ino: 1})
		wantGrants(t, w.call(1, 2, wantWrite(1)), "")
		w.renew(1, 2)
		w.later(w.s.contendedFor() / 3)
		w.renew(1, 2)
		w.later(w.s.contendedFor() / 3)
		w.renew(1, 2)
		w.later(w.s.contendedFor() / 3)
		wantGrants(t, w.call(2, 3, &meta.Lookup{Parent: 1, Name: "none"}), "1r")
	}
}

// S4: nobody gets Write on a file that sessions take from each other.
func TestS4SharedFile(t *testing.T) {
	for _, brk := range []string{"", "S4-grant-contended"} {
		w, _, f := two(t, brk)
		id := meta.OpID(1)
		take1 := func(a, b StreamID) {
			id++
			w.op(a, id, wantWrite(f))
			rec := w.wantRecall(b, show64(f)+" release")
			w.frame(b, &meta.Ack{Recall: rec.ID})
			wantGrants(t, take[*meta.Reply](w, a), show64(f)+"w")
		}
		wantGrants(t, w.call(1, 1, wantWrite(f)), show64(f)+"w")
		take1(2, 1)
		take1(1, 2)
		take1(2, 1)
		if brk != "" {
			take1(1, 2)
			take1(2, 1)
			continue
		}
		// The fourth recall makes it shared; the one who asked gets Read.
		w.op(1, 90, wantWrite(f))
		rec := w.wantRecall(2, show64(f)+" release")
		w.frame(2, &meta.Ack{Recall: rec.ID})
		wantGrants(t, take[*meta.Reply](w, 1), show64(f)+"r")
		wantGrants(t, w.call(2, 91, wantWrite(f)), show64(f)+"r")
		// A write passes the servers and takes the readers' leases.
		w.op(2, 92, &meta.SetAttr{Ino: f, Set: meta.SetSize, Size: 1})
		rec = w.wantRecall(1, show64(f)+" release")
		w.frame(1, &meta.Ack{Recall: rec.ID})
		wantGrants(t, take[*meta.Reply](w, 2), show64(f)+"r")
	}
}

// S7: Write beside another's lease is given to nobody.
func TestS7NoWriteBesideOthers(t *testing.T) {
	for _, brk := range []string{"", "S7-grant-despite-holder"} {
		w, d, _ := two(t, brk)
		w.call(2, 1, &meta.ReadDir{Dir: d, Limit: 4})
		r := w.call(1, 1, wantWrite(d))
		if brk == "" {
			wantGrants(t, r, show64(d)+"r")
		} else if w.s.CheckInvariants() == nil {
			t.Fatal("broken on purpose, and the invariants hold")
		}
	}
}

// S7: who has a directory for itself long enough gets it.
func TestS7Promotion(t *testing.T) {
	w, d, _ := two(t, "")
	w.call(2, 1, &meta.ReadDir{Dir: d, Limit: 4})
	for i := range meta.OpID(promoteAfter) {
		w.later(w.s.promoteQuiet() / promoteAfter)
		w.op(1, 10+i, mkdirIn(d, string(rune('a'+i))))
		rec := take[*meta.Recall](w, 2)
		w.frame(2, &meta.Ack{Recall: rec.ID})
		take[*meta.Reply](w, 1)
	}
	w.later(w.s.promoteQuiet())
	wantGrants(t, w.call(1, 30, wantWrite(d)), show64(d)+"r")
	rec := w.wantRecall(2, show64(d)+" drain")
	w.frame(2, &meta.Ack{Recall: rec.ID})
	wantGrants(t, w.call(2, 31, &meta.Lookup{Parent: d, Name: "none"}), "")
	w.later(w.s.promoteQuiet())
	wantGrants(t, w.call(1, 32, wantWrite(d)), show64(d)+"r")
	w.nothing(2) // asked once
	w.frame(2, &meta.Release{Leases: []meta.Grant{{Ino: d}}})
	wantGrants(t, w.call(1, 33, wantWrite(d)), show64(d)+"w")
}
