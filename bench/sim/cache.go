package sim

import (
	"slices"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"

	client_core "agentdrive/fuseclient/core"
)

// dent is a cached name. It may be out of the cache (not hashed) while a
// lookup that revalidates it is under way.
type dent struct {
	key   dentry
	ino   meta.Ino // 0: the name stands for nothing
	until int64
	epoch uint64
}

// page is the content of one unit of a file.
type page []byte

// cached returns what the kernel believes of a name, or nil.
func (k *kernel) cached(key dentry) *dent {
	d := k.dents[key]
	if d == nil || d.epoch != k.epoch || d.until <= k.c.w.now {
		return nil
	}
	return d
}

// enter caches a name.
func (k *kernel) enter(key dentry, ino meta.Ino, life client_core.Time, epoch uint64) {
	k.dents[key] = &dent{key: key, ino: ino, until: k.c.w.now + int64(life), epoch: epoch}
}

// drop takes a name out of the cache.
func (k *kernel) drop(key dentry) { delete(k.dents, key) }

// walk finds what a name stands for: in the cache, or by a LOOKUP. fn gets nil
// for an absent name. The inode stays in memory until the call ends.
func (a *app) walk(dir *ref, name string, fn func(r *ref, err error)) {
	k := a.k
	key := dentry{dir.ino, name}
	if d := k.cached(key); d != nil {
		k.c.w.history.name(a, key, d.ino, k.c.w.observe(), "cached")
		a.found(d.ino, fn)
		return
	}
	d := k.dents[key]
	switch {
	case d == nil:
		a.lookup(dir, key, fn)
	case d.ino != 0 && d.epoch == k.epoch && k.refs[d.ino] != nil:
		a.revalidate(dir, d, fn)
	default:
		k.drop(key)
		a.lookup(dir, key, fn)
	}
}

func (a *app) found(ino meta.Ino, fn func(r *ref, err error)) {
	if ino == 0 {
		fn(nil, nil)
		return
	}
	r := a.k.refs[ino]
	a.use(r)
	fn(r, nil)
}

// revalidate asks whether a name still stands for what it stood for. It takes
// no lock: the name may leave the cache meanwhile.
func (a *app) revalidate(dir *ref, d *dent, fn func(r *ref, err error)) {
	k, key := a.k, d.key // a rename may move it meanwhile
	a.use(k.refs[d.ino])
	x := k.issue(&meta.Lookup{Parent: dir.ino, Name: key.name}, nil, dir)
	x.done = func(ans client_core.Answer) {
		e, ok := ans.Result.(*meta.EntryResult)
		if ok {
			k.fill(&e.Attr, ans.Cache.Attr, x.version)
		}
		a.sawLookup(x, key, ans)
		if ok && e.Attr.Ino == d.ino {
			d.until = k.c.w.now + int64(ans.Cache.Entry)
			a.found(d.ino, fn)
			return
		}
		if k.dents[d.key] == d {
			k.drop(d.key)
		}
		if ans.Err != nil && !errs.Is(ans.Err, errs.NotExist) {
			fn(nil, ans.Err)
			return
		}
		a.lookup(dir, key, fn)
	}
}

// lookup asks for a name that is not in the cache, under the directory's lock.
// Two lookups of a name are one.
func (a *app) lookup(dir *ref, key dentry, fn func(r *ref, err error)) {
	if a.holds(dir) {
		a.lookupLocked(dir, key, fn)
		return
	}
	a.lockShared(dir, func() {
		a.lookupLocked(dir, key, func(r *ref, err error) {
			a.unlockShared(dir)
			fn(r, err)
		})
	})
}

func (a *app) lookupLocked(dir *ref, key dentry, fn func(r *ref, err error)) {
	k := a.k
	if waiting, open := k.looking[key]; open {
		k.looking[key] = append(waiting, func() { a.walk(dir, key.name, fn) })
		return
	}
	if k.cached(key) != nil {
		a.walk(dir, key.name, fn)
		return
	}
	k.looking[key] = nil
	x := k.issue(&meta.Lookup{Parent: dir.ino, Name: key.name}, nil, dir)
	x.done = func(ans client_core.Answer) {
		e, ok := ans.Result.(*meta.EntryResult)
		var ino meta.Ino
		if ok {
			ino = e.Attr.Ino
			k.fill(&e.Attr, ans.Cache.Attr, x.version)
		}
		a.sawLookup(x, key, ans)
		known := ok || errs.Is(ans.Err, errs.NotExist)
		if known {
			k.enter(key, ino, ans.Cache.Entry, x.epoch)
			a.found(ino, fn)
		} else {
			fn(nil, ans.Err)
		}
		waiting := k.looking[key]
		delete(k.looking, key)
		for _, next := range waiting {
			next()
		}
	}
}

// sawLookup tells the history what a LOOKUP said.
func (a *app) sawLookup(x *call, key dentry, ans client_core.Answer) {
	h := a.k.c.w.history
	switch e, ok := ans.Result.(*meta.EntryResult); {
	case ok:
		h.name(a, key, e.Attr.Ino, x.inv, "lookup")
		h.attr(a, &e.Attr, x.inv, "lookup")
	case errs.Is(ans.Err, errs.NotExist):
		h.name(a, key, 0, x.inv, "lookup")
	}
}

