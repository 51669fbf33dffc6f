package core

import (
	"testing"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// hand drives a client event by event, for tests that look at single effects.
type hand struct {
	t    *testing.T
	c    *Client
	now  Time
	out  []Effect // since the last look
	last ReqID
}

const testBlock = 16 << 10

func newHand(t *testing.T, change ...func(*Config)) *hand {
	cfg := Config{
		Group: 1, Open: meta.Open{Nonce: [16]byte{9}, Capability: meta.Capability{Drive: 5}},
		BlockSize: testBlock, NewBlockID: testIDs(), NoLeases: true,
	}
	for _, f := range change {
		f(&cfg)
	}
	h := &hand{t: t, c: New(cfg), now: 1e9}
	h.step(Tick{})
	return h
}

// ready is newHand with a session.
func ready(t *testing.T, change ...func(*Config)) *hand {
	h := newHand(t, change...)
	h.up()
	h.welcome(77)
	h.out = nil
	return h
}

func (h *hand) step(ev Event) {
	h.t.Helper()
	h.out = append(h.out, h.c.Step(h.now, ev)...)
	if err := h.c.CheckInvariants(); err != nil {
		h.t.Fatal(err)
	}
}

func (h *hand) up()                { h.step(StreamUp{Stream: h.c.ses.stream}) }
func (h *hand) down()              { h.step(StreamDown{Stream: h.c.ses.stream}) }
func (h *hand) frame(f meta.Frame) { h.t.Helper(); h.step(FrameIn{Stream: h.c.ses.stream, Frame: f}) }
func (h *hand) after(d Time)       { h.now += d; h.step(Tick{}) }
func (h *hand) ok(id meta.OpID, r meta.Result) {
	h.t.Helper()
	h.frame(&meta.Reply{ID: id, Outcome: done(r)})
}
func (h *hand) bad(id meta.OpID, k errs.Kind) { h.frame(&meta.Reply{ID: id, Outcome: fail(k)}) }

func (h *hand) welcome(id meta.SessionID) {
	h.frame(&meta.Welcome{Session: id, Epoch: 4, Root: meta.Attr{Ino: 1}, TTLMillis: 15000})
}

func (h *hand) evict() {
	h.frame(&meta.Evicted{Err: errs.E("session", errs.Expired, "", nil)})
}

// request makes a request and returns its id.
func (h *hand) request(op any) ReqID {
	h.t.Helper()
	h.last++
	h.step(Request{ID: h.last, Op: op})
	return h.last
}

// take returns the effects of type E since the last look and forgets them;
// effects of other types stay.
func take[E Effect](h *hand) (found []E) {
	var rest []Effect
	for _, e := range h.out {
		if x, ok := e.(E); ok {
			found = append(found, x)
		} else {
			rest = append(rest, e)
		}
	}
	h.out = rest
	return found
}

// frames returns the frames of type F sent since the last look at frames.
func frames[F meta.Frame](h *hand) (found []F) {
	for _, s := range take[Send](h) {
		if f, ok := s.Frame.(F); ok {
			found = append(found, f)
		}
	}
	return found
}

// ops returns the operations sent since the last look at frames.
func sentOps(h *hand) []*meta.OpFrame { return frames[*meta.OpFrame](h) }

// one fails the test unless there is exactly one.
func one[T any](h *hand, list []T, what string) T {
	h.t.Helper()
	if len(list) != 1 {
		h.t.Fatalf("%d of %s, want one: %+v", len(list), what, list)
	}
	return list[0]
}

func (h *hand) op() *meta.OpFrame {
	h.t.Helper()
	return one(h, sentOps(h), "operations")
}

func (h *hand) put() PutBlock {
	h.t.Helper()
	return one(h, take[PutBlock](h), "blocks")
}

func (h *hand) none(what string) {
	h.t.Helper()
	if ops, answers := sentOps(h), take[Answer](h); len(ops)+len(answers) > 0 {
		h.t.Fatalf("%s: operations %+v, answers %+v, want none", what, ops, answers)
	}
}

// answered expects one answer since the last look, without error.
func (h *hand) answered(id ReqID) any {
	h.t.Helper()
	a := one(h, take[Answer](h), "answers")
	if a.ID != id || a.Err != nil {
		h.t.Fatalf("answer %+v, want a result for %d", a, id)
	}
	return a.Result
}

// refused expects one answer since the last look, of that kind.
func (h *hand) refused(id ReqID, k errs.Kind) {
	h.t.Helper()
	a := one(h, take[Answer](h), "answers")
	if a.ID != id || !errs.Is(a.Err, k) || a.Result != nil {
		h.t.Fatalf("answer %+v, want error %v for %d", a, k, id)
	}
}

func (h *hand) stored(p PutBlock, missing ...chunk.ServerID) {
	h.step(BlockStored{Token: p.Token, PG: 3, Epoch: 2, Acked: []chunk.ServerID{1, 2}, Missing: missing})
}

// write buffers n bytes at off and expects the answer at once.
func (h *hand) write(ino meta.Ino, off uint64, n int) meta.Attr {
	h.t.Helper()
	id := h.request(WriteFile{Ino: ino, Off: off, Data: pattern(off, n)})
	return h.answered(id).(*meta.AttrResult).Attr
}

// pattern makes bytes that depend on their place.
func pattern(off uint64, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		p := off + uint64(i)
		b[i] = byte(p*7 + p>>8 + 1)
	}
	return b
}

func regular(ino meta.Ino, size, version uint64) meta.Attr {
	return meta.Attr{Ino: ino, Mode: meta.ModeRegular | 0o644, Nlink: 1, Size: size, Mtime: 1000, Ctime: 1000, DataVersion: version}
}

func attrOf(ino meta.Ino, size, version uint64) *meta.AttrResult {
	return &meta.AttrResult{Attr: regular(ino, size, version)}
}
