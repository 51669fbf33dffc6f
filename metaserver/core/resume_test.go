package core

import (
	"testing"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
)

// What the simulator (bench/sim) found in the course of a session's
// resumption, step by step.

// reign makes a core lead term 1 with session 7, which has not declared
// anything.
func reign(t *testing.T) *script {
	sc := newScript(t)
	sc.lead(BecameLeader{Term: 1, Sessions: []state.Session{{ID: 7, Epoch: 1, Drive: 1}}})
	return sc
}

// resume brings session 7 back on a stream.
func (sc *script) resume(stream StreamID) {
	sc.t.Helper()
	sc.step(StreamOpened{Stream: stream})
	sc.step(StreamFrame{stream, &meta.Resume{Session: 7, Epoch: 1}})
	sc.confirm()
	sc.want("ReadSession")
	read := sc.last[0].(ReadSession)
	sc.step(SessionRead{Token: read.Token, Result: &meta.SessionResult{Session: 7, Epoch: 1}})
	sc.want("Welcome to 1")
	sc.step(StreamFrame{stream, &meta.Reclaim{Last: true}})
}

func create() meta.Op { return &meta.Make{Parent: 1, Name: "x", Mode: meta.ModeRegular} }

func entryOf(ino meta.Ino) meta.Outcome { return done(&meta.EntryResult{Attr: meta.Attr{Ino: ino}}) }

func TestReclaimMayComeBeforeWelcome(t *testing.T) {
	sc := reign(t)
	sc.step(StreamOpened{Stream: 1})
	sc.step(StreamFrame{1, &meta.Resume{Session: 7, Epoch: 1}})
	asked := sc.last
	sc.step(StreamFrame{1, &meta.Reclaim{Pins: []meta.Pin{{Ino: 9, Count: 2}}, Last: true}})
	sc.want()
	sc.last = asked
	sc.confirm()
	sc.step(SessionRead{Token: sc.last[0].(ReadSession).Token, Result: &meta.SessionResult{Session: 7, Epoch: 1}})
	sc.want("Welcome to 1")
	if pins := sc.s.Pins(7); len(pins) != 1 || pins[0] != (meta.Pin{Ino: 9, Count: 2}) {
		t.Errorf("pins %v", pins)
	}
	if !sc.s.sessions[7].reclaimed {
		t.Error("the session still owes its declaration")
	}
}

// An inode whose creator has not heard of it yet is not ended.
func TestUnacknowledgedReplyPins(t *testing.T) {
	sc := reign(t)
	sc.resume(1)
	sc.step(StreamFrame{1, &meta.OpFrame{ID: 1, Op: create()}})
	proposed := sc.last
	sc.step(StreamClosed{Stream: 1})
	sc.last = proposed
	sc.apply(entryOf(9)) // nobody is there to be told
	sc.want()
	sc.step(OrphansFound{Orphans: []Orphan{{Drive: 1, Ino: 9}}})
	sc.want("propose ResolveOrphans")
	op := sc.last[0].(Propose).Entry.Items[0].Internal.(*state.ResolveOrphans)
	if pins := op.Orphans[0].Pins; len(pins) != 1 || pins[0] != 7 {
		t.Fatalf("pins %v", pins)
	}
}

