package core

import (
	"fmt"
	"slices"
	"strings"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// actor is a client that keeps the rules, as small as it can be: registers are
// mtimes of files and the inodes behind some names.
type actor struct {
	c       *chaos
	id      int
	st      StreamID
	session meta.SessionID

	up    []meta.Frame // on their way to the server
	ready bool         // the session is bound to the stream

	lease   map[meta.Ino]meta.LeaseKind
	mtime   map[meta.Ino]uint64
	names   map[string]meta.Ino // by slotKey; 0: absent
	busy    map[string]int      // own mutations under way, by register
	gaveUp  map[meta.Ino]meta.OpID
	recalls []*meta.Recall

	log   []meta.LogRecord // not acknowledged
	lost  []lostWrite      // of log: what is unwritten if it is lost
	first uint64           // of log
	sent  uint64           // last one sent on this stream

	ops    map[meta.OpID]*work
	lastOp meta.OpID
	group  meta.Ino

	nonce         byte
	opening       bool // waits for the Welcome of a new session
	cached, local int
}

// work is an operation under way.
type work struct {
	frame *meta.OpFrame
	start int
	done  func(r *meta.Reply, granted func(meta.Ino) bool)
}

// lostWrite is a write whose record is in the log.
type lostWrite struct {
	seq uint64
	key string
	i   int
}

func newActor(c *chaos, id int) *actor {
	c.streams++
	return &actor{
		c: c, id: id, st: c.streams, ready: true, first: 1,
		lease: map[meta.Ino]meta.LeaseKind{}, mtime: map[meta.Ino]uint64{}, names: map[string]meta.Ino{},
		busy: map[string]int{}, gaveUp: map[meta.Ino]meta.OpID{}, ops: map[meta.OpID]*work{},
	}
}

func (a *actor) send(f meta.Frame) {
	if a.ready {
		a.up = append(a.up, f)
	}
}

func (a *actor) toServer() {
	if len(a.up) > 0 {
		f := a.up[0]
		a.up = a.up[1:]
		a.c.step(StreamFrame{a.st, f})
	}
}

func (a *actor) fromServer() {
	list := a.c.world.sent[a.st]
	if len(list) == 0 {
		return
	}
	f := list[0]
	a.c.world.sent[a.st] = list[1:]
	a.c.trace("client %d takes %s", a.id, showFrame(f))
	switch f := f.(type) {
	case *meta.Reply:
		a.reply(f)
	case *meta.LogAck:
		for len(a.log) > 0 && a.first <= f.Seq {
			a.log, a.first = a.log[1:], a.first+1
		}
	case *meta.Recall:
		a.recalls = append(a.recalls, f)
	case *meta.Credited:
		a.group = meta.Ino(f.FirstGroup<<meta.SlotBits | 1)
	case *meta.Welcome:
		a.welcome(f)
	case *meta.Evicted:
		if a.opening {
			a.c.t.Fatal(f.Err)
		}
		a.ready = true
		a.die()
	}
}

func (a *actor) lastSeq() uint64 { return a.first + uint64(len(a.log)) - 1 }

func (a *actor) sendLog() {
	if n := a.lastSeq(); a.ready && n > a.sent && a.first <= n {
		from := max(a.sent+1, a.first)
		a.send(&meta.Log{First: from, Records: slices.Clone(a.log[from-a.first:])})
		a.sent = n
	}
}

func (a *actor) append(op meta.Op) {
	a.c.unique++
	a.log = append(a.log, meta.LogRecord{Now: int64(a.c.unique), Op: op})
}

// call sends an operation behind the log.
func (a *actor) call(op meta.Op, done func(*meta.Reply, func(meta.Ino) bool)) {
	a.sendLog()
	a.lastOp++
	w := &work{frame: &meta.OpFrame{ID: a.lastOp, After: a.lastSeq(), Op: op}, start: a.c.tick, done: done}
	a.ops[a.lastOp] = w
	a.send(w.frame)
}

func (a *actor) reply(f *meta.Reply) {
	w := a.ops[f.ID]
	if w == nil {
		return
	}
	delete(a.ops, f.ID)
	for _, g := range f.Grants {
		if g.Kind == meta.LeaseNone {
			delete(a.mtime, g.Ino)
		} else if f.ID > a.gaveUp[g.Ino] {
			a.lease[g.Ino] = max(a.lease[g.Ino], g.Kind)
		}
	}
	w.done(f, func(ino meta.Ino) bool {
		return f.ID > a.gaveUp[ino] && slices.ContainsFunc(f.Grants, func(g meta.Grant) bool { return g.Ino == ino && g.Kind > meta.LeaseNone })
	})
}

// rights tells what may be done locally: less while a recall waits.
func (a *actor) rights(ino meta.Ino) meta.LeaseKind {
	kind := a.lease[ino]
	for _, r := range a.recalls {
		for _, it := range r.Items {
			if it.Ino == ino && it.Mode != meta.RecallQuery {
				kind = min(kind, meta.LeaseRead)
			}
		}
	}
	return kind
}

func (a *actor) free(keys ...string) bool {
	for _, k := range keys {
		if a.busy[k] > 0 {
			return false
		}
	}
	return true
}

func (a *actor) begin() {
	if len(a.ops) > 3 || a.group == 0 {
		return
	}
	rng := a.c.rng
	f := a.c.files[rng.IntN(len(a.c.files))]
	d := a.c.dirs[rng.IntN(len(a.c.dirs))]
	n := slots[rng.IntN(len(slots))]
	switch rng.IntN(8) {
	case 0, 1:
		a.readFile(f)
	case 2:
		a.writeFile(f)
	case 3, 4:
		a.lookup(d, n)
	case 5:
		a.unlink(d, n)
	case 6:
		a.exists()
	default:
		a.replace(d, n)
	}
}

func (a *actor) saw(key string, start int, val uint64) {
	r := a.c.reg(key)
	r.reads = append(r.reads, access{span{start, a.c.tick}, val, a.id})
	a.c.trace("client %d read %s = %d since %d", a.id, key, val, start)
}

func (a *actor) wrote(key string, start int, val uint64) int {
	r := a.c.reg(key)
	r.writes = append(r.writes, access{span{start: start}, val, a.id})
	a.c.trace("client %d writes %s = %d", a.id, key, val)
	return len(r.writes) - 1
}

func (a *actor) over(key string, i int) {
	a.c.reg(key).writes[i].end = a.c.tick
	a.c.trace("client %d has written %s = %d", a.id, key, a.c.reg(key).writes[i].val)
}

// learn takes an mtime from an answer; what is known stays.
func (a *actor) learn(ino meta.Ino, granted bool, val uint64) uint64 {
	if known, ok := a.mtime[ino]; ok {
		return known
	}
	if granted && a.free(fileKey(ino)) {
		a.mtime[ino] = val
	}
	return val
}

func (a *actor) readFile(f meta.Ino) {
	if v, ok := a.mtime[f]; ok && a.free(fileKey(f)) {
		a.cached++
		a.saw(fileKey(f), a.c.tick, v)
		return
	}
	start := a.c.tick
	a.call(&meta.GetAttr{Ino: f}, func(r *meta.Reply, granted func(meta.Ino) bool) {
		a.saw(fileKey(f), start, a.learn(f, granted(f), uint64(r.Outcome.Result.(*meta.AttrResult).Attr.Mtime)))
	})
}

func (a *actor) writeFile(f meta.Ino) {
	a.c.unique++
	v := a.c.unique + 1<<40
	op := &meta.SetAttr{Ino: f, Set: meta.SetMtime, Mtime: int64(v)}
	if a.rights(f) == meta.LeaseWrite && a.free(fileKey(f)) {
		a.local++
		a.append(op)
		a.mtime[f] = v
		a.localWrite(fileKey(f), v)
		return
	}
	if a.c.rng.IntN(2) == 0 {
		a.acquire(f)
		return
	}
	delete(a.mtime, f)
	a.busy[fileKey(f)]++
	i := a.wrote(fileKey(f), a.c.tick, v)
	a.call(op, func(r *meta.Reply, granted func(meta.Ino) bool) {
		a.busy[fileKey(f)]--
		a.over(fileKey(f), i)
		a.learn(f, granted(f), v)
	})
}

func (a *actor) acquire(inos ...meta.Ino) {
	a.call(wantWrite(inos...), func(r *meta.Reply, granted func(meta.Ino) bool) {
		for i, at := range r.Outcome.Result.(*meta.AcquireResult).Attrs {
			if at.Ino != 0 && !at.IsDir() {
				a.learn(inos[i], granted(inos[i]), uint64(at.Mtime))
			}
		}
	})
}

func (a *actor) learnName(d meta.Ino, n string, granted bool, ino meta.Ino) meta.Ino {
	k := slotKey(d, n)
	if known, ok := a.names[k]; ok {
		return known
	}
	if granted && a.free(k) {
		a.names[k] = ino
	}
	return ino
}

func (a *actor) lookup(d meta.Ino, n string) {
	k := slotKey(d, n)
	if ino, ok := a.names[k]; ok && a.free(k) {
		a.cached++
		a.saw(k, a.c.tick, uint64(ino))
		return
	}
	start := a.c.tick
	done := func(r *meta.Reply, granted func(meta.Ino) bool) {
		var ino meta.Ino
		if e, ok := r.Outcome.Result.(*meta.EntryResult); ok {
			ino = e.Attr.Ino
			a.learn(ino, granted(ino), uint64(e.Attr.Mtime))
		} else if res, ok := r.Outcome.Result.(*meta.DirResult); ok {
			for _, e := range res.Entries {
				if e.Name == n {
					ino = e.Attr.Ino
				}
			}
		}
		a.saw(k, start, uint64(a.learnName(d, n, granted(d), ino)))
	}
	if a.c.rng.IntN(4) == 0 {
		a.call(&meta.ReadDir{Dir: d, Limit: 1000, Plus: a.c.rng.IntN(2) == 0}, done)
		return
	}
	a.call(&meta.Lookup{Parent: d, Name: n}, done)
}

// replace makes a new file and renames it over a name.
func (a *actor) replace(d meta.Ino, n string) {
	k := slotKey(d, n)
	a.c.unique++
	tmp := fmt.Sprintf("tmp%d", a.c.unique)
	rename := &meta.Rename{OldParent: d, OldName: tmp, NewParent: d, NewName: n}
	if a.rights(d) == meta.LeaseWrite && a.free(k) {
		old, known := a.names[k]
		if known && (old == 0 || a.rights(old) == meta.LeaseWrite && a.free(fileKey(old))) {
			a.local++
			a.group++
			ino := a.group
			a.append(&meta.Make{Ino: ino, Parent: d, Name: tmp, Mode: meta.ModeRegular | 0o644, Excl: true})
			a.append(rename)
			a.lease[ino] = meta.LeaseWrite
			a.names[k] = ino
			a.mtime[ino] = 1
			a.born(ino)
			a.localWrite(k, uint64(ino))
			if old != 0 {
				a.localWrite(aliveKey(old), 0)
				delete(a.mtime, old)
				a.gaveUp[old] = a.lastOp
			}
			return
		}
		if known && a.c.rng.IntN(2) == 0 {
			a.acquire(d, old)
			return
		}
	} else if a.c.rng.IntN(2) == 0 {
		a.acquire(d)
		return
	}
	a.busy[slotKey(d, tmp)]++
	a.call(&meta.Make{Parent: d, Name: tmp, Mode: meta.ModeRegular | 0o644, Excl: true}, func(r *meta.Reply, granted func(meta.Ino) bool) {
		a.busy[slotKey(d, tmp)]--
		e, ok := r.Outcome.Result.(*meta.EntryResult)
		if !ok {
			a.c.t.Fatalf("client %d: %+v", a.id, r.Outcome)
		}
		delete(a.names, k)
		a.busy[k]++
		a.born(e.Attr.Ino)
		i := a.wrote(k, a.c.tick, uint64(e.Attr.Ino))
		a.call(rename, func(r *meta.Reply, granted func(meta.Ino) bool) {
			if r.Outcome.Err != nil && r.Outcome.Err.Kind != errs.Expired {
				a.c.t.Fatalf("client %d: %+v", a.id, r.Outcome)
			}
			a.busy[k]--
			a.over(k, i)
			a.learnName(d, n, granted(d), e.Attr.Ino)
		})
	})
}

// forget drops what is known under a lease that is kept as kind.
func (a *actor) forget(ino meta.Ino, kind meta.LeaseKind) {
	a.gaveUp[ino] = a.lastOp
	if a.lease[ino] = min(a.lease[ino], kind); kind > meta.LeaseNone {
		return
	}
	delete(a.lease, ino)
	delete(a.mtime, ino)
	pre := slotKey(ino, "")
	for k := range a.names {
		if strings.HasPrefix(k, pre) {
			delete(a.names, k)
		}
	}
}

func (a *actor) answerRecall() {
	if len(a.recalls) == 0 || !a.ready {
		return
	}
	r := a.recalls[0]
	a.recalls = a.recalls[1:]
	a.sendLog()
	ack := &meta.Ack{Recall: r.ID, LogSeq: a.lastSeq()}
	for _, it := range r.Items {
		switch it.Mode {
		case meta.RecallQuery:
		case meta.RecallDrain:
		case meta.RecallRelease:
			a.forget(it.Ino, meta.LeaseNone)
		default:
			a.forget(it.Ino, meta.LeaseRead)
			for _, n := range it.Names {
				delete(a.names, slotKey(it.Ino, n))
			}
			if it.Mode != meta.RecallDowngrade {
				delete(a.mtime, it.Ino)
			}
			if a.c.rng.IntN(8) == 0 {
				a.forget(it.Ino, meta.LeaseNone)
				ack.Less = append(ack.Less, meta.Grant{Ino: it.Ino})
			}
		}
	}
	a.send(ack)
}

// release gives something up unasked.
func (a *actor) release() {
	if !a.ready || a.opening || len(a.recalls) > 0 {
		return
	}
	all := append(slices.Clone(a.c.files), a.c.dirs...)
	ino := all[a.c.rng.IntN(len(all))]
	kind := meta.LeaseKind(a.c.rng.IntN(2))
	if a.lease[ino] <= kind {
		return
	}
	a.sendLog()
	a.forget(ino, kind)
	a.send(&meta.Release{LogSeq: a.lastSeq(), Leases: []meta.Grant{{Ino: ino, Kind: kind}}})
}
