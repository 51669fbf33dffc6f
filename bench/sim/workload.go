package sim

import (
	"fmt"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"

	client_core "agentdrive/fuseclient/core"
)

// attributes issues what changes an inode, under its lock.
func (k *kernel) attributes(x Step) {
	switch x.Kind {
	case Chmod:
		r := k.pick(x.A, isAny)
		k.setattr(r, &meta.SetAttr{Ino: r.ino, Set: meta.SetMode, Mode: 0o600 | x.B&0o77}, nil)
	case Truncate:
		if r := k.pick(x.A, isFile); r != nil {
			k.truncate(r, x.B%48)
		}
	case SetXattr:
		r := k.pick(x.A, isAny)
		k.xattr(r, &meta.SetXattr{Ino: r.ino, Name: xattrOf(x.B), Value: []byte{byte(x.C)}, Flags: x.C >> 8 % 3})
	case RemoveXattr:
		r := k.pick(x.A, isAny)
		k.xattr(r, &meta.RemoveXattr{Ino: r.ino, Name: xattrOf(x.B)})
	}
}

func xattrOf(sel uint32) string { return fmt.Sprintf("user.x%d", sel%2) }

// setattr is chmod(2) and truncate(2). begin, if any, runs when it is sent.
func (k *kernel) setattr(r *ref, op *meta.SetAttr, begin func() func(client_core.Answer)) {
	a := k.begin(r)
	a.lockExcl(func() { a.whenApplied(func() { a.setattrLocked(r, op, begin) }) }, r)
}

// whenApplied waits until the kernel has applied what is written to it.
func (a *app) whenApplied(fn func()) {
	if a.k.ad.loose == 0 || a.k.dead {
		fn()
		return
	}
	a.k.c.w.after(50*us, func() { a.whenApplied(fn) })
}

func (a *app) setattrLocked(r *ref, op *meta.SetAttr, begin func() func(client_core.Answer)) {
	k := a.k
	var then func(client_core.Answer)
	if begin != nil {
		then = begin()
	}
	var x *call
	x = a.change(op, func(ans client_core.Answer) {
		if res, ok := ans.Result.(*meta.AttrResult); ok {
			k.fill(&res.Attr, ans.Cache.Attr, x.version)
			if op.Set&meta.SetSize != 0 {
				k.truncated(r, uint32(op.Size/unit))
			}
			k.c.w.history.attr(a, &res.Attr, x.inv, "setattr")
		}
		if then != nil {
			then(ans)
		}
		a.end()
	}, r)
}

// truncated drops the pages behind a new end of file.
func (k *kernel) truncated(r *ref, end uint32) {
	r.attr.Size = uint64(end) * unit
	k.dropPages(r, end, ^uint32(0))
}

func (k *kernel) xattr(r *ref, op meta.Op) {
	a := k.begin(r)
	a.lockExcl(func() {
		a.change(op, func(ans client_core.Answer) {
			if ans.Err == nil {
				k.changed(r)
			}
			a.end()
		}, r)
	}, r)
}

func (k *kernel) reads(x Step) {
	r := k.pick(x.A, isAny)
	switch x.Kind {
	case GetAttr:
		k.fstat(r)
	case Readlink:
		k.ask(r, &meta.Readlink{Ino: r.ino}, nil)
	case ReadDir:
		dir := k.pick(x.A, isDir)
		k.list(dir, 1+x.B%8, x.C&1 == 0, x.C&2 == 0)
	case GetXattr:
		name := xattrOf(x.B)
		key := histKey{'x', r.ino, name}
		k.ask(r, &meta.GetXattr{Ino: r.ino, Name: name}, func(x *call, ans client_core.Answer) {
			if b, ok := ans.Result.(*meta.BytesResult); ok {
				k.c.w.history.look(k, key, fmt.Sprintf("%x", b.Data), x.inv, "getxattr")
			}
			if errs.Is(ans.Err, errs.NoAttr) {
				k.c.w.history.look(k, key, absent, x.inv, "getxattr")
			}
		})
	case ListXattr:
		k.ask(r, &meta.ListXattr{Ino: r.ino}, nil)
	case StatFS:
		k.ask(nil, &meta.StatFS{}, nil)
	}
}

