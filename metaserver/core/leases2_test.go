package core

import (
	"fmt"
	"testing"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
)

func show64(ino meta.Ino) string { return fmt.Sprint(uint64(ino)) }

// groupOf takes a locality group for a session and gives its first inode.
func groupOf(w *world, st StreamID) meta.Ino {
	w.t.Helper()
	w.frame(st, &meta.Credit{Groups: 1})
	c := take[*meta.Credited](w, st)
	if c.Groups != 1 || !c.Unlimited {
		w.t.Fatalf("credited %+v", c)
	}
	return meta.Ino(c.FirstGroup<<meta.SlotBits | 1)
}

func logMake(dir meta.Ino, name string, ino meta.Ino) meta.Op {
	return &meta.Make{Ino: ino, Parent: dir, Name: name, Mode: meta.ModeRegular | 0o644, Excl: true}
}

func record(op meta.Op) meta.LogRecord { return meta.LogRecord{Now: 7, Op: op} }

func (w *world) renew(streams ...StreamID) {
	w.t.Helper()
	for _, st := range streams {
		w.frame(st, &meta.Renew{})
		take[*meta.Renewed](w, st)
	}
}

// An answer read before a change is not to be believed, whatever the order in
// which the leader hears of both.
func TestGrantsOfOldAnswers(t *testing.T) {
	change := func(w *world, f meta.Ino) { w.call(9, 11, &meta.SetAttr{Ino: f, Set: meta.SetMode, Mode: 0o600}) }
	for _, brk := range []string{"", "G-stale-grant"} {
		w, _, f := two(t, brk)
		w.step(StreamFrame{2, &meta.OpFrame{ID: 1, Op: &meta.GetAttr{Ino: f}}})
		w.hold = holdReads
		w.run()
		var read Read
		for _, ef := range w.queue {
			if r, ok := ef.(Read); ok {
				read = r
			}
		}
		res, err := state.Read(w.db.View(), 1, read.Op)
		if err != nil {
			t.Fatal(err)
		}
		change(w, f)
		w.queue = nil
		w.step(ReadDone{Token: read.Token, Outcome: meta.Outcome{Result: res}})
		r := take[*meta.Reply](w, 2)
		if granted := len(r.Grants) > 0; granted != (brk != "") {
			t.Fatalf("break %q: grants %s", brk, grants(r))
		}
		if brk == "" && len(w.s.driveOf(1).changes.keys) == 0 {
			t.Fatal("the change was not noted")
		}
		if brk == "" { // what nobody can have missed is forgotten
			w.hold = nil
			change2 := w.call(1, 2, &meta.SetAttr{Ino: f, Set: meta.SetMode, Mode: 0o601})
			wantGrants(t, change2, show64(f)+"w")
			if n := len(w.s.driveOf(1).changes.keys); n != 0 {
				t.Fatalf("%d changes are kept with no read under way", n)
			}
		}
	}
}

// A mutation between its recalls and its end: nothing about it is granted.
func TestNoGrantAtGates(t *testing.T) {
	w, _, f := two(t, "")
	w.hold = holdPropose
	w.op(1, 1, &meta.Unlink{Parent: 1, Name: "f"})
	wantGrants(t, w.call(2, 1, &meta.Lookup{Parent: 1, Name: "f"}), "")
	wantGrants(t, w.call(2, 2, &meta.GetAttr{Ino: f}), "")
	wantGrants(t, w.call(2, 3, &meta.GetAttr{Ino: 1}), "")
	wantGrants(t, w.call(2, 4, &meta.ReadDir{Dir: 1, Limit: 9}), "")
	wantGrants(t, w.call(2, 5, &meta.Lookup{Parent: 1, Name: "other"}), "1r")
	w.op(2, 6, wantWrite(1))
	w.nothing(2) // behind the mutation
	w.release()
	wantGrants(t, take[*meta.Reply](w, 1), "") // session 2 is at its gate already
	wantGrants(t, take[*meta.Reply](w, 2), "1w")
}

