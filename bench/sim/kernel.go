package sim

import (
	"fmt"
	"slices"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"

	client_core "agentdrive/fuseclient/core"
)

// kernel is a model of what stands above a mount: Linux, with its references,
// caches (cache.go), locks (lock.go) and open files, and the applications that
// use it (names.go, workload.go).
type kernel struct {
	c       *client
	ad      *adapter
	refs    map[meta.Ino]*ref
	order   []meta.Ino // of refs, by first sight
	handles []*handle
	calls   map[client_core.ReqID]*call
	pending []*call // the same, in order
	apps    int     // system calls under way
	last    client_core.ReqID
	dents   map[dentry]*dent // cached names
	looking map[dentry][]func()
	epoch   uint64 // of names: FUSE_NOTIFY_INC_EPOCH
	version uint64 // of attributes
	multi   []*multiLock
	closing bool // shutting down
	failed  bool // a block was refused: data may be lost without an eviction
	dead    bool // the daemon died: upcalls fail, caches live on
}

// dentry is a name in a directory.
type dentry struct {
	dir  meta.Ino
	name string
}

// ref is an inode that the kernel knows.
type ref struct {
	ino     meta.Ino
	mode    uint32
	lookups uint64
	session meta.SessionID // that gave the newest reference
	busy    int            // calls under way and handles that name it
	lock    rwlock

	attr    meta.Attr
	until   int64  // the attributes are believed so long
	version uint64 // when they changed last
	pages   map[uint32]page
	locked  map[uint32]int // pages that an open READ or WRITE holds
	stuck   []func()       // wait for pages to be unlocked
}

type handle struct {
	ref     *ref
	busy    int
	closing bool
}

// call is an upcall: a request under way.
type call struct {
	id       client_core.ReqID
	op       any
	inv      stamp
	uses     []*ref
	session  meta.SessionID // of the client when it began
	lost     int            // sessions lost before
	version  uint64         // of attributes when it was sent
	epoch    uint64         // of names when it was sent
	canceled bool
	sent     bool // the core has it
	done     func(client_core.Answer)
}

func newKernel(c *client) *kernel {
	k := &kernel{
		c: c, refs: map[meta.Ino]*ref{}, calls: map[client_core.ReqID]*call{},
		dents: map[dentry]*dent{}, looking: map[dentry][]func(){},
	}
	k.ad, k.version = newAdapter(k), 1
	k.refs[meta.RootIno] = &ref{ino: meta.RootIno, mode: meta.ModeDir, lookups: 1}
	k.order = []meta.Ino{meta.RootIno}
	return k
}

// issue sends an upcall to the daemon. done runs when the kernel has its reply.
func (k *kernel) issue(op any, done func(client_core.Answer), uses ...*ref) *call {
	k.last++
	x := &call{
		id: k.last, op: op, inv: k.c.w.observe(), uses: uses, session: k.c.session, lost: k.c.lost,
		version: k.version, epoch: k.epoch, done: done,
	}
	for _, r := range uses {
		r.busy++
	}
	k.c.w.oracle.stats.Requests++
	if k.dead {
		k.c.w.after(0, func() { k.finish(x, gone()) })
		return x
	}
	k.calls[x.id] = x
	k.pending = append(k.pending, x)
	k.c.w.note("%s request %d %T %s", k.c.name, x.id, op, brief(op))
	k.ad.request(x)
	return x
}

// abort ends every request: the daemon has died.
func (k *kernel) abort() {
	open := append([]*call(nil), k.pending...)
	for _, r := range k.ad.unwritten {
		open = append(open, r.x)
	}
	k.pending, k.calls = nil, map[client_core.ReqID]*call{}
	k.ad.unwritten = nil
	for _, x := range open {
		k.c.w.after(0, func() { k.finish(x, gone()) })
	}
}

// gone is the answer of a mount whose daemon has died.
func gone() client_core.Answer {
	return client_core.Answer{Err: errs.E("mount", errs.Unavailable, "the daemon has died", nil)}
}

func brief(op any) string {
	if w, ok := op.(client_core.WriteFile); ok {
		return fmt.Sprintf("inode %d, %d+%d append %v sync %v", w.Ino, w.Off, len(w.Data), w.Append, w.Sync)
	}
	return fmt.Sprintf("%+v", op)
}