// fstat is fstat(2).
func (k *kernel) fstat(r *ref) {
	a := k.begin(r)
	a.getattr(r, func(attr *meta.Attr, _ error) {
		if attr != nil && isFile(r) && a.lost == k.c.lost {
			k.c.w.data.checkSize(k.c, r.ino, a.inv, attr.Size)
		}
		a.end()
	})
}

// ask is a call that is always an upcall.
func (k *kernel) ask(r *ref, op meta.Op, done func(*call, client_core.Answer)) {
	a := k.begin()
	if r != nil {
		a.use(r)
	}
	x := k.issue(op, nil, a.uses...)
	x.done = func(ans client_core.Answer) {
		if done != nil {
			done(x, ans)
		}
		a.end()
	}
}

// files issues what works on handles, and what belongs to no inode.
func (k *kernel) files(x Step) {
	switch x.Kind {
	case Open:
		if r := k.pick(x.A, isFile); r != nil && len(k.handles) < 12 && !k.dead {
			k.open(r)
		}
		return
	case SyncAll:
		inv := k.c.w.last + 1
		k.issue(client_core.SyncAll{}, func(a client_core.Answer) { k.c.w.data.allSynced(k.c, inv, a.Err) })
		return
	case Forget:
		k.forget(k.pick(x.A, isAny))
		return
	case Unmount:
		k.shutdown()
		return
	case Cancel:
		if len(k.pending) > 0 && !k.dead {
			call := k.pending[int(x.A)%len(k.pending)]
			call.canceled = true
			k.c.w.note("%s cancels request %d", k.c.name, call.id)
			if call.sent {
				k.c.post(client_core.Cancel{ID: call.id})
			}
		}
		return
	}
	h := k.handle(x.A)
	if h == nil {
		return
	}
	switch x.Kind {
	case Write, WriteSync, Append:
		n := 1 + x.C/4%4
		if x.C%4 == 0 {
			n = 18 + x.C/4%24 // too long to travel inline
		}
		k.write(h, x.Kind, x.B%40, n)
	case Read:
		k.read(h, x.B%32, 1+x.C%48)
	case Fsync:
		k.sync(h, client_core.Fsync{Ino: h.ref.ino}, nil)
	case Close:
		k.close(h)
	}
}

// truncate sets a file's size to units.
func (k *kernel) truncate(r *ref, units uint32) {
	op := &meta.SetAttr{Ino: r.ino, Set: meta.SetSize, Size: uint64(units) * unit}
	k.setattr(r, op, func() func(client_core.Answer) {
		d := k.c.w.data
		x := d.begin(k.c, r.ino, units, 0)
		x.trunc = true
		return func(ans client_core.Answer) {
			x.mut = k.c.w.history.byOp[op]
			d.finish(x, ans, true, false)
		}
	})
}

// write is write(2), through the page cache unless it appends (direct I/O).
func (k *kernel) write(h *handle, kind Kind, off, n uint32) {
	r := h.ref
	h.busy++
	a := k.begin(r)
	a.lockExcl(func() {
		if kind == Append {
			a.send(h, kind, off, n, nil)
			return
		}
		k.lockPages(r, off, off+n, func() {
			a.send(h, kind, off, n, func(data []byte, err error) {
				if err == nil {
					r.put(off, data)
				} else {
					k.dropPages(r, off, off+n)
				}
				k.unlockPages(r, off, off+n)
			})
		})
	}, r)
}

// send issues a WRITE.
func (a *app) send(h *handle, kind Kind, off, n uint32, fill func(data []byte, err error)) {
	k, r := a.k, h.ref
	d := k.c.w.data
	x := d.begin(k.c, r.ino, off, n)
	x.appends = kind == Append
	data := x.content()
	op := client_core.WriteFile{Ino: r.ino, Off: uint64(off) * unit, Data: data, Append: x.appends, Sync: kind == WriteSync}
	copied := append([]byte(nil), data...) // the core owns the other
	k.issue(op, func(ans client_core.Answer) {
		h.busy--
		d.finish(x, ans, kind != Write, kind == WriteSync)
		if kind == WriteSync {
			d.synced(k.c, r.ino, x.inv, ans.Err, true)
		}
		if ans.Err == nil {
			k.version++
			r.version = k.version
			r.attr.Size = max(r.attr.Size, uint64(off+n)*unit)
			r.attr.Mtime = -1 // its own guess
			k.changed(r)
			if kind == Append {
				k.dropPages(r, off, off+n)
			}
		}
		if fill != nil {
			fill(copied, ans.Err)
		}
		a.end()
	}, r)
}

