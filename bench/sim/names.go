package sim

import (
	"fmt"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"

	client_core "agentdrive/fuseclient/core"
)

// fewNames make clients meet each other.
const fewNames = 6

func nameOf(sel uint32) string { return fmt.Sprintf("f%d", sel%fewNames) }

// run carries out a request of the plan, if it means something now.
func (k *kernel) run(x Step) {
	if k.closing {
		return
	}
	switch {
	case x.Kind <= Link:
		k.names(x)
	case x.Kind <= RemoveXattr:
		k.attributes(x)
	case x.Kind <= StatFS:
		k.reads(x)
	default:
		k.files(x)
	}
}

// names issues what works on names, as Linux does: the directory's lock, a
// look at the name, the request.
func (k *kernel) names(x Step) {
	dir := k.pick(x.A, isDir)
	name := nameOf(x.B)
	switch x.Kind {
	case Lookup:
		k.stat(dir, name)
	case Create:
		k.make(dir, &meta.Make{Parent: dir.ino, Name: name, Mode: meta.ModeRegular | 0o644, Excl: x.C&1 == 0})
	case Mkdir:
		k.make(dir, &meta.Make{Parent: dir.ino, Name: name, Mode: meta.ModeDir | 0o755, Excl: true})
	case Symlink:
		k.make(dir, &meta.Make{Parent: dir.ino, Name: name, Mode: meta.ModeSymlink, Target: nameOf(x.C), Excl: true})
	case Unlink:
		k.remove(dir, name, &meta.Unlink{Parent: dir.ino, Name: name})
	case Rmdir:
		k.remove(dir, name, &meta.Rmdir{Parent: dir.ino, Name: name})
	case Rename:
		to := k.pick(x.C, isDir)
		flags := [...]uint32{0, 0, meta.RenameNoReplace, meta.RenameExchange}[x.C>>16&3]
		k.rename(dir, to, &meta.Rename{OldParent: dir.ino, OldName: name, NewParent: to.ino, NewName: nameOf(x.C >> 8), Flags: flags})
	case Link:
		if r := k.pick(x.C, func(r *ref) bool { return !isDir(r) }); r != nil {
			k.link(dir, r, &meta.Link{Ino: r.ino, Parent: dir.ino, Name: name})
		}
	}
}

// stat is stat(2).
func (k *kernel) stat(dir *ref, name string) {
	a := k.begin(dir)
	a.walk(dir, name, func(r *ref, err error) {
		if r == nil {
			a.end()
			return
		}
		a.getattr(r, func(*meta.Attr, error) { a.end() })
	})
}

// change sends a mutation and tells the history.
func (a *app) change(op meta.Op, done func(client_core.Answer), uses ...*ref) *call {
	k := a.k
	m := k.c.w.history.begins(k, op) // it may be answered at once
	x := k.issue(op, nil, uses...)
	x.done = func(ans client_core.Answer) {
		k.c.w.history.ends(m, ans)
		done(ans)
	}
	return x
}

// make is open(2) with O_CREAT, mkdir(2), symlink(2).
func (k *kernel) make(dir *ref, op *meta.Make) {
	a := k.begin(dir)
	key := dentry{op.Parent, op.Name}
	a.lockExcl(func() {
		a.walk(dir, op.Name, func(r *ref, err error) {
			if r != nil || err != nil {
				a.end()
				return
			}
			var x *call
			x = a.change(op, func(ans client_core.Answer) {
				k.drop(key)
				if e, ok := ans.Result.(*meta.EntryResult); ok {
					k.fill(&e.Attr, ans.Cache.Attr, 0)
					k.enter(key, e.Attr.Ino, ans.Cache.Entry, x.epoch)
					k.changed(dir)
					if !e.Created {
						k.c.w.history.name(a, key, e.Attr.Ino, x.inv, "open")
					}
				}
				if errs.Is(ans.Err, errs.Exist) {
					k.c.w.history.exists(a, key, x.inv, "make")
				}
				a.end()
			}, dir)
		})
	}, dir)
}

// remove is unlink(2) and rmdir(2).
func (k *kernel) remove(dir *ref, name string, op meta.Op) {
	a := k.begin(dir)
	key := dentry{dir.ino, name}
	_, file := op.(*meta.Unlink)
	a.lockExcl(func() {
		a.walk(dir, name, func(r *ref, err error) {
			if r == nil || isDir(r) == file {
				a.end()
				return
			}
			a.lockExcl(func() {
				var x *call
				x = a.change(op, func(ans client_core.Answer) {
					switch {
					case ans.Err == nil:
						k.drop(key)
						k.changed(dir)
						k.unlinked(r)
					case errs.Is(ans.Err, errs.NotExist):
						k.drop(key)
						k.c.w.history.name(a, key, 0, x.inv, "remove")
					case errs.Is(ans.Err, errs.Interrupted):
						k.drop(key)
					}
					a.end()
				}, dir, r)
			}, r)
		})
	}, dir)
}

// unlinked notes that the kernel took a name from an inode.
func (k *kernel) unlinked(r *ref) {
	k.version++
	r.version = k.version
	k.changed(r)
}

// rename is renameat2(2).
func (k *kernel) rename(from, to *ref, op *meta.Rename) {
	a := k.begin(from, to)
	a.lockExcl(func() {
		a.walk(from, op.OldName, func(r *ref, err error) {
			if r == nil {
				a.end()
				return
			}
			a.walk(to, op.NewName, func(over *ref, err error) {
				absent := over == nil
				if err != nil || !absent && op.Flags&meta.RenameNoReplace != 0 || absent && op.Flags&meta.RenameExchange != 0 ||
					r == over || r == to || over == from {
					a.end()
					return
				}
				k.c.w.data.order.asked(k.c, op, r.ino)
				if from != to && (isDir(r) || over != nil && isDir(over)) {
					// One may be above the other: Linux sees that and refuses. The
					// model, which does not, must not wait.
					a.tryExcl(r)
					a.tryExcl(over)
					a.renameLocked(from, to, r, over, op)
					return
				}
				a.lockExcl(func() { a.renameLocked(from, to, r, over, op) }, r, over)
			})
		})
	}, from, to)
}

