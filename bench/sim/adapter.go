package sim

import (
	"math/rand/v2"
	"slices"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"

	client_core "agentdrive/fuseclient/core"
)

// adapter is a model of fuseclient/kernel and of the runner: it writes the
// core's answers to the device, late, carries out invalidations by rules C4 to
// C6 (pages.go), and sends frames.
//
//	Answer -> (daemon) written -> (kernel) applied
//
// Nothing orders the replies of two requests, nor a reply and a notification,
// but what the adapter does about it.
type adapter struct {
	k         *kernel
	rng       *rand.Rand
	seq       uint64 // of answers and invalidations
	lastOrder uint64 // of the last invalidation of something
	unwritten []*reply
	orders    []*order
	lookups   map[meta.Ino]uint64     // as counted by the daemon; look-up only
	files     map[meta.Ino]*filePages // look-up only
	changed   map[meta.Ino]uint64     // by own changes of names: seq of the answer; look-up only
	setting   map[meta.Ino]int        // own SETATTRs open; look-up only
	invals    int                     // invalidations under way
	loose     int                     // written replies that the kernel has not applied
	listings  []*reply                // of them, of READDIRPLUS
	out       []outFrame              // to the servers
	sending   bool
}

// reply is an answer on its way to the kernel.
type reply struct {
	x    *call
	a    client_core.Answer
	at   int64 // of the answer
	seq  uint64
	drop *drop // pages to be forgotten when it is written
}

// order is an invalidation. It waits until every reply up to seq is written.
type order struct {
	seq   uint64
	items []client_core.Inval
	fn    func() // nil once it has begun
}

func newAdapter(k *kernel) *adapter {
	return &adapter{
		k: k, rng: k.c.w.rand(k.c.name + " adapter"),
		lookups: map[meta.Ino]uint64{}, files: map[meta.Ino]*filePages{}, changed: map[meta.Ino]uint64{}, setting: map[meta.Ino]int{},
	}
}

func (ad *adapter) rule() Rule { return ad.k.c.w.rule }

func (ad *adapter) idle() bool {
	return len(ad.unwritten) == 0 && ad.loose == 0 && ad.invals == 0
}

// delay is how long a step takes: little, now and then much.
func (ad *adapter) delay() int64 {
	n := ad.rng.IntN(16)
	if ad.k.c.w.plan.Slow {
		n /= 3
	}
	switch n {
	case 0:
		if ad.k.c.w.plan.Slow && ad.rng.IntN(3) == 0 {
			return span(ad.rng, 40*ms, 200*ms)
		}
		return span(ad.rng, 1*ms, 40*ms)
	case 1, 2:
		return span(ad.rng, 100*us, 3*ms)
	}
	return span(ad.rng, 0, 100*us)
}

// apply is how long the kernel takes for a reply. Rule M6 needs it to be
// shorter than the way of a message to another mount and back.
func (ad *adapter) apply() int64 {
	rare := 8
	if ad.k.c.w.plan.Slow {
		rare = 2
	}
	if ad.rng.IntN(rare) == 0 {
		return span(ad.rng, 100*us, 600*us)
	}
	return span(ad.rng, 0, 20*us)
}

// applyOf is apply, for longer where the kernel meets an inode for the first
// time: nothing else can be said about it meanwhile.
func (ad *adapter) applyOf(r *reply) int64 {
	_, lookup := r.x.op.(*meta.Lookup)
	if e, ok := r.a.Result.(*meta.EntryResult); ok && lookup && ad.k.refs[e.Attr.Ino] == nil && ad.k.c.w.plan.Slow && ad.rng.IntN(4) == 0 {
		return span(ad.rng, 1*ms, 30*ms)
	}
	return ad.apply()
}

// soon lets the daemon do something, not while it is stopped, never once dead.
func (ad *adapter) soon(d int64, fn func()) {
	ad.k.c.w.after(d, func() {
		if !ad.k.dead {
			ad.k.c.daemon(fn)
		}
	})
}