// answered takes the core's answer out of the table of open requests. It runs
// among the effects of a step, so it must not step the core: the reply reaches
// the kernel in an event of its own (adapter.go).
func (k *kernel) answered(a client_core.Answer) {
	w := k.c.w
	x := k.calls[a.ID]
	if x == nil {
		w.fail("%s answers request %d, which is not open", k.c.name, a.ID)
		return
	}
	a = w.rule.answer(k.c, x.op, a)
	delete(k.calls, a.ID)
	k.pending = slices.Delete(k.pending, slices.Index(k.pending, x), slices.Index(k.pending, x)+1)
	w.note("%s answer %d %s %v", k.c.name, a.ID, answerText(a), a.Err)
	w.oracle.stats.Answered++
	if a.Err != nil {
		w.oracle.stats.Failed++
	}
	if (a.Err == nil) == (a.Result == nil) {
		w.fail("%s answers request %d with result %v and error %v", k.c.name, a.ID, a.Result, a.Err)
	}
	w.history.answered(x.op, a.Err)
	k.checkStale(x, a.Err)
	k.checkPassed(x, a)
	// Of two flushes one is told of a loss: the order of their answers counts.
	switch op := x.op.(type) {
	case client_core.Flush:
		k.c.w.data.failed(k.c, op.Ino, x.inv, a.Err)
		if w.leases {
			w.data.synced(k.c, op.Ino, x.inv, a.Err, false)
		}
	case client_core.WriteFile:
		if op.Sync {
			w.data.failed(k.c, op.Ino, x.inv, a.Err)
		}
	case client_core.Fsync:
		k.c.w.data.failed(k.c, op.Ino, x.inv, a.Err)
	}
	k.ad.answered(x, a)
}

func answerText(a client_core.Answer) string {
	out := fmt.Sprintf("%T", a.Result)
	if a.Cache != (client_core.Cache{}) {
		out += fmt.Sprintf(" for %.3f, %.3f", float64(a.Cache.Entry)/1e9, float64(a.Cache.Attr)/1e9)
	}
	return out
}

// finish ends an upcall: the kernel goes on with its reply.
func (k *kernel) finish(x *call, a client_core.Answer) {
	for _, r := range x.uses {
		r.busy--
	}
	k.learn(a.Result)
	if x.done != nil {
		x.done(a)
	}
}

// checkStale is rule S6 as applications see it.
func (k *kernel) checkStale(x *call, err error) {
	if !errs.Is(err, errs.Stale) || x.lost != k.c.lost || x.session == 0 || len(x.uses) == 0 {
		return
	}
	if op, ok := x.op.(meta.Op); ok {
		sent := k.c.w.oracle.latest[op]
		if sent == nil || sent.reply == nil || sent.reply.Err == nil || sent.reply.Err.Kind != errs.Stale {
			return // of another inode, whose data had to be published first
		}
	}
	for _, r := range x.uses {
		if r.ino != meta.RootIno && r.session != k.c.session {
			return // a reference from an ended session
		}
	}
	k.c.w.fail("%s: request %d %T %s is answered with %v though the kernel references the inode (S6)",
		k.c.name, x.id, x.op, brief(x.op), err)
}

// checkPassed compares the answer with the reply that the client got for it.
// What a client answers by itself is judged by the history alone.
func (k *kernel) checkPassed(x *call, a client_core.Answer) {
	op, ok := x.op.(meta.Op)
	if _, empty := op.(*meta.StatFS); !ok || empty {
		return // a StatFS is all like the others: it has no identity
	}
	sent := k.c.w.oracle.latest[op]
	if a.Err != nil {
		kind := errs.KindOf(a.Err)
		explained := kind == errs.Interrupted && x.canceled || x.lost != k.c.lost && kind == errs.IO ||
			kind == errs.Expired && k.closing || sent == nil && (published(kind) || k.c.w.leases && local(kind))
		if sent != nil && sent.reply != nil && sent.reply.Err != nil {
			explained = explained || sent.reply.Err.Kind == kind
		}
		if !explained {
			k.c.w.fail("%s: nothing explains the answer to request %d %T: %v", k.c.name, x.id, x.op, a.Err)
		}
		return
	}
	if k.c.w.leases {
		return
	}
	if sent == nil || sent.reply == nil || sent.reply.Err != nil {
		k.c.w.fail("%s: request %d %T succeeds without a reply", k.c.name, x.id, x.op)
		return
	}
	res, ok := a.Result.(meta.Result)
	if !ok || passed(res) != passed(sent.reply.Result) {
		k.c.w.fail("%s: request %d %T is answered with %s, the server said %s", k.c.name, x.id, x.op,
			passed(res), passed(sent.reply.Result))
	}
}

// published lists the kinds of errors that an operation may meet because data
// had to be published before it was sent.
func published(kind errs.Kind) bool {
	return kind == errs.NoSpace || kind == errs.IO || kind == errs.Stale
}

// local lists the kinds of errors that a client may give by itself under a
// lease. The history checks those that tell of names.
func local(kind errs.Kind) bool {
	switch kind {
	case errs.NotExist, errs.Exist, errs.NotDir, errs.IsDir, errs.NotEmpty, errs.Invalid, errs.Permission, errs.NoAttr:
		return true
	}
	return false
}

