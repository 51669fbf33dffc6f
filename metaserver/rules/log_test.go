package rules_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
)

// TestLogMakesWhatTheRulesPredict is a client at work: it executes operations
// with the rules alone, on inode numbers of its own, and sends those that
// succeeded through its log, many to an entry. The servers execute each with
// the client's time, whatever the entry's is, and have the same attributes.
func TestLogMakesWhatTheRulesPredict(t *testing.T) {
	for seed := range uint64(20) {
		logged(t, seed, 120)
	}
}

func logged(t *testing.T, seed uint64, batches int) {
	g := newGroup(t)
	first, err := state.FirstGroup(g.apply(state.Item{Internal: &state.AllocGroups{Session: g.session, N: 1}}))
	if err != nil {
		t.Fatal(err)
	}
	m := newMirror(g.attr(meta.RootIno))
	m.next = meta.Ino(first << meta.SlotBits)
	r := draw{rand.New(rand.NewPCG(seed, 2)), []meta.Ino{meta.RootIno}, []meta.Ino{meta.RootIno}}
	seq, now := uint64(0), int64(1e15)
	for batch := range batches {
		it := state.Item{Session: g.session, Epoch: 1, First: seq + 1}
		for range r.IntN(20) {
			op := r.op()
			now += r.Int64N(3000) - 500
			mk, isMake := op.(*meta.Make)
			if isMake {
				mk.Ino = m.next
			}
			ino, err := m.do(op, now)
			if err != nil {
				continue // the client answers by itself
			}
			it.Records = append(it.Records, meta.LogRecord{Now: now, Op: op})
			if isMake {
				m.next++
				r.inos = append(r.inos, ino)
				if m.attrs[ino].IsDir() {
					r.dirs = append(r.dirs, ino)
				}
			}
			r.inos, r.dirs = r.inos[max(0, len(r.inos)-40):], r.dirs[max(0, len(r.dirs)-6):]
		}
		if len(it.Records) == 0 {
			continue
		}
		seq += uint64(len(it.Records))
		if res := g.apply(it).(*meta.SessionResult); res.LastLogSeq != seq {
			t.Fatalf("seed %d, batch %d: the log got to %d, want %d", seed, batch, res.LastLogSeq, seq)
		}
		for _, i := range slices.Concat(r.inos, r.dirs) {
			got, have := g.attr(i), *m.attrs[i]
			if have.Bytes = got.Bytes; got != have {
				t.Fatalf("seed %d, batch %d, inode %d:\nservers %+v\nrules   %+v\nlog %+v", seed, batch, i, got, have, it.Records)
			}
		}
	}
	if seq < uint64(batches) {
		t.Errorf("seed %d: only %d records", seed, seq)
	}
}

// group is the state of a group with one drive and one session.
type group struct {
	t       *testing.T
	db      *kv.Mem
	index   uint64
	session meta.SessionID
}

func newGroup(t *testing.T) *group {
	g := &group{t: t, db: kv.NewMem()}
	g.apply(state.Item{Internal: &state.InitDrive{Drive: 1, Name: "d"}})
	res := g.apply(state.Item{Internal: &state.OpenSession{Open: meta.Open{Capability: meta.Capability{Drive: 1, Path: "/"}}}})
	g.session = res.(*meta.SessionResult).Session
	return g
}

// apply runs one entry of one item, which must succeed.
func (g *group) apply(it state.Item) meta.Result {
	g.t.Helper()
	g.index++
	tx := g.db.Begin()
	b := new(state.Machine).Apply(tx, g.index, 1, state.EncodeEntry(nil, &state.Entry{Now: int64(g.index), Items: []state.Item{it}}))
	tx.Commit()
	out, err := state.DecodeOutcomes(b)
	if err != nil {
		g.t.Fatal(err)
	}
	res, err := out.List[0].Unpack()
	if err != nil {
		g.t.Fatal(err)
	}
	return res
}

func (g *group) attr(ino meta.Ino) meta.Attr {
	g.t.Helper()
	v := g.db.View()
	defer v.Release()
	res, err := state.Read(v, 1, &meta.GetAttr{Ino: ino})
	if err != nil {
		g.t.Fatal(err)
	}
	return res.(*meta.AttrResult).Attr
}
