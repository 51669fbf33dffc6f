package sim

import (
	"math/rand/v2"

	"agentdrive/metaserver/meta"

	client_core "agentdrive/fuseclient/core"
)

// adapter is a model of fuseclient/kernel: it writes the core's answers to the
// device, late, and carries out invalidations by rules C4 to C6.
//
//	Answer -> (daemon) written -> (kernel) applied
//
// Nothing orders the replies of two requests, nor a reply and a notification,
// but what the adapter does about it.
type adapter struct {
	k         *kernel
	rng       *rand.Rand
	seq       uint64
	unwritten []*reply
	barriers  []barrier
	lookups   map[meta.Ino]uint64   // as counted by the daemon; look-up only
	unkept    map[meta.Ino][]*reply // READs whose pages must go; look-up only
	invals    int                   // invalidations under way
	loose     int                   // written replies that the kernel has not applied
}

// reply is an answer on its way to the kernel.
type reply struct {
	x   *call
	a   client_core.Answer
	at  int64 // of the answer
	seq uint64
}

// barrier waits until every reply up to seq is written.
type barrier struct {
	seq uint64
	fn  func()
}

func newAdapter(k *kernel) *adapter {
	return &adapter{k: k, rng: k.c.w.rand(k.c.name + " adapter"), lookups: map[meta.Ino]uint64{}, unkept: map[meta.Ino][]*reply{}}
}

func (ad *adapter) idle() bool {
	return len(ad.unwritten) == 0 && ad.loose == 0 && ad.invals == 0
}

// delay is how long a step takes: little, now and then much.
func (ad *adapter) delay() int64 {
	switch ad.rng.IntN(16) {
	case 0:
		return span(ad.rng, 1*ms, 40*ms)
	case 1, 2:
		return span(ad.rng, 100*us, 3*ms)
	}
	return span(ad.rng, 0, 100*us)
}

// soon lets the daemon do something, not while it is stopped, never once dead.
func (ad *adapter) soon(d int64, fn func()) {
	ad.k.c.w.after(d, func() {
		if !ad.k.dead {
			ad.k.c.daemon(fn)
		}
	})
}

// answered takes an answer of the core.
func (ad *adapter) answered(x *call, a client_core.Answer) {
	ad.seq++
	a.Cache, a.Lives = ad.k.c.w.rule.lifetimes(ad.k.c, x, a)
	r := &reply{x: x, a: a, at: ad.k.c.w.now, seq: ad.seq}
	ad.unwritten = append(ad.unwritten, r)
	if plan, ok := a.Result.(*client_core.FilePlan); ok && !plan.Keep && ad.k.c.w.rule != KeepPages {
		ino := x.op.(client_core.ReadFile).Ino
		ad.unkept[ino] = append(ad.unkept[ino], r)
	}
	ad.count(a.Result)
	ad.soon(ad.delay(), func() { ad.write(r) })
}

// count notes the references that a reply gives, before it is written.
func (ad *adapter) count(res any) {
	switch x := res.(type) {
	case *meta.EntryResult:
		ad.lookups[x.Attr.Ino]++
	case *meta.DirResult:
		if x.Plus {
			for i := range x.Entries {
				ad.lookups[x.Entries[i].Attr.Ino]++
			}
		}
	}
}

// forget carries a FORGET to the daemon.
func (ad *adapter) forget(ino meta.Ino, n uint64) {
	ad.soon(ad.delay(), func() {
		ad.lookups[ino] -= n
		ad.k.c.post(client_core.Forget{Ino: ino, N: n})
	})
}

// tell carries an event without an answer to the core.
func (ad *adapter) tell(ev client_core.Event) {
	ad.soon(0, func() { ad.k.c.post(ev) })
}

// write gives a reply to the kernel. A GETATTR waits while pages of an earlier
// READ are to be dropped (rule C6). A READ must not wait: the invalidation may
// wait for the pages that it holds.
func (ad *adapter) write(r *reply) {
	w := ad.k.c.w
	if op, ok := r.x.op.(*meta.GetAttr); ok && ad.mustWait(op.Ino, r) {
		return
	}
	ad.age(r)
	for i, u := range ad.unwritten {
		if u == r {
			ad.unwritten = append(ad.unwritten[:i:i], ad.unwritten[i+1:]...)
			break
		}
	}
	ad.loose++
	w.after(ad.delay()/4, func() {
		ad.loose--
		if !ad.k.dead {
			w.note("%s reply %d", ad.k.c.name, r.x.id)
			ad.k.finish(r.x, r.a)
		}
	})
	ad.kept(r)
	ad.passBarriers()
}

