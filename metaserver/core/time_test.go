package core

import (
	"testing"

	"agentdrive/metaserver/meta"
)

// A server that was stopped finds all deadlines passed at once when it goes
// on; whatever it then hears of first, no session pays for it.
func TestStandstillEndsNobody(t *testing.T) {
	for name, first := range map[string]func(w *world){
		"tick":   func(w *world) { w.step(Tick{}) },
		"frame":  func(w *world) { w.frame(1, &meta.Renew{}) },
		"stream": func(w *world) { w.step(StreamClosed{1}) },
	} {
		t.Run(name, func(t *testing.T) {
			w, _, f := two(t, "")
			before := len(w.s.sessions)
			w.call(2, 1, &meta.GetAttr{Ino: f})
			w.op(1, 1, &meta.SetAttr{Ino: f, Set: meta.SetSize, Size: 9})
			rec := w.wantRecall(2, show64(f)+" release")
			w.later(5e9)
			w.now += 3600e9
			first(w)
			w.run()
			w.later(5e9)
			if n := len(w.s.sessions); n != before {
				t.Fatalf("%d sessions are left of %d", n, before)
			}
			if st := w.s.Stats(); st.Standstills != 1 {
				t.Errorf("%d standstills were counted", st.Standstills)
			}
			w.frame(2, &meta.Ack{Recall: rec.ID})
			if name != "stream" {
				take[*meta.Reply](w, 1)
			}
			// Time counts again: who says nothing still ends.
			w.later(17e9)
			if len(w.s.sessions) != 0 {
				t.Fatalf("%d silent sessions are left", len(w.s.sessions))
			}
		})
	}
}

// A leader without work asks for one Tick a beat, not for one with each event.
func TestOneTickABeat(t *testing.T) {
	w := newWorld(t, "")
	w.open(1)
	timers := 0
	for range 10 {
		w.now += w.s.beat() / 10
		for _, ef := range w.s.Step(w.now, StreamFrame{1, &meta.Unpin{}}) {
			if _, ok := ef.(Timer); ok {
				timers++
			}
		}
	}
	if timers != 0 {
		t.Errorf("%d timers, though one runs already", timers)
	}
	for _, ef := range w.s.Step(w.now, Tick{}) {
		if _, ok := ef.(Timer); ok {
			timers++
		}
	}
	if timers != 1 {
		t.Errorf("%d timers behind a Tick", timers)
	}
}
