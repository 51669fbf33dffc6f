package core

import (
	"fmt"
	"testing"

	"agentdrive/metaserver/meta"
)

// BenchmarkMutation is what a mutation costs the core alone: without leases,
// with one session that takes them, and beside another that holds some.
func BenchmarkMutation(b *testing.B) {
	for _, c := range []struct {
		name   string
		leases bool
		others bool
	}{{"without leases", false, false}, {"alone", true, false}, {"beside a holder", true, true}} {
		b.Run(c.name, func(b *testing.B) {
			w := newWorld(b, "")
			w.open(1, func(o *meta.Open) { o.Leases = c.leases })
			if c.others {
				w.open(2)
				for i := range 100 {
					w.call(2, meta.OpID(i+1), &meta.GetAttr{Ino: meta.Ino(1<<30 + i)})
				}
				w.call(2, 200, &meta.GetAttr{Ino: 1})
				w.frame(2, &meta.Release{Leases: []meta.Grant{{Ino: 1}}})
				w.call(2, 201, wantWrite(2))
			}
			attr := meta.Outcome{Result: &meta.AttrResult{}}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				id := meta.OpID(1000 + i)
				frame := &meta.OpFrame{ID: id, Acked: []meta.OpID{id - 1}, Op: &meta.SetAttr{Ino: meta.Ino(5 + i%1000), Set: meta.SetMode}}
				for _, ef := range w.s.Step(w.now, StreamFrame{1, frame}) {
					if p, ok := ef.(Propose); ok {
						w.s.Step(w.now, Applied{Token: p.Token, Outcomes: []meta.Outcome{attr}})
					}
				}
			}
		})
	}
}

// BenchmarkListing is the granting of a page of a listing.
func BenchmarkListing(b *testing.B) {
	w := newWorld(b, "")
	w.open(1)
	res := &meta.DirResult{Plus: true}
	for i := range 1000 {
		res.Entries = append(res.Entries, meta.DirEntry{Name: fmt.Sprint(i), Attr: meta.Attr{Ino: meta.Ino(100 + i)}})
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		id := meta.OpID(1 + i)
		for _, ef := range w.s.Step(w.now, StreamFrame{1, &meta.OpFrame{ID: id, Op: &meta.ReadDir{Dir: 1, Plus: true}}}) {
			if c, ok := ef.(Confirm); ok {
				for _, ef := range w.s.Step(w.now, Confirmed{Round: c.Round}) {
					if r, ok := ef.(Read); ok {
						w.s.Step(w.now, ReadDone{Token: r.Token, Outcome: meta.Outcome{Result: res}})
					}
				}
			}
		}
	}
}
