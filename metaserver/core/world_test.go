package core

import (
	"fmt"
	"strings"
	"testing"

	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
)

// world runs a core over the real state machine, without a network: frames go
// in by hand and what is sent is collected. Effects wait in a queue, so that a
// test can hold some of them back.
type world struct {
	t       testing.TB
	s       *Server
	now     Time
	db      *kv.Mem
	m       state.Machine
	index   uint64
	term    uint64
	queue   []Effect
	hold    func(Effect) bool // these stay in the queue
	sent    map[StreamID][]meta.Frame
	ids     map[StreamID]meta.SessionID
	nonce   byte
	notices []string
	trace   func(format string, args ...any)
}

func newWorld(t testing.TB, brk string) *world {
	w := &world{
		t: t, s: New(Config{TTL: 15e9, Break: brk}), db: kv.NewMem(), m: state.Machine{Group: 1},
		sent: map[StreamID][]meta.Frame{}, ids: map[StreamID]meta.SessionID{}, now: 1e9,
		trace: func(string, ...any) {},
	}
	w.apply(&state.Entry{Items: []state.Item{{Internal: &state.InitDrive{Drive: 1, Name: "demo"}}}})
	w.lead()
	return w
}

// lead starts a reign over the state as it is.
func (w *world) lead() {
	w.term++
	w.queue = nil
	list, err := state.Sessions(w.db.View())
	if err != nil {
		w.t.Fatal(err)
	}
	w.step(BecameLeader{Term: w.term, Sessions: list})
	w.run()
}

func (w *world) apply(e *state.Entry) []meta.Outcome {
	w.index++
	e.Now = int64(w.index) * 1e9
	tx := w.db.Begin()
	res := w.m.Apply(tx, w.index, max(e.Term, 1), state.EncodeEntry(nil, e))
	tx.Commit()
	out, err := state.DecodeOutcomes(res)
	if err != nil {
		w.t.Fatal(err)
	}
	return out.List
}

func (w *world) step(ev Event) {
	w.t.Helper()
	w.trace("event %s", showEvent(ev))
	for _, ef := range w.s.Step(w.now, ev) {
		if snd, ok := ef.(Send); ok {
			w.trace("  to %d: %s", snd.Stream, showFrame(snd.Frame))
			w.sent[snd.Stream] = append(w.sent[snd.Stream], snd.Frame)
			continue
		}
		if n, ok := ef.(Notice); ok {
			w.notices = append(w.notices, n.Text)
			w.trace("  notice: %s (session %d)", n.Text, n.Session)
		}
		w.trace("  effect %s", show(ef))
		w.queue = append(w.queue, ef)
	}
	if w.s.breaks == (breaks{}) {
		if err := w.s.CheckInvariants(); err != nil {
			w.t.Fatalf("after %s: %v", showEvent(ev), err)
		}
	}
}

// run carries out effects until only held ones are left.
func (w *world) run() {
	w.t.Helper()
	for i := 0; i < len(w.queue); {
		ef := w.queue[i]
		if w.hold != nil && w.hold(ef) {
			i++
			continue
		}
		w.queue = append(w.queue[:i:i], w.queue[i+1:]...)
		w.do(ef)
		i = 0
	}
}

func (w *world) do(ef Effect) {
	w.t.Helper()
	switch ef := ef.(type) {
	case Propose:
		w.step(Applied{Token: ef.Token, Outcomes: w.apply(ef.Entry)})
	case Confirm:
		w.step(Confirmed{Round: ef.Round})
	case Read:
		res, err := state.Read(w.db.View(), ef.Drive, ef.Op)
		o := meta.Outcome{Result: res}
		if err != nil {
			o = meta.Failed(err)
		}
		w.step(ReadDone{Token: ef.Token, Outcome: o})
	case ReadTouched:
		set, err := state.Touches(w.db.View(), ef.Drive, ef.Op)
		w.step(Touched{Token: ef.Token, Set: set, Err: err})
	case ReadSession:
		v := w.db.View()
		ev := SessionRead{Token: ef.Token}
		if _, ev.Result, ev.Err = state.ResumeInfo(v, ef.Session, ef.Epoch, ef.Nonce); ev.Err == nil {
			ev.Replies, ev.Err = state.Replies(v, ef.Session)
		}
		w.step(ev)
	case FindOrphans:
		w.step(OrphansFound{})
	case answered:
		w.step(ef.ev)
	}
}

// release lets go what was held back.
func (w *world) release() {
	w.t.Helper()
	w.hold = nil
	w.run()
}

func (w *world) frame(st StreamID, f meta.Frame) {
	w.t.Helper()
	w.step(StreamFrame{st, f})
	w.run()
}

// open opens a session that takes leases, on a new stream.
func (w *world) open(st StreamID, change ...func(*meta.Open)) {
	w.t.Helper()
	w.nonce++
	f := &meta.Open{Nonce: [16]byte{w.nonce}, Capability: meta.Capability{Drive: 1, Path: "/"}, Leases: true}
	for _, fn := range change {
		fn(f)
	}
	w.step(StreamOpened{Stream: st})
	w.frame(st, f)
	w.ids[st] = take[*meta.Welcome](w, st).Session
}

