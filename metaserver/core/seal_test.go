package core

import (
	"testing"

	"agentdrive/metaserver/meta"
)

// Making the directories of a subtree takes every lease back first.
func TestOpenMakesItsSubtree(t *testing.T) {
	w, d, _ := two(t, "")
	first := groupOf(w, 1)
	w.call(1, 1, wantWrite(1, d))
	w.step(StreamOpened{Stream: 3})
	open := &meta.Open{Nonce: [16]byte{77}, Capability: meta.Capability{Drive: 1, Path: "/d/sub"}, CreatePath: true, Leases: true}
	w.frame(3, open)
	rec := w.wantRecall(1, "1 release; "+show64(d)+" release")
	w.nothing(3)
	w.frame(1, &meta.Log{First: 1, Records: []meta.LogRecord{record(logMake(d, "x", first))}})
	take[*meta.LogAck](w, 1)
	w.op(2, 9, &meta.Lookup{Parent: 1, Name: "none"}) // shares the recall
	w.frame(1, &meta.Ack{Recall: rec.ID, LogSeq: 1})
	wantGrants(t, take[*meta.Reply](w, 2), "")
	rec = w.wantRecall(1, show64(first)+" release") // it was born meanwhile
	w.frame(1, &meta.Ack{Recall: rec.ID, LogSeq: 1})
	take[*meta.Welcome](w, 3)
	wantGrants(t, w.call(2, 10, &meta.Lookup{Parent: 1, Name: "none"}), "1r")
	// The second time nobody is disturbed.
	w.step(StreamOpened{Stream: 4})
	open.Nonce[0]++
	w.frame(4, open)
	take[*meta.Welcome](w, 4)
	w.nothing(2)
}

// An Acquire that waits at a gate is answered when its session owes an ack:
// the ack may depend on the answer.
func TestAcquireIsRefusedWhenItsSessionOwes(t *testing.T) {
	w, _, f := two(t, "")
	g := made(t, w.call(9, 20, mk("g")))
	w.open(3)
	w.call(2, 1, wantWrite(f))
	w.call(3, 1, &meta.GetAttr{Ino: g})
	w.op(1, 1, &meta.SetAttr{Ino: g, Set: meta.SetSize, Size: 1})
	rec3 := w.wantRecall(3, show64(g)+" release")
	w.op(2, 2, wantWrite(f, g)) // has the gate of f, waits for that of g
	w.nothing(2)
	w.op(1, 2, &meta.ReadMap{Ino: f, Len: 1, Limit: 1})
	rec := w.wantRecall(2, show64(f)+" downgrade")
	wantGrants(t, take[*meta.Reply](w, 2), "")
	w.frame(2, &meta.Ack{Recall: rec.ID})
	wantGrants(t, take[*meta.Reply](w, 1), show64(f)+"r")
	w.frame(3, &meta.Ack{Recall: rec3.ID})
	take[*meta.Reply](w, 1)
	if n := len(w.s.driveOf(1).gates); n != 0 {
		t.Fatalf("%d gates are held", n)
	}
}

// The same when it owes the ack already.
func TestOwingSessionIsRefused(t *testing.T) {
	w, _, f := two(t, "")
	w.open(3)
	w.call(2, 1, &meta.GetAttr{Ino: f})
	w.call(3, 1, &meta.GetAttr{Ino: f})
	w.op(1, 1, wantWrite(f)) // recalls both, holds the gate
	rec2, rec3 := w.wantRecall(2, show64(f)+" release"), w.wantRecall(3, show64(f)+" release")
	w.op(9, 30, &meta.SetAttr{Ino: f, Set: meta.SetMode, Mode: 0o600}) // next
	w.frame(2, &meta.Ack{Recall: rec2.ID})
	w.op(2, 2, wantWrite(f)) // third
	w.nothing(2)
	w.frame(3, &meta.Ack{Recall: rec3.ID})
	wantGrants(t, take[*meta.Reply](w, 1), show64(f)+"w")
	// The SetAttr recalls session 1, which asks again meanwhile.
	rec := w.wantRecall(1, show64(f)+" attr")
	wantGrants(t, w.call(1, 2, wantWrite(f)), "")
	w.frame(1, &meta.Ack{Recall: rec.ID})
	rec = w.wantRecall(1, show64(f)+" release")
	w.frame(1, &meta.Ack{Recall: rec.ID})
	wantGrants(t, take[*meta.Reply](w, 2), show64(f)+"w")
}