// passed renders what a client must hand on as the server said it: all but
// the attributes that its own data and newer replies change.
func passed(r meta.Result) string {
	switch x := r.(type) {
	case *meta.EntryResult:
		return fmt.Sprintf("entry %d %o %v", x.Attr.Ino, x.Attr.Mode&meta.ModeType, x.Created)
	case *meta.AttrResult:
		return fmt.Sprintf("attr %d %o", x.Attr.Ino, x.Attr.Mode&meta.ModeType)
	case *meta.DirResult:
		out := fmt.Sprintf("dir %v %v", x.EOF, x.Plus)
		for i := range x.Entries {
			e := &x.Entries[i]
			out += fmt.Sprintf(" %q=%d@%d", e.Name, e.Attr.Ino, e.Cookie)
		}
		return out
	}
	return fmt.Sprintf("%T %+v", r, r)
}

// learn counts the references that a result gives.
func (k *kernel) learn(res any) {
	switch x := res.(type) {
	case *meta.EntryResult:
		k.reference(&x.Attr)
	case *meta.DirResult:
		if x.Plus {
			for i := range x.Entries {
				k.reference(&x.Entries[i].Attr)
			}
		}
	}
}

func (k *kernel) reference(a *meta.Attr) {
	r := k.refs[a.Ino]
	if r == nil {
		r = &ref{ino: a.Ino, mode: a.Mode}
		k.refs[a.Ino] = r
		k.order = append(k.order, a.Ino)
	}
	r.lookups++
	r.session = k.c.session
}

// forget gives all references of an idle inode back. What the kernel knew of
// it, and of names in it, goes too.
func (k *kernel) forget(r *ref) {
	if r.busy > 0 || r.ino == meta.RootIno || k.refs[r.ino] != r {
		return
	}
	for key, d := range k.dents { // any order: all are only removed
		if d.ino == r.ino || key.dir == r.ino {
			delete(k.dents, key)
		}
	}
	delete(k.refs, r.ino)
	i := slices.Index(k.order, r.ino)
	k.order = slices.Delete(k.order, i, i+1)
	k.c.w.note("%s forgets %d times %d", k.c.name, r.lookups, r.ino)
	if !k.dead {
		k.ad.forget(r.ino, r.lookups)
	}
}

// pick chooses among the known inodes that fit.
func (k *kernel) pick(sel uint32, fit func(*ref) bool) *ref {
	var list []*ref
	for _, ino := range k.order {
		if r := k.refs[ino]; fit(r) {
			list = append(list, r)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[int(sel)%len(list)]
}

func isDir(r *ref) bool  { return r.mode&meta.ModeType == meta.ModeDir }
func isFile(r *ref) bool { return r.mode&meta.ModeType == meta.ModeRegular }
func isAny(*ref) bool    { return true }

// handle chooses an open handle.
func (k *kernel) handle(sel uint32) *handle {
	var list []*handle
	for _, h := range k.handles {
		if !h.closing {
			list = append(list, h)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[int(sel)%len(list)]
}

// isOpen reports whether a handle of the inode is open.
func (k *kernel) isOpen(ino meta.Ino) bool {
	return slices.ContainsFunc(k.handles, func(h *handle) bool { return h.ref.ino == ino })
}

// open opens a handle on a file.
func (k *kernel) open(r *ref) {
	r.busy++
	k.handles = append(k.handles, &handle{ref: r})
	k.c.w.note("%s opens %d", k.c.name, r.ino)
	k.c.post(client_core.OpenFile{Ino: r.ino})
}

// close flushes a handle and releases it, whatever the flush says.
func (k *kernel) close(h *handle) {
	if h.closing || h.busy > 0 {
		return
	}
	h.closing = true
	k.sync(h, client_core.Flush{Ino: h.ref.ino}, func() {
		k.handles = slices.Delete(k.handles, slices.Index(k.handles, h), slices.Index(k.handles, h)+1)
		h.ref.busy--
		if !k.isOpen(h.ref.ino) {
			k.c.w.data.closed(k.c, h.ref.ino)
		}
		k.ad.tell(client_core.CloseFile{Ino: h.ref.ino})
	})
}

// sync asks for a Flush or Fsync and tells the oracles what it proves.
func (k *kernel) sync(h *handle, op any, then func()) {
	h.busy++
	inv := k.c.w.last + 1
	k.issue(op, func(a client_core.Answer) {
		h.busy--
		if _, fsync := op.(client_core.Fsync); fsync || !k.c.w.leases {
			k.c.w.data.synced(k.c, h.ref.ino, inv, a.Err, true)
		}
		if then != nil {
			then()
		}
	}, h.ref)
}