// Creates of different names in one directory share an entry.
func TestCreatesPipeline(t *testing.T) {
	w, _, _ := two(t, "")
	for i := range 4 {
		w.call(StreamID(1+i%2), meta.OpID(20+i), &meta.GetAttr{Ino: 1})
	}
	w.hold = func(ef Effect) bool { return holdPropose(ef) }
	for i := range 3 {
		w.op(1, meta.OpID(1+i), mk(string(rune('a'+i))))
		w.op(2, meta.OpID(1+i), mk(string(rune('k'+i))))
	}
	for range 3 {
		for _, st := range []StreamID{1, 2} {
			rec := take[*meta.Recall](w, st)
			w.frame(st, &meta.Ack{Recall: rec.ID})
		}
	}
	ops := 0
	for _, ef := range w.queue {
		if p, ok := ef.(Propose); ok {
			ops += len(p.Entry.Items)
		}
	}
	if ops != 6 {
		t.Fatalf("%d operations are proposed, not all six", ops)
	}
	w.release()
}

// Mutations of one name come one after the other.
func TestSameNameWaits(t *testing.T) {
	w, _, _ := two(t, "")
	w.hold = holdPropose
	w.op(1, 1, mk("x"))
	w.op(2, 1, mk("x"))
	if n := len(w.s.driveOf(1).gates[gateKey{1, "x"}].queue); n != 1 {
		t.Fatalf("%d wait at the gate", n)
	}
	w.release()
	if r := take[*meta.Reply](w, 1); r.Outcome.Err != nil {
		t.Fatal(r.Outcome.Err)
	}
	if r := take[*meta.Reply](w, 2); r.Outcome.Err == nil || r.Outcome.Err.Kind != errs.Exist {
		t.Fatalf("outcome %+v", r.Outcome)
	}
}

// Reads meet what others hold for writing: Query first, Downgrade when
// somebody looks again soon, at once for content.
func TestReadsAskTheHolder(t *testing.T) {
	for _, brk := range []string{"", "R-no-query"} {
		w, d, f := two(t, brk)
		first := groupOf(w, 2)
		w.call(2, 1, wantWrite(d, f))
		w.op(1, 1, &meta.Lookup{Parent: d, Name: "x"})
		if brk != "" {
			wantGrants(t, take[*meta.Reply](w, 1), "")
			continue
		}
		rec := w.wantRecall(2, show64(d)+" query")
		w.frame(2, &meta.Log{First: 1, Records: []meta.LogRecord{record(logMake(d, "x", first))}})
		w.frame(2, &meta.Ack{Recall: rec.ID, LogSeq: 1})
		w.nothing(1)
		take[*meta.LogAck](w, 2)
		rec = w.wantRecall(2, show64(first)+" query") // what is behind the name is held, too
		w.frame(2, &meta.Ack{Recall: rec.ID, LogSeq: 1})
		r := take[*meta.Reply](w, 1)
		wantGrants(t, r, "")
		if made(t, r) != first {
			t.Fatal("the new file is not seen")
		}
		w.op(1, 2, &meta.Lookup{Parent: d, Name: "y"})
		rec = w.wantRecall(2, show64(d)+" downgrade")
		w.frame(2, &meta.Ack{Recall: rec.ID, LogSeq: 1})
		wantGrants(t, take[*meta.Reply](w, 1), show64(d)+"r")
		w.op(1, 3, &meta.ReadMap{Ino: f, Len: 1, Limit: 1})
		rec = w.wantRecall(2, show64(f)+" downgrade")
		w.op(1, 4, &meta.ReadMap{Ino: f, Len: 1, Limit: 1})
		w.nothing(2) // one is enough: it cannot change it any more
		w.frame(2, &meta.Ack{Recall: rec.ID, LogSeq: 1, Less: []meta.Grant{{Ino: f}}})
		wantGrants(t, take[*meta.Reply](w, 1), show64(f)+"r")
		wantGrants(t, take[*meta.Reply](w, 1), show64(f)+"r")
		if w.s.Lease(w.ids[2], f) != meta.LeaseNone {
			t.Fatal("the holder keeps what it gave up")
		}
	}
}