// fill takes attributes into the cache. version is that of the moment when the
// request was sent; what has changed since is newer. 0: without that check. An
// inode that the kernel has just met has nothing newer.
func (k *kernel) fill(attr *meta.Attr, life client_core.Time, version uint64) *ref {
	r := k.refs[attr.Ino]
	if version != 0 && r.version > version {
		if !k.c.w.leases {
			// Without leases this is all that tells of other clients' writes, and
			// Linux misses it here: a model that did so would find nothing else.
			k.dropPages(r, 0, ^uint32(0))
		}
		return r
	}
	k.version++
	r.version = k.version
	r.until = k.c.w.now + int64(life)
	old := r.attr
	r.attr = *attr
	if old.Ino != 0 && isFile(r) && (old.Size != attr.Size || old.Mtime != attr.Mtime) { // AUTO_INVAL_DATA
		k.dropPages(r, 0, ^uint32(0))
	}
	return r
}

// changed makes the kernel ask for attributes again: it changed the inode.
func (k *kernel) changed(r *ref) {
	if r != nil {
		r.until = 0
	}
}

// getattr is the part of a stat behind the name.
func (a *app) getattr(r *ref, fn func(attr *meta.Attr, err error)) {
	k := a.k
	if r.until > k.c.w.now {
		attr := r.attr
		k.c.w.history.attr(a, &attr, k.c.w.observe(), "cached")
		fn(&attr, nil)
		return
	}
	x := k.issue(&meta.GetAttr{Ino: r.ino}, nil, r)
	x.done = func(ans client_core.Answer) {
		res, ok := ans.Result.(*meta.AttrResult)
		if !ok {
			fn(nil, ans.Err)
			return
		}
		k.fill(&res.Attr, ans.Cache.Attr, x.version)
		k.c.w.history.attr(a, &res.Attr, x.inv, "getattr")
		fn(&res.Attr, nil)
	}
}

// dropPages forgets the pages of [off, end) that no request holds; those are
// dropped when they are let go.
func (k *kernel) dropPages(r *ref, off, end uint32) {
	for u := range r.pages { // any order
		if u >= off && u < end && r.locked[u] == 0 {
			delete(r.pages, u)
		}
	}
	for u := range r.locked {
		if u >= off && u < end {
			r.locked[u] |= pageStale
		}
	}
}

// pageStale marks a locked page that is to be dropped when unlocked.
const pageStale = 1 << 16

// lockPages waits until no page of [off, end) is locked and locks them.
func (k *kernel) lockPages(r *ref, off, end uint32, fn func()) {
	k.pagesFree(r, off, end, func() {
		if r.locked == nil {
			r.locked, r.pages = map[uint32]int{}, map[uint32]page{}
		}
		for u := off; u < end; u++ {
			r.locked[u] = 1
		}
		fn()
	})
}

// pagesFree waits until no page of [off, end) is locked.
func (k *kernel) pagesFree(r *ref, off, end uint32, fn func()) {
	for u := range r.locked {
		if u >= off && u < end {
			r.stuck = append(r.stuck, func() { k.pagesFree(r, off, end, fn) })
			return
		}
	}
	fn()
}

func (k *kernel) unlockPages(r *ref, off, end uint32) {
	for u := off; u < end; u++ {
		if r.locked[u]&pageStale != 0 {
			delete(r.pages, u)
		}
		delete(r.locked, u)
	}
	stuck := r.stuck
	r.stuck = nil
	for _, fn := range stuck {
		fn()
	}
}

// put makes content part of the page cache.
func (r *ref) put(off uint32, data []byte) {
	for i := 0; i < len(data); i += unit {
		r.pages[off+uint32(i/unit)] = page(slices.Clone(data[i:min(i+unit, len(data))]))
	}
}

// invalInode is FUSE_NOTIFY_INVAL_INODE: attributes, and the pages of [off,
// end) unless attr. It waits for pages that requests hold. false: ENOENT.
func (k *kernel) invalInode(ino meta.Ino, attr bool, off, end uint32, fn func(ok bool)) {
	r := k.refs[ino]
	if r == nil {
		fn(false)
		return
	}
	k.version++
	r.version = k.version
	r.until = 0
	if attr {
		fn(true)
		return
	}
	k.pagesFree(r, off, end, func() {
		k.dropPages(r, off, end)
		fn(true)
	})
}

// invalEntry is FUSE_NOTIFY_INVAL_ENTRY. It waits for the directory's lock.
func (k *kernel) invalEntry(key dentry, fn func()) {
	dir := k.refs[key.dir]
	if dir == nil {
		fn()
		return
	}
	dir.busy++
	dir.lock.lock(true, func() {
		if k.dents[key] != nil {
			k.drop(key)
			k.changed(dir)
		}
		k.c.w.after(0, func() { // the notification returns
			dir.busy--
			dir.lock.unlock(true)
			k.retryMulti()
			fn()
		})
	})
}

// incEpoch is FUSE_NOTIFY_INC_EPOCH.
func (k *kernel) incEpoch() { k.epoch++ }
