package core

import (
	"regexp"
	"slices"

	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
)

// reconnect begins a new stream; what was on its way is lost.
func (a *actor) reconnect() {
	if a.opening {
		a.reopen()
		return
	}
	c := a.c
	c.trace("client %d reconnects", a.id)
	delete(c.world.sent, a.st)
	c.step(StreamClosed{a.st})
	c.streams++
	a.st, a.up, a.recalls = c.streams, nil, nil
	c.step(StreamOpened{Stream: a.st})
	a.ready = true
	a.send(&meta.Resume{Session: a.session, Epoch: 1, Nonce: [16]byte{a.nonce}})
	a.ready = false
}

func (a *actor) welcome(f *meta.Welcome) {
	a.ready = true
	if a.opening {
		a.opening, a.session = false, f.Session
		a.send(&meta.Credit{Groups: 1})
		return
	}
	for len(a.log) > 0 && a.first <= f.LastLogSeq {
		a.log, a.first = a.log[1:], a.first+1
	}
	a.sent = f.LastLogSeq
	claims := map[meta.Ino]meta.LeaseKind{}
	for ino, k := range a.lease {
		claims[ino] = k
	}
	for _, rec := range a.log {
		set := namedIn(rec.Op)
		for _, ino := range append(set.Dirs, set.Inos...) {
			claims[ino] = meta.LeaseWrite
		}
		if m, ok := rec.Op.(*meta.Make); ok {
			claims[m.Ino] = meta.LeaseWrite
		}
	}
	rec := &meta.Reclaim{Last: true}
	for ino, k := range claims {
		if k > meta.LeaseNone {
			rec.Leases = append(rec.Leases, meta.Grant{Ino: ino, Kind: k})
		}
	}
	slices.SortFunc(rec.Leases, func(x, y meta.Grant) int { return int(x.Ino) - int(y.Ino) })
	var again []*work
	for _, w := range a.ops {
		again = append(again, w)
	}
	slices.SortFunc(again, func(x, y *work) int { return int(x.frame.ID) - int(y.frame.ID) })
	for _, w := range again {
		if !w.frame.Op.Kind().IsRead() {
			rec.Open = append(rec.Open, w.frame.ID)
		}
	}
	a.send(rec)
	a.sendLog()
	for _, w := range again {
		a.send(w.frame)
	}
}

// lateRead executes a read now and delivers its answer some time later.
func (c *chaos) lateRead(ef Read) {
	res, err := state.Read(c.db.View(), ef.Drive, ef.Op)
	o := meta.Outcome{Result: res}
	if err != nil {
		o = meta.Failed(err)
	}
	c.queue = append(c.queue, answered{ReadDone{Token: ef.Token, Outcome: o}})
}

// answered is an effect that was carried out and has not been heard of.
type answered struct{ ev Event }

func (answered) effect() {}

var pointers = regexp.MustCompile(`0x[0-9a-f]+`)

func stripPointers(s string) string { return pointers.ReplaceAllString(s, "0x") }

// localWrite notes a write whose record is the last one of the log: begun and
// over at once, but gone if the record is lost.
func (a *actor) localWrite(key string, val uint64) {
	i := a.wrote(key, a.c.tick, val)
	a.over(key, i)
	a.lost = append(a.lost, lostWrite{a.lastSeq(), key, i})
}

// born notes that a file has a name, or is about to.
func (a *actor) born(ino meta.Ino) {
	if r := a.c.reg(aliveKey(ino)); len(r.writes) == 0 {
		r.writes = append(r.writes, access{span: span{0, 1}, val: 1, who: a.id})
	}
}

// exists looks whether some file still has a name.
func (a *actor) exists() {
	var known []meta.Ino
	for ino := range a.mtime {
		if r := a.c.regs[aliveKey(ino)]; r != nil && a.free(fileKey(ino)) {
			known = append(known, ino)
		}
	}
	if len(known) == 0 {
		return
	}
	slices.Sort(known)
	ino := known[a.c.rng.IntN(len(known))]
	a.cached++
	a.saw(aliveKey(ino), a.c.tick, 1)
}

// unlink takes a name away.
func (a *actor) unlink(d meta.Ino, n string) {
	k := slotKey(d, n)
	op := &meta.Unlink{Parent: d, Name: n}
	old, known := a.names[k]
	if a.rights(d) == meta.LeaseWrite && a.free(k) && known {
		if old == 0 {
			return
		}
		if a.rights(old) == meta.LeaseWrite && a.free(fileKey(old)) {
			a.local++
			a.append(op)
			a.localWrite(k, 0)
			a.localWrite(aliveKey(old), 0)
			a.names[k] = 0
			delete(a.mtime, old)
			a.gaveUp[old] = a.lastOp // older answers know nothing of it
			return
		}
	}
	delete(a.names, k)
	if known {
		delete(a.mtime, old)
		a.busy[fileKey(old)]++
	}
	a.busy[k]++
	start := a.c.tick
	i := a.wrote(k, start, 0)
	a.call(op, func(r *meta.Reply, granted func(meta.Ino) bool) {
		a.busy[k]--
		if known {
			a.busy[fileKey(old)]--
		}
		res, ok := r.Outcome.Result.(*meta.AttrResult)
		if !ok { // it was a read
			a.c.reg(k).writes[i] = access{span: span{1 << 61, 1 << 62}, val: 1 << 62}
			a.saw(k, start, 0)
			return
		}
		a.over(k, i)
		ino := res.Attr.Ino
		a.over(aliveKey(ino), a.wrote(aliveKey(ino), start, 0))
		a.learnName(d, n, granted(d), 0)
	})
}

// die ends the client without a word; another takes its place.
func (a *actor) die() {
	if a.opening || !a.ready {
		return
	}
	c := a.c
	c.trace("client %d dies", a.id)
	for _, l := range a.lost {
		if w := &c.reg(l.key).writes[l.i]; l.seq >= a.first {
			w.end = 0 // its record may be lost
		}
	}
	b := newActor(c, a.id)
	b.cached, b.local, b.opening, b.st = a.cached, a.local, true, a.st
	*a = *b
	c.nonce++
	a.nonce = c.nonce
	a.reopen()
}

// reopen asks for a session on a new stream.
func (a *actor) reopen() {
	c := a.c
	delete(c.world.sent, a.st)
	c.step(StreamClosed{a.st})
	c.streams++
	a.st, a.up = c.streams, nil
	c.step(StreamOpened{Stream: a.st})
	a.ready = true
	a.send(&meta.Open{Nonce: [16]byte{a.nonce}, Capability: meta.Capability{Drive: 1, Path: "/"}, Leases: true})
	a.ready = false
}

// renew prolongs the session; recalls that wait for the client count as being
// worked on.
func (a *actor) renew() {
	f := &meta.Renew{}
	for _, r := range a.recalls {
		f.Progress = append(f.Progress, r.ID)
	}
	a.send(f)
}