// Queries are not shared: the holder may have gone on since it answered.
func TestEveryReadHasItsQuery(t *testing.T) {
	w, d, _ := two(t, "")
	w.call(2, 1, wantWrite(d))
	w.op(1, 1, &meta.ReadDir{Dir: d, Limit: 5})
	w.wantRecall(2, show64(d)+" query")
	w.later(w.s.lookAgain() + 1)
	w.op(1, 2, &meta.ReadDir{Dir: d, Limit: 5})
	rec := w.wantRecall(2, show64(d)+" query")
	w.frame(2, &meta.Ack{Recall: rec.ID})
	if r := take[*meta.Reply](w, 1); r.ID != 2 {
		t.Fatalf("reply %d came first", r.ID)
	}
	w.nothing(1)
}

// Who holds the directory for writing gets its children like that.
func TestChildrenOfAHeldDirectory(t *testing.T) {
	w, _, f := two(t, "")
	w.call(1, 1, wantWrite(1))
	wantGrants(t, w.call(1, 2, &meta.Lookup{Parent: 1, Name: "f"}), "1w "+show64(f)+"w")
	// The other asks; both keep what they may.
	w.op(2, 2, &meta.GetAttr{Ino: f})
	rec := w.wantRecall(1, show64(f)+" query")
	w.frame(1, &meta.Ack{Recall: rec.ID})
	wantGrants(t, take[*meta.Reply](w, 2), "")
}

// An Acquire of a file waits for the others; one that also wants a directory
// of others is refused at once.
func TestAcquire(t *testing.T) {
	w, d, f := two(t, "")
	w.call(2, 1, &meta.GetAttr{Ino: f})
	w.call(2, 2, &meta.ReadDir{Dir: d, Limit: 1})
	r := w.call(1, 1, wantWrite(f, d))
	wantGrants(t, r, show64(f)+"r "+show64(d)+"r")
	if res := r.Outcome.Result.(*meta.AcquireResult); len(res.Attrs) != 2 || res.Attrs[0].Ino != f || !res.Attrs[1].IsDir() {
		t.Fatalf("attributes %+v", res.Attrs)
	}
	w.nothing(2)
	w.op(1, 2, wantWrite(f, 1<<40))
	wantGrants(t, take[*meta.Reply](w, 1), show64(f)+"r") // the other one does not exist
	w.op(1, 3, wantWrite(f))
	rec := w.wantRecall(2, show64(f)+" release")
	wantGrants(t, w.call(2, 3, wantWrite(f)), "") // S2
	w.frame(2, &meta.Ack{Recall: rec.ID})
	wantGrants(t, take[*meta.Reply](w, 1), show64(f)+"w")
	w.op(2, 33, wantWrite(f))
	rec = w.wantRecall(1, show64(f)+" release")
	w.frame(1, &meta.Ack{Recall: rec.ID})
	wantGrants(t, take[*meta.Reply](w, 2), show64(f)+"w")
	// Reading leases are had beside others.
	w.op(1, 4, &meta.Acquire{Wants: []meta.Grant{{Ino: f, Kind: meta.LeaseRead}}})
	rec = w.wantRecall(2, show64(f)+" downgrade")
	w.frame(2, &meta.Ack{Recall: rec.ID})
	wantGrants(t, take[*meta.Reply](w, 1), show64(f)+"r")
}

func TestReadOnlySessionsNeverWrite(t *testing.T) {
	w, d, f := two(t, "")
	w.open(3, func(o *meta.Open) { o.Capability.ReadOnly = true })
	wantGrants(t, w.call(3, 1, wantWrite(d, f)), show64(d)+"r "+show64(f)+"r")
}

