package core

import (
	"fmt"
	"strings"
	"testing"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
)

// script drives a core by hand and writes down what it does.
type script struct {
	t    *testing.T
	s    *Server
	now  Time
	did  []string
	last []Effect
}

func newScript(t *testing.T) *script {
	sc := &script{t: t, s: New(Config{TTL: 100})}
	return sc
}

func (sc *script) step(ev Event) []Effect {
	sc.last = append([]Effect(nil), sc.s.Step(sc.now, ev)...)
	sc.did = sc.did[:0]
	for _, e := range sc.last {
		sc.did = append(sc.did, show(e))
	}
	return sc.last
}

// until lets time pass, with a Tick whenever the core expects one.
func (sc *script) until(now Time) []Effect {
	for sc.now < now {
		sc.now = min(now, sc.now+sc.s.beat())
		sc.step(Tick{})
	}
	return sc.last
}

// show renders an effect in a word or two.
func show(e Effect) string {
	switch e := e.(type) {
	case Send:
		switch f := e.Frame.(type) {
		case *meta.Reply:
			if f.Outcome.Err != nil {
				return fmt.Sprintf("reply %d to %d: %v", f.ID, e.Stream, f.Outcome.Err.Kind)
			}
			return fmt.Sprintf("reply %d to %d", f.ID, e.Stream)
		case *meta.Evicted:
			return fmt.Sprintf("evict %d: %v", e.Stream, f.Err.Kind)
		}
		return fmt.Sprintf("%s to %d", strings.TrimPrefix(fmt.Sprintf("%T", e.Frame), "*meta."), e.Stream)
	case CloseStream:
		return fmt.Sprintf("close %d", e.Stream)
	case Propose:
		var items []string
		for _, it := range e.Entry.Items {
			switch {
			case it.Op != nil:
				items = append(items, fmt.Sprintf("op %d", it.ID))
			case it.Internal != nil:
				items = append(items, strings.TrimPrefix(fmt.Sprintf("%T", it.Internal), "*state."))
			default:
				items = append(items, "log")
			}
		}
		return "propose " + strings.Join(items, ", ")
	case Submitted:
		if e.Outcome.Err != nil {
			return fmt.Sprintf("submitted: %v", e.Outcome.Err.Kind)
		}
		return "submitted"
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", e), "core.")
}

// want compares the effects of the last step, timers left out.
func (sc *script) want(lines ...string) {
	sc.t.Helper()
	var got []string
	for _, d := range sc.did {
		if d != "Timer" {
			got = append(got, d)
		}
	}
	if strings.Join(got, "\n") != strings.Join(lines, "\n") {
		sc.t.Fatalf("effects:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(lines, "\n  "))
	}
}

// apply answers the first Propose of the last step with the given outcomes and
// empty results for the rest.
func (sc *script) apply(outcomes ...meta.Outcome) {
	sc.t.Helper()
	for _, e := range sc.last {
		if p, ok := e.(Propose); ok {
			for len(outcomes) < len(p.Entry.Items) {
				outcomes = append(outcomes, done(&meta.EmptyResult{}))
			}
			sc.step(Applied{Token: p.Token, Outcomes: outcomes[:len(p.Entry.Items)]})
			return
		}
	}
	sc.t.Fatal("nothing was proposed")
}

func (sc *script) confirm() {
	sc.t.Helper()
	for _, e := range sc.last {
		if c, ok := e.(Confirm); ok {
			sc.step(Confirmed{Round: c.Round})
			return
		}
	}
	sc.t.Fatal("no confirmation was asked for")
}

func done(r meta.Result) meta.Outcome { return meta.Outcome{Result: r} }

// lead starts a reign without sessions and gets the first chores done.
func (sc *script) lead(ev BecameLeader) {
	sc.t.Helper()
	sc.step(ev)
	sc.want("FindOrphans", "propose Reclaim")
	proposed := sc.last
	sc.step(OrphansFound{})
	sc.last = proposed
	sc.apply(done(&meta.BytesResult{Data: []byte{1}}))
	sc.want()
}

// open opens session id on a stream.
func (sc *script) open(stream StreamID, id meta.SessionID) {
	sc.t.Helper()
	sc.step(StreamOpened{Stream: stream})
	sc.step(StreamFrame{stream, &meta.Open{Capability: meta.Capability{Drive: 1}}})
	sc.want("propose OpenSession")
	sc.apply(done(&meta.SessionResult{Session: id, Epoch: 1}))
	sc.want(fmt.Sprintf("Welcome to %d", stream))
}

func unlink() meta.Op { return &meta.Unlink{Parent: 1, Name: "x"} }

func TestFollowerRedirects(t *testing.T) {
	sc := newScript(t)
	sc.step(LostLeadership{Leader: 2, Address: "there"})
	sc.step(StreamOpened{Stream: 1})
	sc.step(StreamFrame{1, &meta.Open{}})
	sc.want("NotLeader to 1", "close 1")
	sc.step(Submit{Token: 1, Op: &state.Reclaim{}})
	sc.want("submitted: not_leader")
}

func TestReadsWaitForAConfirmationBegunAfterThem(t *testing.T) {
	sc := newScript(t)
	sc.lead(BecameLeader{})
	sc.open(1, 10)
	sc.step(StreamFrame{1, &meta.OpFrame{ID: 1, Op: &meta.GetAttr{Ino: 1}}})
	sc.want("Confirm")
	first := sc.last
	sc.step(StreamFrame{1, &meta.OpFrame{ID: 2, Op: &meta.GetAttr{Ino: 1}}})
	sc.want() // the round under way began before this read
	sc.last = first
	sc.confirm()
	sc.want("Confirm", "Read")
	sc.confirm()
	sc.want("Read")
}

func TestFailedConfirmationServesNothing(t *testing.T) {
	sc := newScript(t)
	sc.lead(BecameLeader{})
	sc.open(1, 10)
	sc.step(StreamFrame{1, &meta.Renew{Seq: 5}})
	c := sc.last[0].(Confirm)
	sc.step(Confirmed{Round: c.Round, Err: errs.E("", errs.Unavailable, "", nil)})
	sc.want("Confirm")
	sc.confirm()
	sc.want("Renewed to 1")
}

func TestRepeatedOperationIsProposedOnce(t *testing.T) {
	sc := newScript(t)
	sc.lead(BecameLeader{})
	sc.open(1, 10)
	sc.step(StreamFrame{1, &meta.OpFrame{ID: 1, Op: unlink()}})
	sc.want("propose op 1")
	proposed := sc.last
	// The client reconnects and sends it again.
	sc.step(StreamClosed{1})
	sc.step(StreamOpened{Stream: 2})
	sc.step(StreamFrame{2, &meta.Resume{Session: 10, Epoch: 1}})
	sc.want("Confirm")
	sc.confirm()
	rs := sc.last[0].(ReadSession)
	sc.step(SessionRead{Token: rs.Token, Result: &meta.SessionResult{Session: 10, Epoch: 1}})
	sc.want("Welcome to 2")
	sc.step(StreamFrame{2, &meta.OpFrame{ID: 1, Op: unlink()}})
	sc.want()
	sc.last = proposed
	sc.apply()
	sc.want("reply 1 to 2", "FindOrphans")
}

func TestSilentSessionsEnd(t *testing.T) {
	sc := newScript(t)
	sc.lead(BecameLeader{})
	sc.open(1, 10)
	sc.until(109)
	sc.want()
	sc.until(110)
	sc.want("Notice", "propose CloseSession")
	sc.apply()
	sc.want("evict 1: expired", "close 1", "propose Reclaim")
}

func TestNewLeaderGivesEverySessionItsLife(t *testing.T) {
	sc := newScript(t)
	sc.now = 1000
	sc.lead(BecameLeader{Sessions: []state.Session{{ID: 10, Epoch: 1, Drive: 1}}})
	sc.until(1109)
	sc.want()
	sc.until(1110)
	sc.want("Notice", "propose CloseSession")
}

// An orphan is resolved only when old reads have ended and every session has
// declared its pins.
func TestOrphanWaitsForReadsAndReclaims(t *testing.T) {
	sc := newScript(t)
	sc.lead(BecameLeader{Sessions: []state.Session{{ID: 20, Epoch: 1, Drive: 1}}})
	sc.open(1, 10)
	sc.step(StreamFrame{1, &meta.OpFrame{ID: 1, Op: &meta.Lookup{Parent: 1, Name: "x"}}})
	sc.confirm()
	read := sc.last[0].(Read)
	sc.step(OrphansFound{Orphans: []Orphan{{Drive: 1, Ino: 7}}})
	sc.want() // the read may still give the inode; session 20 is silent
	sc.step(ReadDone{Token: read.Token, Outcome: done(&meta.EntryResult{Attr: meta.Attr{Ino: 7}})})
	sc.want("reply 1 to 1")
	sc.until(109)
	sc.now = 110
	sc.step(StreamFrame{1, &meta.Renew{}})
	sc.step(Tick{})
	for _, d := range sc.did {
		if strings.Contains(d, "ResolveOrphans") {
			t.Fatal("resolved while a session had not declared its pins")
		}
	}
	// Session 20 resumes and declares nothing.
	sc = newScript(t)
	sc.lead(BecameLeader{Sessions: []state.Session{{ID: 20, Epoch: 1, Drive: 1}}})
	sc.step(OrphansFound{Orphans: []Orphan{{Drive: 1, Ino: 7}}})
	sc.want()
	sc.step(StreamOpened{Stream: 1})
	sc.step(StreamFrame{1, &meta.Resume{Session: 20, Epoch: 1}})
	sc.confirm()
	sc.step(SessionRead{Token: sc.last[0].(ReadSession).Token, Result: &meta.SessionResult{Session: 20, Epoch: 1}})
	sc.step(StreamFrame{1, &meta.Reclaim{Pins: []meta.Pin{{Ino: 7, Count: 1}}}})
	sc.want()
	sc.step(StreamFrame{1, &meta.Reclaim{Last: true}})
	sc.want("propose ResolveOrphans")
	op := sc.last[0].(Propose).Entry.Items[0].Internal.(*state.ResolveOrphans)
	if len(op.Orphans) != 1 || len(op.Orphans[0].Pins) != 1 || op.Orphans[0].Pins[0] != 20 {
		t.Fatalf("resolved with %+v", op.Orphans)
	}
	sc.apply()
	sc.want("propose Reclaim")
	sc.step(StreamFrame{1, &meta.Unpin{Pins: []meta.Pin{{Ino: 7, Count: 1}}}})
	sc.want("propose UnpinOrphans")
}

// A pin given back while its orphan is being resolved is taken off afterwards.
func TestUnpinDuringResolve(t *testing.T) {
	sc := newScript(t)
	sc.lead(BecameLeader{})
	sc.open(1, 10)
	sc.step(StreamFrame{1, &meta.OpFrame{ID: 1, Op: &meta.Lookup{Parent: 1, Name: "x"}}})
	sc.confirm()
	sc.step(ReadDone{Token: sc.last[0].(Read).Token, Outcome: done(&meta.EntryResult{Attr: meta.Attr{Ino: 7}})})
	sc.step(OrphansFound{Orphans: []Orphan{{Drive: 1, Ino: 7}}})
	sc.want("propose ResolveOrphans")
	proposed := sc.last
	sc.step(StreamFrame{1, &meta.Unpin{Pins: []meta.Pin{{Ino: 7, Count: 1}}}})
	sc.want()
	sc.last = proposed
	sc.apply()
	sc.want("propose UnpinOrphans, Reclaim")
}

func TestUnknownFateSendsClientsAway(t *testing.T) {
	sc := newScript(t)
	sc.lead(BecameLeader{})
	sc.open(1, 10)
	sc.step(StreamFrame{1, &meta.OpFrame{ID: 1, Op: unlink()}})
	p := sc.last[0].(Propose)
	sc.step(Applied{Token: p.Token, Err: errs.E("", errs.Unavailable, "", nil)})
	sc.want("NotLeader to 1", "close 1")
	sc.step(Submit{Token: 9, Op: &state.Reclaim{}})
	sc.want("propose Reclaim")
	sc.step(LostLeadership{})
	sc.want("submitted: not_leader")
}

func TestProtocolErrors(t *testing.T) {
	for name, frames := range map[string][]meta.Frame{
		"operation before open": {&meta.OpFrame{ID: 1, Op: unlink()}},
		"renew before open":     {&meta.Renew{}},
		"server's frame":        {&meta.Open{}, &meta.Renewed{}},
	} {
		t.Run(name, func(t *testing.T) {
			sc := newScript(t)
			sc.lead(BecameLeader{})
			sc.step(StreamOpened{Stream: 1})
			for i, f := range frames {
				sc.step(StreamFrame{1, f})
				if i == 0 && len(frames) > 1 {
					sc.apply(done(&meta.SessionResult{Session: 1, Epoch: 1}))
				}
			}
			if len(frames) > 1 { // a client takes that for the end of its session: so it is
				sc.want("Notice", "evict 1: invalid", "close 1", "propose CloseSession")
				return
			}
			sc.want("evict 1: invalid", "close 1")
		})
	}
}

func TestLateEventsOfAnEarlierReign(t *testing.T) {
	sc := newScript(t)
	sc.lead(BecameLeader{})
	sc.open(1, 10)
	sc.step(StreamFrame{1, &meta.OpFrame{ID: 1, Op: &meta.GetAttr{Ino: 1}}})
	c := sc.last[0].(Confirm)
	sc.step(LostLeadership{})
	sc.want("NotLeader to 1", "close 1")
	sc.lead(BecameLeader{Term: 2})
	sc.step(Confirmed{Round: c.Round})
	sc.step(Applied{Token: 1})
	sc.step(ReadDone{Token: 1})
	sc.want()
}