func (ad *adapter) mustWait(ino meta.Ino, r *reply) bool {
	for _, u := range ad.unkept[ino] {
		if u.seq < r.seq {
			ad.soon(1*ms, func() { ad.write(r) })
			return true
		}
	}
	return false
}

// age takes the time since the answer off its lifetimes.
func (ad *adapter) age(r *reply) {
	if ad.k.c.w.rule == FullLifetimes {
		return
	}
	past := client_core.Time(ad.k.c.w.now - r.at)
	shorten := func(c *client_core.Cache) {
		c.Entry, c.Attr = max(c.Entry-past, 0), max(c.Attr-past, 0)
	}
	shorten(&r.a.Cache)
	for i := range r.a.Lives {
		shorten(&r.a.Lives[i])
	}
	switch x := r.a.Result.(type) { // no attributes beside pages that are to go
	case *meta.EntryResult:
		ad.bare(x.Attr.Ino, &r.a.Cache)
	case *meta.AttrResult:
		ad.bare(x.Attr.Ino, &r.a.Cache)
	case *meta.DirResult:
		for i := range r.a.Lives {
			ad.bare(x.Entries[i].Attr.Ino, &r.a.Lives[i])
		}
	}
}

func (ad *adapter) bare(ino meta.Ino, c *client_core.Cache) {
	if len(ad.unkept[ino]) > 0 {
		c.Attr = 0
	}
}

// kept drops the pages of a READ that may not stay.
func (ad *adapter) kept(r *reply) {
	op, ok := r.x.op.(client_core.ReadFile)
	if !ok || !containsReply(ad.unkept[op.Ino], r) {
		return
	}
	ad.invals++
	off := uint32(op.Off / unit)
	ad.inval(client_core.Inval{Ino: op.Ino}, off, off+op.Len/unit, func() {
		ad.invals--
		list := ad.unkept[op.Ino]
		for i, u := range list {
			if u == r {
				list = append(list[:i:i], list[i+1:]...)
				break
			}
		}
		if ad.unkept[op.Ino] = list; len(list) == 0 {
			delete(ad.unkept, op.Ino)
		}
	})
}

func containsReply(list []*reply, r *reply) bool {
	for _, x := range list {
		if x == r {
			return true
		}
	}
	return false
}

func (ad *adapter) passBarriers() {
	oldest := ^uint64(0)
	for _, u := range ad.unwritten {
		oldest = min(oldest, u.seq)
	}
	list := ad.barriers
	ad.barriers = nil
	for _, b := range list {
		if b.seq < oldest {
			ad.soon(0, b.fn)
		} else {
			ad.barriers = append(ad.barriers, b)
		}
	}
}

// invalidate carries out an effect of the core: every reply whose answer came
// before is written first (rule C4).
func (ad *adapter) invalidate(ef client_core.Invalidate) {
	ad.invals++
	items := append([]client_core.Inval(nil), ef.Items...)
	run := func() {
		left := len(items)
		done := func() {
			if left--; left <= 0 {
				ad.soon(ad.delay(), func() {
					ad.invals--
					ad.k.c.post(client_core.Invalidated{Token: ef.Token})
				})
			}
		}
		if left == 0 {
			done()
		}
		for _, it := range items {
			off, end := uint32(it.Off/unit), ^uint32(0)
			if it.Len > 0 {
				end = uint32((it.Off + it.Len + unit - 1) / unit)
			}
			ad.inval(it, off, end, done)
		}
	}
	if ad.k.c.w.rule == NoBarrier {
		run()
		return
	}
	ad.barriers = append(ad.barriers, barrier{ad.seq, run})
	ad.passBarriers()
}

// inval is one notification. An inode that the kernel does not know may be in
// a reply that it is still applying: it is told again while the daemon counts
// references.
func (ad *adapter) inval(it client_core.Inval, off, end uint32, done func()) {
	k := ad.k
	ad.soon(ad.delay()/4, func() {
		k.c.w.note("%s invalidates %+v", k.c.name, it)
		switch {
		case it.Epoch:
			k.incEpoch()
			done()
		case it.Dir != 0:
			k.invalEntry(dentry{it.Dir, it.Name}, done)
		default:
			k.invalInode(it.Ino, it.Attr, off, end, func(ok bool) {
				if !ok && ad.lookups[it.Ino] > 0 && k.c.w.rule != NoRetry {
					ad.soon(200*us, func() { ad.inval(it, off, end, done) })
					return
				}
				done()
			})
		}
	})
}