// M1: a lease on its way back is not given again.
func TestNoGrantWhileOwing(t *testing.T) {
	w, d, _ := two(t, "")
	w.call(2, 1, wantWrite(d))
	w.frame(2, &meta.Release{LogSeq: 0, Leases: []meta.Grant{{Ino: d, Kind: meta.LeaseRead}}})
	if w.s.Lease(w.ids[2], d) != meta.LeaseRead {
		t.Fatal("the release did not count")
	}
	w.call(2, 2, wantWrite(d))
	w.op(1, 1, &meta.ReadDir{Dir: d, Limit: 4})
	w.wantRecall(2, show64(d)+" query")
	wantGrants(t, w.call(2, 3, &meta.GetAttr{Ino: d}), show64(d)+"w") // it keeps that
	w.op(1, 2, mkdirIn(d, "x"))
	w.wantRecall(2, show64(d)+" names x")
	wantGrants(t, w.call(2, 4, &meta.Lookup{Parent: d, Name: "y"}), "")
}

// A holder that does not answer is ended, though it renews; one that makes
// progress is not.
func TestSilentHoldersEnd(t *testing.T) {
	for _, progress := range []bool{false, true} {
		w, _, f := two(t, "")
		w.call(2, 1, &meta.GetAttr{Ino: f})
		w.op(1, 1, &meta.SetAttr{Ino: f, Set: meta.SetSize, Size: 9})
		rec := w.wantRecall(2, show64(f)+" release")
		for range 3 {
			w.later(7e9)
			w.frame(1, &meta.Renew{})
			renew := &meta.Renew{}
			if progress {
				renew.Progress = []uint64{rec.ID}
			}
			if w.s.sessions[w.ids[2]] != nil {
				w.frame(2, renew)
			}
		}
		if ended := w.s.sessions[w.ids[2]] == nil; ended == progress {
			t.Fatalf("progress %v: ended %v", progress, ended)
		}
		if !progress {
			take[*meta.Evicted](w, 2)
			wantGrants(t, take[*meta.Reply](w, 1), show64(f)+"w")
		}
	}
}

// The log may change only what the session holds for writing.
func TestLogNeedsWrite(t *testing.T) {
	w, d, f := two(t, "")
	first := groupOf(w, 1)
	w.call(1, 1, wantWrite(d))
	w.frame(1, &meta.Log{First: 1, Records: []meta.LogRecord{
		record(logMake(d, "x", first)), record(&meta.SetAttr{Ino: first, Set: meta.SetMode, Mode: 0o600}),
	}})
	if a := take[*meta.LogAck](w, 1); a.Refused || a.Seq != 2 {
		t.Fatalf("%+v", a)
	}
	if w.s.Lease(w.ids[1], first) != meta.LeaseWrite {
		t.Fatal("what was born in the log is not its session's")
	}
	w.frame(1, &meta.Log{First: 3, Records: []meta.LogRecord{record(&meta.SetAttr{Ino: f, Set: meta.SetMode})}})
	take[*meta.Evicted](w, 1)
	if w.s.sessions[w.ids[1]] != nil {
		t.Fatal("the session lives on")
	}
}

// S6: what a log brings is pinned before anybody can remove it.
func TestS6LogPins(t *testing.T) {
	for _, brk := range []string{"", "S6-log-no-pin"} {
		w, d, _ := two(t, brk)
		first := groupOf(w, 1)
		w.call(1, 1, wantWrite(d))
		w.frame(1, &meta.Log{First: 1, Records: []meta.LogRecord{record(logMake(d, "x", first))}})
		pinned := false
		for _, p := range w.s.Pins(w.ids[1]) {
			pinned = pinned || p == meta.Pin{Ino: first, Count: 1}
		}
		if pinned != (brk == "") {
			t.Fatalf("break %q: pinned %v", brk, pinned)
		}
	}
}