// The same when another leader executed it: the state tells.
func TestRecordedReplyPins(t *testing.T) {
	sc := reign(t)
	sc.step(OrphansFound{Orphans: []Orphan{{Drive: 1, Ino: 9}}})
	sc.want() // the session has not declared anything
	sc.step(StreamOpened{Stream: 1})
	sc.step(StreamFrame{1, &meta.Resume{Session: 7, Epoch: 1}})
	sc.confirm()
	sc.step(SessionRead{
		Token: sc.last[0].(ReadSession).Token, Result: &meta.SessionResult{Session: 7, Epoch: 1},
		Replies: []state.Recorded{{ID: 3}, {ID: 4, Ino: 9}},
	})
	sc.step(StreamFrame{1, &meta.Reclaim{Open: []meta.OpID{4}, Last: true}})
	sc.want("propose ResolveOrphans")
	op := sc.last[0].(Propose).Entry.Items[0].Internal.(*state.ResolveOrphans)
	if pins := op.Orphans[0].Pins; len(pins) != 1 || pins[0] != 7 {
		t.Fatalf("pins %v", pins)
	}
	sc.apply()
	// Operation 3 is not open any more: its reply is acknowledged, in the log
	// with the next mutation. Operation 4 is asked for again, answered, told to
	// be known; then the inode is held by the entry reply alone.
	sc.step(StreamFrame{1, &meta.OpFrame{ID: 4, Op: create()}})
	p := sc.last[0].(Propose)
	for _, e := range sc.last {
		if x, ok := e.(Propose); ok && x.Entry.Items[0].Op != nil {
			p = x
		}
	}
	if got := p.Entry.Items[0].Acked; len(got) != 1 || got[0] != 3 {
		t.Fatalf("acknowledged %v", got)
	}
	sc.step(Applied{Token: p.Token, Outcomes: []meta.Outcome{entryOf(9)}})
	sc.want("reply 4 to 1")
	sc.step(StreamFrame{1, &meta.OpFrame{ID: 5, Acked: []meta.OpID{4}, Op: &meta.GetAttr{Ino: 1}}})
	sc.step(StreamFrame{1, &meta.Unpin{Pins: []meta.Pin{{Ino: 9, Count: 1}}}})
	sc.want("propose UnpinOrphans")
}

func TestAcknowledgementsOnReadsReachTheLog(t *testing.T) {
	sc := reign(t)
	sc.resume(1)
	sc.step(StreamFrame{1, &meta.OpFrame{ID: 2, Acked: []meta.OpID{1}, Op: &meta.GetAttr{Ino: 1}}})
	sc.confirm()
	sc.step(StreamFrame{1, &meta.Renew{Seq: 1}})
	sc.confirm()
	sc.want("Renewed to 1", "propose AckReplies")
}

// A reply may overtake the repetition of its operation: it is sent once on a
// stream, since its pin is counted once.
func TestRepetitionAfterTheReply(t *testing.T) {
	sc := reign(t)
	sc.resume(1)
	sc.step(StreamFrame{1, &meta.OpFrame{ID: 1, Op: create()}})
	sc.apply(entryOf(9))
	sc.want("reply 1 to 1")
	sc.step(StreamFrame{1, &meta.OpFrame{ID: 1, Op: create()}})
	sc.want()
	if pins := sc.s.Pins(7); len(pins) != 1 || pins[0].Count != 1 {
		t.Errorf("pins %v", pins)
	}
}

// A session hears of its end when the end is in the log, not before.
func TestEndIsToldWhenItIsCertain(t *testing.T) {
	sc := reign(t)
	sc.until(110)
	sc.want("Notice", "propose CloseSession")
	proposed := sc.last
	sc.step(StreamOpened{Stream: 1})
	sc.step(StreamFrame{1, &meta.Resume{Session: 7, Epoch: 1}})
	sc.confirm()
	sc.step(SessionRead{Token: sc.last[0].(ReadSession).Token, Result: &meta.SessionResult{Session: 7, Epoch: 1}})
	sc.want()
	sc.last = proposed
	sc.apply()
	sc.want("evict 1: expired", "close 1", "propose Reclaim")
}

// The end of a session whose entry came to nothing is proposed again: its
// client may go on renewing while it waits.
func TestLostEndIsProposedAgain(t *testing.T) {
	sc := reign(t)
	sc.resume(1)
	sc.step(StreamFrame{1, &meta.Close{}})
	sc.want("propose CloseSession")
	lost := sc.last[0].(Propose)
	if lost.Entry.Term != 1 {
		t.Errorf("the entry is for term %d", lost.Entry.Term)
	}
	sc.step(Applied{Token: lost.Token, Err: errs.E("group", errs.Unavailable, "", nil)})
	sc.want("propose CloseSession")
}

// Open again, after the answer was lost with a leader: nothing is pinned, and
// the client declares nothing.
func TestOpenAgainOwesNoDeclaration(t *testing.T) {
	sc := reign(t)
	sc.open(1, 7)
	sc.step(OrphansFound{Orphans: []Orphan{{Drive: 1, Ino: 9}}})
	sc.want("propose ResolveOrphans")
}