// request takes an upcall. One for attributes waits for pages that are to go:
// a read(2) that asks for them looks at the pages next.
func (ad *adapter) request(x *call) {
	if op, ok := x.op.(*meta.GetAttr); ok && ad.pagesPending(op.Ino) && ad.rule() != EarlyAttr {
		if x.canceled {
			ad.k.answered(client_core.Answer{ID: x.id, Err: errs.E("kernel.getattr", errs.Interrupted, "", nil)})
			return
		}
		ad.soon(500*us, func() { ad.request(x) })
		return
	}
	ad.enter(x)
	if op, ok := x.op.(*meta.SetAttr); ok {
		ad.setting[op.Ino]++
	}
	x.sent = true
	ad.k.c.post(client_core.Request{ID: x.id, Op: x.op})
}

// answered takes an answer of the core, among the effects of its step.
func (ad *adapter) answered(x *call, a client_core.Answer) {
	ad.seq++
	a.Cache, a.Lives = ad.rule().lifetimes(ad.k.c, x, a)
	r := &reply{x: x, a: a, at: ad.k.c.w.now, seq: ad.seq}
	ad.unwritten = append(ad.unwritten, r)
	ad.leaves(r)
	ad.changes(r)
	ad.soon(ad.delay(), func() { ad.write(r) })
}

// changes notes the inodes that an own change changes: an older reply may come
// after it. Linux gives directories no new version then, and forgets the version
// of an inode with the inode.
func (ad *adapter) changes(r *reply) {
	if ad.rule() == AttrBesideChange {
		return
	}
	for _, ino := range changesOf(r) {
		ad.changed[ino] = r.seq
	}
}

// changesOf lists the inodes whose attributes an own change changes.
func changesOf(r *reply) []meta.Ino {
	if r.a.Err != nil {
		return nil
	}
	switch op := r.x.op.(type) {
	case *meta.Make:
		return []meta.Ino{op.Parent}
	case *meta.Link:
		return []meta.Ino{op.Parent, op.Ino}
	case *meta.Unlink:
		return append(tells(r), op.Parent)
	case *meta.Rmdir:
		return append(tells(r), op.Parent)
	case *meta.Rename:
		return append(tells(r), op.OldParent, op.NewParent)
	case *meta.SetAttr:
		return []meta.Ino{op.Ino}
	case *meta.SetXattr:
		return []meta.Ino{op.Ino}
	case *meta.RemoveXattr:
		return []meta.Ino{op.Ino}
	}
	return nil
}

// tells lists the inodes whose attributes are in a reply.
func tells(r *reply) (list []meta.Ino) {
	switch x := r.a.Result.(type) {
	case *meta.EntryResult:
		list = append(list, x.Attr.Ino)
	case *meta.AttrResult:
		list = append(list, x.Attr.Ino)
	case *meta.DirResult:
		for i := range x.Entries {
			if x.Plus {
				list = append(list, x.Entries[i].Attr.Ino)
			}
		}
	}
	return list
}