// S5: a new leader waits until it knows what everybody holds.
func TestS5NewLeaderWaits(t *testing.T) {
	for _, brk := range []string{"", "S5-no-wait"} {
		w, d, f := two(t, brk)
		first := groupOf(w, 2)
		w.call(1, 1, wantWrite(d))
		w.call(2, 1, wantWrite(f))
		w.step(LostLeadership{})
		w.sent = map[StreamID][]meta.Frame{}
		w.s.Step(w.now, StreamClosed{1})
		w.s.Step(w.now, StreamClosed{2})
		w.lead()
		w.resume(1, 11, meta.Grant{Ino: d, Kind: meta.LeaseWrite})
		w.op(11, 50, mkdirIn(d, "own")) // on what it holds
		r := take[*meta.Reply](w, 11)
		wantGrants(t, r, map[string]string{"": "", "S5-no-wait": grants(r)}[brk])
		w.op(11, 51, &meta.GetAttr{Ino: f})
		w.op(11, 52, mk("z"))
		w.op(11, 53, wantWrite(f))
		if early := len(w.sent[11]) > 0; early != (brk != "") {
			t.Fatalf("break %q: answered early: %v", brk, early)
		}
		if brk != "" {
			continue
		}
		w.resume(2, 12, meta.Grant{Ino: f, Kind: meta.LeaseWrite}, meta.Grant{Ino: first, Kind: meta.LeaseWrite})
		if w.s.Lease(w.ids[2], first) != meta.LeaseWrite {
			t.Fatal("an inode that the log will bring cannot be claimed")
		}
		rec := w.wantRecall(12, show64(f)+" query")
		w.frame(12, &meta.Ack{Recall: rec.ID})
		rec = w.wantRecall(12, show64(f)+" release")
		w.frame(12, &meta.Ack{Recall: rec.ID})
		for range 3 {
			take[*meta.Reply](w, 11)
		}
	}
}

// S5: nothing is granted before everybody has declared: it may be claimed.
func TestS5NoGrantBeforeDeclarations(t *testing.T) {
	for _, brk := range []string{"", "S5-grant"} {
		w, d, _ := two(t, brk)
		w.open(3, func(o *meta.Open) { o.Capability.ReadOnly = true })
		w.step(LostLeadership{})
		w.sent = map[StreamID][]meta.Frame{}
		w.lead()
		w.resume(1, 11)
		w.resume(2, 12)
		r := w.call(11, 60, &meta.GetAttr{Ino: d}) // only a reader is missing
		if granted := len(r.Grants) > 0; granted != (brk != "") {
			t.Fatalf("break %q: grants %s", brk, grants(r))
		}
		w.op(11, 61, mkdirIn(d, "x"))
		w.nothing(11)
		w.later(17e9) // the reader's life is over, and that of nobody else
	}
}

func TestConflictingClaimEnds(t *testing.T) {
	w, d, _ := two(t, "")
	w.step(LostLeadership{})
	w.sent = map[StreamID][]meta.Frame{}
	w.lead()
	w.resume(1, 11, meta.Grant{Ino: d, Kind: meta.LeaseWrite})
	w.resume(2, 12, meta.Grant{Ino: d, Kind: meta.LeaseRead})
	take[*meta.Evicted](w, 12)
	if w.s.Lease(w.ids[1], d) != meta.LeaseWrite {
		t.Fatal("the first claim is gone")
	}
}

// A session that comes back holds what it says, and gets its recalls again.
func TestResumeAtTheSameLeader(t *testing.T) {
	w, d, f := two(t, "")
	w.call(2, 1, wantWrite(d, f))
	w.op(1, 1, mkdirIn(d, "x"))
	rec := w.wantRecall(2, show64(d)+" names x")
	w.step(StreamClosed{2})
	w.resume(2, 12, meta.Grant{Ino: d, Kind: meta.LeaseWrite})
	if w.s.Lease(w.ids[2], f) != meta.LeaseNone {
		t.Fatal("a lease that was not declared is kept")
	}
	again := w.wantRecall(12, show64(d)+" names x")
	if again.ID == rec.ID {
		t.Fatal("the id was used before")
	}
	w.frame(12, &meta.Ack{Recall: rec.ID}) // void
	w.nothing(1)
	w.frame(12, &meta.Ack{Recall: again.ID})
	take[*meta.Reply](w, 1)
}

