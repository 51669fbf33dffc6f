package sim

import (
	"fmt"
	"slices"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"

	client_core "agentdrive/fuseclient/core"
)

// kernel is a model of what stands above a mount: it counts the references
// that entry replies give, takes FORGET back, keeps handles open, and holds
// one lock per file around writes, as Linux does.
type kernel struct {
	c       *client
	refs    map[meta.Ino]*ref
	order   []meta.Ino // of refs, by first sight
	handles []*handle
	calls   map[client_core.ReqID]*call
	pending []*call // the same, in order
	last    client_core.ReqID
	closing bool // shutting down
	failed  bool // a block was refused: data may be lost without an eviction
}

// ref is an inode that the kernel knows.
type ref struct {
	ino     meta.Ino
	mode    uint32
	lookups uint64
	session meta.SessionID // that gave the newest reference
	busy    int            // calls under way and handles that name it
	locked  bool           // a write or truncate is under way
}

type handle struct {
	ref     *ref
	busy    int
	closing bool
}

// call is a request under way.
type call struct {
	id       client_core.ReqID
	op       any
	inv      stamp
	uses     []*ref
	session  meta.SessionID // of the client when it began
	lost     int            // sessions lost before
	canceled bool
	done     func(client_core.Answer)
}

func newKernel(c *client) *kernel {
	k := &kernel{c: c, refs: map[meta.Ino]*ref{}, calls: map[client_core.ReqID]*call{}}
	k.refs[meta.RootIno] = &ref{ino: meta.RootIno, mode: meta.ModeDir, lookups: 1}
	k.order = []meta.Ino{meta.RootIno}
	return k
}

// issue hands a request to the core.
func (k *kernel) issue(op any, done func(client_core.Answer), uses ...*ref) *call {
	k.last++
	x := &call{id: k.last, op: op, inv: k.c.w.observe(), uses: uses, session: k.c.session, lost: k.c.lost, done: done}
	k.calls[x.id] = x
	k.pending = append(k.pending, x)
	for _, r := range uses {
		r.busy++
	}
	k.c.w.oracle.stats.Requests++
	k.c.w.note("%s request %d %T %s", k.c.name, x.id, op, brief(op))
	k.c.post(client_core.Request{ID: x.id, Op: op})
	return x
}

func brief(op any) string {
	if w, ok := op.(client_core.WriteFile); ok {
		return fmt.Sprintf("inode %d, %d+%d append %v sync %v", w.Ino, w.Off, len(w.Data), w.Append, w.Sync)
	}
	return fmt.Sprintf("%+v", op)
}

// answered takes the core's answer. It runs among the effects of a step, so it
// must not step the core: what follows comes in an event of its own.
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
	w.note("%s answer %d %T %v", k.c.name, a.ID, a.Result, a.Err)
	w.oracle.stats.Answered++
	if a.Err != nil {
		w.oracle.stats.Failed++
	}
	if (a.Err == nil) == (a.Result == nil) {
		w.fail("%s answers request %d with result %v and error %v", k.c.name, a.ID, a.Result, a.Err)
	}
	k.checkStale(x, a.Err)
	k.checkPassed(x, a)
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
func (k *kernel) checkPassed(x *call, a client_core.Answer) {
	op, ok := x.op.(meta.Op)
	if _, empty := op.(*meta.StatFS); !ok || empty {
		return // a StatFS is all like the others: it has no identity
	}
	sent := k.c.w.oracle.latest[op]
	if a.Err != nil {
		kind := errs.KindOf(a.Err)
		explained := kind == errs.Interrupted && x.canceled || x.lost != k.c.lost && kind == errs.IO ||
			kind == errs.Expired && k.closing || sent == nil && published(kind)
		if sent != nil && sent.reply != nil && sent.reply.Err != nil {
			explained = explained || sent.reply.Err.Kind == kind
		}
		if !explained {
			k.c.w.fail("%s: nothing explains the answer to request %d %T: %v", k.c.name, x.id, x.op, a.Err)
		}
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

// forget gives all references of an idle inode back.
func (k *kernel) forget(r *ref) {
	if r.busy > 0 || r.ino == meta.RootIno {
		return
	}
	delete(k.refs, r.ino)
	i := slices.Index(k.order, r.ino)
	k.order = slices.Delete(k.order, i, i+1)
	k.c.w.note("%s forgets %d times %d", k.c.name, r.lookups, r.ino)
	k.c.post(client_core.Forget{Ino: r.ino, N: r.lookups})
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
		k.c.w.after(0, func() { k.c.post(client_core.CloseFile{Ino: h.ref.ino}) })
	})
}

// sync asks for a Flush or Fsync and tells the data oracle what it proves.
func (k *kernel) sync(h *handle, op any, then func()) {
	h.busy++
	inv := k.c.w.last + 1
	k.issue(op, func(a client_core.Answer) {
		h.busy--
		k.c.w.data.synced(k.c, h.ref.ino, inv, a.Err)
		if then != nil {
			then()
		}
	}, h.ref)
}