// read is read(2): fresh attributes, then pages, with READs for what is missing.
func (k *kernel) read(h *handle, off, n uint32) {
	h.busy++
	a := k.begin(h.ref)
	end := func() {
		h.busy--
		a.end()
	}
	a.getattr(h.ref, func(attr *meta.Attr, err error) {
		if err != nil {
			a.readFailed(h, err)
			end()
			return
		}
		(&reading{app: a, h: h, off: off, end: off + n, pos: off, size: uint32(attr.Size / unit), done: end}).next()
	})
}

func (a *app) readFailed(h *handle, err error) {
	k := a.k
	kind := errs.KindOf(err)
	if kind != errs.Interrupted && kind != errs.Stale && !(kind == errs.Expired && k.closing) && a.lost == k.c.lost && !k.dead {
		k.c.w.fail("%s: a read of inode %d fails: %v", k.c.name, h.ref.ino, err)
	}
}

// reading is a read(2) of [off, end), of which the units up to pos are in data:
// it takes one page after the other. size is what the attributes said. (Linux,
// when it may not take them into its cache, reads up to an older end of file:
// see DESIGN.md.)
type reading struct {
	*app
	h             *handle
	off, end, pos uint32
	size          uint32
	data          []byte
	done          func()
}

func (a *reading) next() {
	k, r := a.k, a.h.ref
	last := min(a.end, max(a.size, uint32(r.attr.Size/unit)))
	k.pagesFree(r, a.pos, last, func() {
		for a.pos < last && r.pages[a.pos] != nil {
			a.data = append(a.data, r.pages[a.pos]...)
			a.pos++
		}
		if a.pos >= last {
			a.finish()
			return
		}
		to := a.pos
		for to < last && r.pages[to] == nil {
			to++
		}
		k.lockPages(r, a.pos, to, func() {
			a.fetch(a.h, a.pos, to, func(got []byte, err error) {
				if err != nil {
					a.readFailed(a.h, err)
					a.done()
					return
				}
				a.data = append(a.data, got...)
				if len(got) < int(to-a.pos)*unit { // the end of file
					a.finish()
					return
				}
				a.pos = to
				a.next()
			})
		})
	})
}

func (a *reading) finish() {
	a.k.c.w.history.pages += len(a.data) / unit
	a.k.c.w.data.check(a.k.c, a.h.ref.ino, a.inv, a.off, a.end-a.off, a.data)
	a.done()
}

// fetch issues a READ of pages that it has locked.
func (a *app) fetch(h *handle, from, to uint32, done func([]byte, error)) {
	k, r := a.k, h.ref
	x := k.issue(client_core.ReadFile{Ino: r.ino, Off: uint64(from) * unit, Len: (to - from) * unit}, nil, r)
	x.done = func(ans client_core.Answer) {
		err := ans.Err
		var data []byte
		if err == nil {
			plan, ok := ans.Result.(*client_core.FilePlan)
			if !ok {
				k.c.w.fail("%s: a read is answered with %T", k.c.name, ans.Result)
				return
			}
			if data, err = k.c.w.blocks.read(plan); err != nil {
				k.c.w.fail("%s reads inode %d: %v", k.c.name, r.ino, err)
				return
			}
			if len(data)%unit != 0 || len(data) > int((to-from)*unit) {
				k.c.w.fail("%s reads %d bytes of inode %d", k.c.name, len(data), r.ino)
				return
			}
			got := from + uint32(len(data)/unit)
			if got < to && r.version <= x.version && r.attr.Size > uint64(got)*unit {
				r.attr.Size = uint64(got) * unit // the end of file came nearer
			}
			r.put(from, data)
		}
		k.unlockPages(r, from, to)
		done(data, err)
	}
}