// The reply to a repeated operation is a record: it may be old.
func TestNoGrantOnRecordedReplies(t *testing.T) {
	w, _, _ := two(t, "")
	r := w.call(1, 1, mk("x"))
	x := made(t, r)
	w.step(StreamClosed{1})
	w.resume(1, 11)
	w.op(2, 1, &meta.SetAttr{Ino: x, Set: meta.SetMode, Mode: 0o600})
	take[*meta.Reply](w, 2)
	wantGrants(t, w.call(11, 1, mk("x")), "")
}

// The end of a session frees what it held and what waited for it.
func TestEndOfASession(t *testing.T) {
	w, d, f := two(t, "")
	w.call(2, 1, wantWrite(d, f))
	w.op(1, 1, &meta.SetAttr{Ino: f, Set: meta.SetMode, Mode: 0o600})
	w.wantRecall(2, show64(f)+" attr")
	w.op(2, 2, mkdirIn(1, "mine"))
	w.frame(2, &meta.Close{})
	wantGrants(t, take[*meta.Reply](w, 1), show64(f)+"w")
	if n := len(w.s.driveOf(1).gates); n != 0 {
		t.Fatalf("%d gates are held", n)
	}
	if st := w.s.Stats(); st.Holders != 1 || st.Pending != 0 {
		t.Fatalf("stats %+v", st)
	}
}

func TestAckOfUnknownLogRecords(t *testing.T) {
	w, d, _ := two(t, "")
	w.call(2, 1, wantWrite(d))
	w.op(1, 1, mkdirIn(d, "x"))
	rec := take[*meta.Recall](w, 2)
	w.frame(2, &meta.Ack{Recall: rec.ID, LogSeq: 5})
	take[*meta.Evicted](w, 2)
}

// What the session's own log has changed since a read was issued is not
// granted either.
func TestOwnLogMakesAnswersOld(t *testing.T) {
	for name, op := range map[string]func(d, f meta.Ino) meta.Op{
		"attributes": func(d, f meta.Ino) meta.Op { return &meta.SetAttr{Ino: f, Set: meta.SetMode, Mode: 0o600} },
		"victim":     func(d, f meta.Ino) meta.Op { return &meta.Unlink{Parent: 1, Name: "f"} },
		"elsewhere":  func(d, f meta.Ino) meta.Op { return &meta.SetAttr{Ino: d, Set: meta.SetMode, Mode: 0o700} },
	} {
		w, d, f := two(t, "")
		wantGrants(t, w.call(1, 1, wantWrite(1, d, f)), "1w "+show64(d)+"w "+show64(f)+"w")
		w.step(StreamFrame{1, &meta.OpFrame{ID: 2, Op: &meta.GetAttr{Ino: f}}})
		w.hold = holdReads
		w.run()
		token := w.queue[len(w.queue)-1].(Read).Token
		w.queue = nil
		w.frame(1, &meta.Log{First: 1, Records: []meta.LogRecord{record(op(d, f))}})
		take[*meta.LogAck](w, 1)
		w.step(ReadDone{Token: token, Outcome: done(&meta.AttrResult{Attr: meta.Attr{Ino: f}})})
		want := ""
		if name == "elsewhere" {
			want = show64(f) + "w"
		}
		if got := grants(take[*meta.Reply](w, 1)); got != want {
			t.Errorf("%s: grants %q, want %q", name, got, want)
		}
	}
}