// resume brings the session of stream old back on a new one.
func (w *world) resume(old, st StreamID, claims ...meta.Grant) {
	w.t.Helper()
	se := w.s.sessions[w.ids[old]]
	w.step(StreamOpened{Stream: st})
	w.frame(st, &meta.Resume{Session: se.ID, Epoch: se.Epoch, Nonce: se.Nonce})
	take[*meta.Welcome](w, st)
	w.ids[st] = w.ids[old]
	w.frame(st, &meta.Reclaim{Leases: claims, Last: true})
}

// take removes the first frame of a kind that was sent on a stream.
func take[F meta.Frame](w *world, st StreamID) F {
	w.t.Helper()
	for i, f := range w.sent[st] {
		if x, ok := f.(F); ok {
			w.sent[st] = append(w.sent[st][:i:i], w.sent[st][i+1:]...)
			return x
		}
	}
	var none F
	w.t.Fatalf("no %T was sent to %d, but: %s", none, st, showFrames(w.sent[st]))
	return none
}

func (w *world) nothing(st StreamID) {
	w.t.Helper()
	if len(w.sent[st]) > 0 {
		w.t.Fatalf("sent to %d: %s", st, showFrames(w.sent[st]))
	}
}

// op sends an operation without waiting.
func (w *world) op(st StreamID, id meta.OpID, op meta.Op) {
	w.t.Helper()
	w.frame(st, &meta.OpFrame{ID: id, Op: op})
}

// call sends an operation and takes its reply.
func (w *world) call(st StreamID, id meta.OpID, op meta.Op) *meta.Reply {
	w.t.Helper()
	w.op(st, id, op)
	r := take[*meta.Reply](w, st)
	if r.ID != id {
		w.t.Fatalf("reply %d, not %d", r.ID, id)
	}
	return r
}

// grants renders the grants of a reply: "1r 2w".
func grants(r *meta.Reply) string {
	var list []string
	for _, g := range r.Grants {
		list = append(list, fmt.Sprintf("%d%c", g.Ino, "-rw"[g.Kind]))
	}
	return strings.Join(list, " ")
}

func wantGrants(t testing.TB, r *meta.Reply, want string) {
	t.Helper()
	if got := grants(r); got != want {
		t.Fatalf("grants %q, want %q (outcome %+v)", got, want, r.Outcome)
	}
}

// wantRecall takes a recall and compares it: "7 release; 1 names x,y".
func (w *world) wantRecall(st StreamID, want string) *meta.Recall {
	w.t.Helper()
	r := take[*meta.Recall](w, st)
	if got := showRecall(r); got != want {
		w.t.Fatalf("recall %q, want %q", got, want)
	}
	return r
}

func showRecall(r *meta.Recall) string {
	modes := []string{"", "query", "downgrade", "release", "names", "attr", "drain"}
	var list []string
	for _, it := range r.Items {
		x := fmt.Sprintf("%d %s", it.Ino, modes[it.Mode])
		if len(it.Names) > 0 {
			x += " " + strings.Join(it.Names, ",")
		}
		list = append(list, x)
	}
	return strings.Join(list, "; ")
}

func showFrame(f meta.Frame) string {
	switch f := f.(type) {
	case *meta.Recall:
		return fmt.Sprintf("recall %d: %s", f.ID, showRecall(f))
	case *meta.Reply:
		if f.Outcome.Err != nil {
			return fmt.Sprintf("reply %d: %v [%s]", f.ID, f.Outcome.Err, grants(f))
		}
		return fmt.Sprintf("reply %d: %+v [%s]", f.ID, f.Outcome.Result, grants(f))
	case *meta.OpFrame:
		return fmt.Sprintf("op %d: %T%+v", f.ID, f.Op, f.Op)
	}
	return fmt.Sprintf("%T%+v", f, f)
}

func showFrames(list []meta.Frame) string {
	var out []string
	for _, f := range list {
		out = append(out, showFrame(f))
	}
	return strings.Join(out, " | ")
}

func showEvent(ev Event) string {
	if f, ok := ev.(StreamFrame); ok {
		return fmt.Sprintf("from %d: %s", f.Stream, showFrame(f.Frame))
	}
	return fmt.Sprintf("%T%+v", ev, ev)
}

// later lets time pass, with a Tick whenever the core expects one.
func (w *world) later(d Time) {
	w.t.Helper()
	for end := w.now + d; w.now < end; {
		w.now = min(end, w.now+w.s.beat())
		w.step(Tick{})
		w.run()
	}
}

func mk(name string) *meta.Make {
	return &meta.Make{Parent: 1, Name: name, Mode: meta.ModeRegular | 0o644, Excl: true}
}

func mkdirIn(dir meta.Ino, name string) *meta.Make {
	return &meta.Make{Parent: dir, Name: name, Mode: meta.ModeDir | 0o755, Excl: true}
}

func wantWrite(inos ...meta.Ino) *meta.Acquire {
	a := &meta.Acquire{}
	for _, ino := range inos {
		a.Wants = append(a.Wants, meta.Grant{Ino: ino, Kind: meta.LeaseWrite})
	}
	return a
}

// made gives the inode of a Make's reply.
func made(t testing.TB, r *meta.Reply) meta.Ino {
	t.Helper()
	e, ok := r.Outcome.Result.(*meta.EntryResult)
	if !ok {
		t.Fatalf("outcome %+v", r.Outcome)
	}
	return e.Attr.Ino
}

func holdReads(ef Effect) bool    { _, ok := ef.(Read); return ok }
func holdPropose(ef Effect) bool  { _, ok := ef.(Propose); return ok }
func holdConfirms(ef Effect) bool { _, ok := ef.(Confirm); return ok }