// ahead reports whether a reply tells of an own change whose reply is still to
// be written: who reads it would know more than the caches beside it.
func (ad *adapter) ahead(r *reply) bool {
	if ad.rule() == AheadOfChange {
		return false
	}
	inos := tells(r)
	for _, u := range ad.unwritten {
		if u.seq >= r.seq {
			continue
		}
		for _, ino := range changesOf(u) {
			if slices.Contains(inos, ino) {
				return true
			}
		}
	}
	return false
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

// write gives a reply to the kernel.
func (ad *adapter) write(r *reply) {
	w := ad.k.c.w
	if ad.ahead(r) {
		ad.soon(50*us, func() { ad.write(r) })
		return
	}
	ad.age(r)
	ad.censor(r)
	ad.distrust(r)
	ad.count(r.a.Result)
	for i, u := range ad.unwritten {
		if u == r {
			ad.unwritten = append(ad.unwritten[:i:i], ad.unwritten[i+1:]...)
			break
		}
	}
	ad.loose++
	list := false
	if d, ok := r.x.op.(*meta.ReadDir); ok && d.Plus {
		list = true
		ad.listings = append(ad.listings, r)
	}
	w.after(ad.applyOf(r), func() {
		ad.loose--
		if op, ok := r.x.op.(*meta.SetAttr); ok {
			ad.setting[op.Ino]--
		}
		if list {
			ad.listings = without1(ad.listings, r)
		}
		if !ad.k.dead {
			w.note("%s reply %d", ad.k.c.name, r.x.id)
			ad.k.finish(r.x, r.a)
		} else {
			ad.k.finish(r.x, gone())
		}
	})
	ad.settled(r)
	ad.passOrders()
}

func without1[T comparable](list []T, x T) []T {
	for i, y := range list {
		if y == x {
			return append(list[:i:i], list[i+1:]...)
		}
	}
	return list
}

// age takes the time since the answer off its lifetimes.
func (ad *adapter) age(r *reply) {
	if ad.rule() == FullLifetimes {
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
}

// censor takes away lifetimes that an invalidation or an own change has
// overtaken, and those of attributes beside pages that are to go. While an own
// SETATTR is open no attributes live: Linux drops its reply when others came
// meanwhile, and would believe those.
func (ad *adapter) censor(r *reply) {
	one := func(dir meta.Ino, name string, ino meta.Ino, c *client_core.Cache) {
		_, own := r.x.op.(*meta.SetAttr)
		if ad.pagesPending(ino) && ad.rule() != EarlyAttr || ad.changed[ino] > r.seq ||
			!own && ad.setting[ino] > 0 && ad.rule() != AttrBesideSetattr {
			c.Attr = 0
		}
		for _, o := range ad.orders {
			if o.seq < r.seq || ad.rule() == NoBarrier {
				continue
			}
			for i := range o.items {
				switch it := &o.items[i]; {
				case it.Epoch, it.Dir == dir && dir != 0 && it.Name == name:
					c.Entry = 0
				case it.Ino == ino && ino != 0:
					c.Attr = 0
				}
			}
		}
	}
	var dir, ino meta.Ino
	name := ""
	switch op := r.x.op.(type) {
	case *meta.Lookup:
		dir, name = op.Parent, op.Name
	case *meta.Make:
		dir, name = op.Parent, op.Name
	case *meta.Link:
		dir, name = op.Parent, op.Name
	}
	switch x := r.a.Result.(type) {
	case *meta.EntryResult:
		ino = x.Attr.Ino
	case *meta.AttrResult:
		ino = x.Attr.Ino
	case *meta.DirResult:
		for i := range r.a.Lives {
			one(r.x.op.(*meta.ReadDir).Dir, x.Entries[i].Name, x.Entries[i].Attr.Ino, &r.a.Lives[i])
		}
		return
	}
	one(dir, name, ino, &r.a.Cache)
}

func (ad *adapter) passOrders() {
	oldest := ^uint64(0)
	for _, u := range ad.unwritten {
		if _, data := u.x.op.(client_core.ReadFile); !data { // its bytes may have to be fetched
			oldest = min(oldest, u.seq)
		}
	}
	for _, o := range ad.orders {
		if fn := o.fn; fn != nil && o.seq < oldest {
			o.fn = nil
			ad.soon(0, fn)
		}
	}
}

// issue lets fn run when all replies answered so far are written.
func (ad *adapter) issue(items []client_core.Inval, fn func()) *order {
	ad.seq++
	o := &order{seq: ad.seq, items: items}
	if len(items) > 0 {
		ad.lastOrder = ad.seq
	}
	o.fn = func() {
		ad.orders = without1(ad.orders, o)
		fn()
	}
	ad.orders = append(ad.orders, o)
	ad.passOrders()
	return o
}

// invalidate carries out an effect of the core: every reply whose answer came
// before is written first (rule C4).
func (ad *adapter) invalidate(ef client_core.Invalidate) {
	ad.invals++
	items := append([]client_core.Inval(nil), ef.Items...)
	run := func() { ad.carryOut(items, ef.Token) }
	if ad.rule() == NoBarrier {
		ad.soon(0, run)
		return
	}
	ad.issue(items, run)
}

// told counts what a notification waits for.
type told struct {
	left int
	done func()
}

func (t *told) one() {
	if t.left--; t.left == 0 {
		t.done()
	}
}

// carryOut tells the kernel. A name waits for the lock of its directory; it is
// not waited for once a new epoch has begun.
func (ad *adapter) carryOut(items []client_core.Inval, token uint64) {
	k := ad.k
	t := &told{left: 1, done: func() {
		ad.soon(ad.delay(), func() {
			ad.invals--
			k.c.post(client_core.Invalidated{Token: token})
		})
	}}
	for i := range items {
		it := items[i]
		t.left++
		switch {
		case it.Epoch:
			ad.soon(ad.apply(), func() { ad.settleListings(func() { k.c.w.note("%s epoch", k.c.name); k.incEpoch(); t.one() }) })
		case it.Dir != 0:
			over, epoch := false, k.epoch
			one := func() {
				if !over {
					over = true
					t.one()
				}
			}
			ad.soon(ad.apply(), func() {
				k.c.w.note("%s invalidates %s in %d", k.c.name, it.Name, it.Dir)
				k.invalEntry(dentry{it.Dir, it.Name}, one)
			})
			ad.untilEpoch(epoch, &over, one)
		case it.Attr:
			ad.soon(ad.apply(), func() { ad.invalInode(it.Ino, true, 0, 0, t.one) })
		default:
			off, end := uint32(it.Off/unit), ^uint32(0)
			if it.Len > 0 {
				end = uint32((it.Off + it.Len + unit - 1) / unit)
			}
			ad.soon(ad.apply(), func() { ad.dropPages(it.Ino, pageSpan{off, end}, t.one) })
		}
	}
	t.one()
}

// untilEpoch ends the wait for a name when a new epoch begins.
func (ad *adapter) untilEpoch(epoch uint64, over *bool, fn func()) {
	if *over {
		return
	}
	if ad.k.epoch != epoch {
		fn()
		return
	}
	ad.soon(1*ms, func() { ad.untilEpoch(epoch, over, fn) })
}

// settleListings waits until written replies of READDIRPLUS are applied: the
// kernel gives their names the epoch of that moment.
func (ad *adapter) settleListings(fn func()) {
	if len(ad.listings) == 0 || ad.rule() == EpochBesideListing {
		fn()
		return
	}
	ad.soon(100*us, func() { ad.settleListings(fn) })
}

// invalInode is the notification. An inode that the kernel does not know may be
// in a reply that it is still applying: it is told again while the daemon counts
// references.
func (ad *adapter) invalInode(ino meta.Ino, attr bool, off, end uint32, done func()) {
	k := ad.k
	k.c.w.note("%s invalidates %d attr %v %d-%d", k.c.name, ino, attr, off, end)
	k.invalInode(ino, attr, off, end, func(ok bool) {
		if !ok && ad.lookups[ino] > 0 && ad.rule() != NoRetry {
			ad.soon(200*us, func() { ad.invalInode(ino, attr, off, end, done) })
			return
		}
		done()
	})
}

// outFrame is a frame on its way to a stream.
type outFrame struct {
	conn *conn
	send func()
	tell bool // of own operations
}

// send puts a frame on the wire. What others learn of own operations must not
// be ahead of what this kernel tells (rule M6): before a log or an ack every
// reply answered so far is written.
func (ad *adapter) send(f outFrame) {
	if ad.rule() == LogBeforeReply {
		f.send()
		return
	}
	ad.out = append(ad.out, f)
	ad.pump()
}

func (ad *adapter) pump() {
	for len(ad.out) > 0 && !ad.sending {
		tells := false
		for _, f := range ad.out {
			tells = tells || f.tell
		}
		if tells {
			ad.sending = true
			n := len(ad.out)
			ad.issue(nil, func() {
				ad.sending = false
				batch := ad.out[:n:n]
				ad.out = ad.out[n:]
				for _, f := range batch {
					f.send()
				}
				ad.pump()
			})
			return
		}
		batch := ad.out
		ad.out = nil
		for _, f := range batch {
			f.send()
		}
	}
}