// The ack of an old stream does not stand for that of the new one.
func TestAckOfAnOldStreamDoesNotCount(t *testing.T) {
	w, d, _ := two(t, "")
	first := groupOf(w, 2)
	w.call(2, 1, wantWrite(d))
	w.op(1, 1, mkdirIn(d, "x"))
	rec := take[*meta.Recall](w, 2)
	w.hold = holdPropose
	log := func(seq uint64) meta.Frame {
		return &meta.Log{First: seq, Records: []meta.LogRecord{record(logMake(d, string(rune('a'+seq)), first+meta.Ino(seq)))}}
	}
	w.frame(2, log(1))
	w.frame(2, &meta.Ack{Recall: rec.ID, LogSeq: 1}) // waits for record 1
	w.step(StreamClosed{2})
	claims := []meta.Grant{{Ino: d, Kind: meta.LeaseWrite}, {Ino: first + 1, Kind: meta.LeaseWrite}}
	w.resume(2, 12, claims...)
	w.frame(12, log(1))
	w.frame(12, log(2))
	rec = take[*meta.Recall](w, 12)
	w.frame(12, &meta.Ack{Recall: rec.ID, LogSeq: 2})
	for i, ef := range w.queue { // the log up to record 1
		if p, ok := ef.(Propose); ok {
			w.queue = append(w.queue[:i:i], w.queue[i+1:]...)
			w.do(p)
			break
		}
	}
	w.run()
	if w.s.sessions[w.ids[2]].LastLogSeq != 1 || w.s.Lease(w.ids[2], d) != meta.LeaseWrite {
		t.Fatal("the first ack counted")
	}
	w.release()
	if r := take[*meta.Reply](w, 1); r.Outcome.Err != nil {
		t.Fatal(r.Outcome.Err)
	}
}

// A quota ends what was given without limits.
func TestQuotaEndsUnlimitedCredit(t *testing.T) {
	w, _, _ := two(t, "")
	groupOf(w, 1)
	w.step(Submit{Token: 1, Op: &state.SetQuota{Drive: 1, SetFiles: true, MaxFiles: 5}})
	w.run()
	if c := take[*meta.Credited](w, 1); c.Unlimited {
		t.Fatalf("%+v", c)
	}
	w.frame(1, &meta.Credit{Groups: 2, Bytes: 10, Files: 10})
	if c := take[*meta.Credited](w, 1); c.Unlimited || c.Groups != 2 || c.Files != 0 {
		t.Fatalf("%+v", c)
	}
}

// The requester is not recalled: the reply tells what else it changed.
func TestReplyTellsWhatElseChanged(t *testing.T) {
	w, _, f := two(t, "")
	g := made(t, w.call(9, 40, mk("g")))
	w.later(3e9)
	w.call(1, 1, &meta.GetAttr{Ino: f})
	w.call(2, 1, &meta.GetAttr{Ino: 1})
	w.op(1, 3, &meta.Rename{OldParent: 1, OldName: "g", NewParent: 1, NewName: "f"})
	rec := w.wantRecall(2, "1 names f,g")
	w.frame(2, &meta.Ack{Recall: rec.ID})
	wantGrants(t, take[*meta.Reply](w, 1), "1r "+show64(g)+"w "+show64(f)+"-")
	if w.s.Lease(w.ids[1], f) != meta.LeaseRead {
		t.Fatal("that took the lease away")
	}
	w.op(1, 4, &meta.Unlink{Parent: 1, Name: "f"})
	rec = take[*meta.Recall](w, 2)
	w.frame(2, &meta.Ack{Recall: rec.ID})
	wantGrants(t, take[*meta.Reply](w, 1), "1r "+show64(g)+"-")
}

// A Drain is forgotten with its stream: else the session would never be granted
// the directory again.
func TestDrainEndsWithItsStream(t *testing.T) {
	for _, acked := range []bool{false, true} {
		w, d, _ := two(t, "")
		w.call(2, 1, &meta.ReadDir{Dir: d, Limit: 4})
		se := w.s.sessions[w.ids[1]]
		w.s.drain(w.s.driveOf(1).nodes[d], se)
		for _, ef := range w.s.Step(w.now, Tick{}) {
			if snd, ok := ef.(Send); ok {
				w.sent[snd.Stream] = append(w.sent[snd.Stream], snd.Frame)
			}
		}
		w.s.effects = nil
		if acked {
			w.frame(2, &meta.Ack{Recall: w.s.sessions[w.ids[2]].lastRecall})
		}
		w.step(StreamClosed{2})
		w.resume(2, 12, meta.Grant{Ino: d, Kind: meta.LeaseRead})
		want := show64(d) + "r"
		if !acked {
			w.wantRecall(12, show64(d)+" drain")
			want = ""
		}
		wantGrants(t, w.call(12, 2, &meta.ReadDir{Dir: d, Limit: 4}), want)
	}
}