// renameLocked sends the rename. The cached name moves, with what is left of
// its life.
func (a *app) renameLocked(from, to, r, over *ref, op *meta.Rename) {
	k := a.k
	src, dst := dentry{op.OldParent, op.OldName}, dentry{op.NewParent, op.NewName}
	var x *call
	x = a.change(op, func(ans client_core.Answer) {
		switch {
		case ans.Err == nil:
			k.moveDents(src, dst, op.Flags&meta.RenameExchange != 0)
			k.changed(from)
			k.changed(to)
			k.changed(r)
			if over != nil {
				if op.Flags&meta.RenameExchange == 0 {
					k.unlinked(over)
				}
				k.changed(over)
			}
		case errs.Is(ans.Err, errs.Interrupted) || errs.Is(ans.Err, errs.NotExist):
			k.drop(src)
			k.drop(dst)
		case errs.Is(ans.Err, errs.Exist):
			k.c.w.history.exists(a, dst, x.inv, "rename")
		}
		a.end()
	}, from, to)
}

func (k *kernel) moveDents(src, dst dentry, swap bool) {
	a, b := k.dents[src], k.dents[dst]
	k.drop(src)
	k.drop(dst)
	if a != nil {
		a.key = dst
		k.dents[dst] = a
	}
	if swap && b != nil {
		b.key = src
		k.dents[src] = b
	}
}

// link is link(2).
func (k *kernel) link(dir, r *ref, op *meta.Link) {
	a := k.begin(dir, r)
	key := dentry{op.Parent, op.Name}
	a.lockExcl(func() {
		a.walk(dir, op.Name, func(was *ref, err error) {
			if was != nil || err != nil {
				a.end()
				return
			}
			k.c.w.data.order.asked(k.c, op, r.ino)
			a.lockExcl(func() {
				var x *call
				x = a.change(op, func(ans client_core.Answer) {
					k.drop(key)
					if e, ok := ans.Result.(*meta.EntryResult); ok {
						k.fill(&e.Attr, ans.Cache.Attr, 0)
						k.enter(key, e.Attr.Ino, ans.Cache.Entry, x.epoch)
						k.changed(dir)
					}
					if errs.Is(ans.Err, errs.Exist) {
						k.c.w.history.exists(a, key, x.inv, "link")
					}
					a.end()
				}, r, dir)
			}, r)
		})
	}, dir)
}

// list is a getdents(2), or all of a listing.
func (k *kernel) list(dir *ref, limit uint32, plus, all bool) {
	a := k.begin(dir)
	a.page(dir, &meta.ReadDir{Dir: dir.ino, Limit: limit, Plus: plus}, all)
}

func (a *app) page(dir *ref, op *meta.ReadDir, all bool) {
	k := a.k
	a.lockShared(dir, func() {
		x := k.issue(op, nil, dir)
		x.done = func(ans client_core.Answer) {
			res, ok := ans.Result.(*meta.DirResult)
			if ok {
				a.listed(x, dir, op.Cookie, res)
				for i := range res.Entries {
					if res.Plus {
						k.linkPlus(x, dir, &res.Entries[i], lifeAt(ans.Lives, i))
					}
				}
			}
			a.unlockShared(dir)
			if !ok || !all || res.EOF || len(res.Entries) == 0 {
				a.end()
				return
			}
			next := *op
			next.Cookie = res.Entries[len(res.Entries)-1].Cookie
			a.page(dir, &next, all)
		}
	})
}

func lifeAt(list []client_core.Cache, i int) client_core.Cache {
	if i < len(list) {
		return list[i]
	}
	return client_core.Cache{}
}

// linkPlus takes an entry of READDIRPLUS into the caches. The name gets the
// epoch of the moment.
func (k *kernel) linkPlus(x *call, dir *ref, e *meta.DirEntry, c client_core.Cache) {
	key := dentry{dir.ino, e.Name}
	k.fill(&e.Attr, c.Attr, x.version)
	d := k.dents[key]
	if d != nil && d.ino == e.Attr.Ino {
		d.until, d.epoch = k.c.w.now+int64(c.Entry), k.epoch
		return
	}
	k.enter(key, e.Attr.Ino, c.Entry, k.epoch)
}

// listed tells the history what a page says: of the names in it, and of those
// that would have to be in it.
func (a *app) listed(x *call, dir *ref, after uint64, res *meta.DirResult) {
	h := a.k.c.w.history
	last := ^uint64(0)
	if !res.EOF && len(res.Entries) > 0 {
		last = res.Entries[len(res.Entries)-1].Cookie
	} else if !res.EOF {
		return
	}
	there := map[string]bool{}
	for i := range res.Entries {
		e := &res.Entries[i]
		there[e.Name] = true
		h.name(a, dentry{dir.ino, e.Name}, e.Attr.Ino, x.inv, "readdir")
		if res.Plus {
			h.attr(a, &e.Attr, x.inv, "readdirplus")
		}
	}
	for i := range uint32(fewNames) {
		name := nameOf(i)
		if c := meta.NameCookie(name); !there[name] && c > after && c <= last {
			h.name(a, dentry{dir.ino, name}, 0, x.inv, "readdir")
		}
	}
}
