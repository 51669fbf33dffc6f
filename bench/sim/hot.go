package sim

import "math/rand/v2"

// hotPlan fills a plan with bursts in which one client changes what the others
// believe (names), or all of them fight for two files (content): most of what
// can go wrong between a kernel's caches and its client needs several requests
// about one thing within a few milliseconds.
func hotPlan(p *Plan, rng *rand.Rand) {
	p.Clients = 2 + rng.IntN(2)
	content := rng.IntN(2) == 0
	add := func(at int64, k Kind, client int, a, b, c uint32) {
		p.Steps = append(p.Steps, Step{At: at, Kind: k, Client: client, A: a, B: b, C: c})
	}
	for i := range uint32(2) {
		add(100*ms, Create, 0, 0, i, 1)
	}
	if !content {
		add(110*ms, Mkdir, 0, 0, 2, 0)
	}
	for c := range p.Clients {
		for i := range uint32(3) {
			add(300*ms+int64(c)*10*ms, Lookup, c, 0, i, 0)
		}
		for i := range uint32(2) {
			add(400*ms, Open, c, i, 0, 0)
		}
	}
	for at := 600 * ms; at < planTime-time1; at += span(rng, 60*ms, 500*ms) {
		writer := rng.IntN(p.Clients)
		for range 4 + rng.IntN(14) {
			c := rng.IntN(p.Clients)
			t := at + span(rng, 0, [...]int64{1 * ms, 6 * ms, 50 * ms}[rng.IntN(3)])
			k := pickKind(rng, hotReads)
			switch {
			case content:
				k = pickKind(rng, hotContent)
			case c == writer && rng.IntN(3) > 0:
				k = pickKind(rng, hotNames)
			}
			add(t, k, c, rng.Uint32N(2), rng.Uint32N(3), rng.Uint32()&^2|rng.Uint32N(3)<<8)
		}
	}
	for range rng.IntN(3) {
		p.Steps = append(p.Steps, newFault(rng, p.Clients))
	}
	sortSteps(p.Steps)
}

// time1 is left of a hot plan at its end.
const time1 = 1500 * ms

type weighted struct {
	kind Kind
	n    int
}

var (
	hotReads   = []weighted{{Lookup, 6}, {GetAttr, 5}, {ReadDir, 3}, {Forget, 1}}
	hotNames   = []weighted{{Create, 5}, {Unlink, 5}, {Rename, 4}, {Chmod, 4}, {Link, 2}, {Rmdir, 1}, {Mkdir, 1}}
	hotContent = []weighted{{Write, 8}, {Read, 9}, {GetAttr, 4}, {Truncate, 2}, {Chmod, 1}, {Append, 1}, {Fsync, 1}}
)

func pickKind(rng *rand.Rand, list []weighted) Kind {
	total := 0
	for _, x := range list {
		total += x.n
	}
	n := rng.IntN(total)
	for _, x := range list {
		if n -= x.n; n < 0 {
			return x.kind
		}
	}
	return list[0].kind
}
