package sim

// rwlock is the lock of an inode (i_rwsem): whoever waits is served in order.
type rwlock struct {
	readers int
	writer  bool
	queue   []lockWait
}

type lockWait struct {
	excl bool
	fn   func()
}

func (l *rwlock) free(excl bool) bool {
	return len(l.queue) == 0 && !l.writer && (!excl || l.readers == 0)
}

func (l *rwlock) take(excl bool) {
	if excl {
		l.writer = true
	} else {
		l.readers++
	}
}

// lock calls fn with the lock held: at once, or from a later unlock.
func (l *rwlock) lock(excl bool, fn func()) {
	if l.free(excl) {
		l.take(excl)
		fn()
		return
	}
	l.queue = append(l.queue, lockWait{excl, fn})
}

func (l *rwlock) unlock(excl bool) {
	if excl {
		l.writer = false
	} else {
		l.readers--
	}
	for len(l.queue) > 0 && !l.writer && (!l.queue[0].excl || l.readers == 0) {
		x := l.queue[0]
		l.queue = l.queue[1:]
		l.take(x.excl)
		x.fn()
	}
}

// multiLock waits for several locks at once, holding none of them: Linux
// orders them, which needs more knowledge of the tree than a model wants.
type multiLock struct {
	refs []*ref
	fn   func()
}

// app is one system call of an application.
type app struct {
	k     *kernel
	inv   stamp
	lost  int // sessions lost before
	uses  []*ref
	excl  []*ref // held exclusively
	share []*ref // held shared
}

// begin starts a system call that works on some inodes.
func (k *kernel) begin(uses ...*ref) *app {
	a := &app{k: k, inv: k.c.w.observe(), lost: k.c.lost}
	for _, r := range uses {
		a.use(r)
	}
	k.apps++
	return a
}

// use keeps an inode in memory until the call ends.
func (a *app) use(r *ref) {
	r.busy++
	a.uses = append(a.uses, r)
}

// end returns to the application.
func (a *app) end() {
	for _, r := range a.uses {
		r.busy--
	}
	a.k.apps--
	excl, share := a.excl, a.share
	a.excl, a.share = nil, nil
	for _, r := range share {
		r.lock.unlock(false)
	}
	for _, r := range excl {
		r.lock.unlock(true)
	}
	a.k.retryMulti()
}

// lockExcl takes the locks of inodes that the call does not hold yet.
func (a *app) lockExcl(fn func(), refs ...*ref) {
	m := &multiLock{}
	for _, r := range refs {
		if r != nil && !a.holds(r) && !contains(m.refs, r) {
			m.refs = append(m.refs, r)
		}
	}
	m.fn = func() {
		a.excl = append(a.excl, m.refs...)
		fn()
	}
	switch len(m.refs) {
	case 0:
		fn()
	case 1:
		m.refs[0].lock.lock(true, m.fn)
	default:
		a.k.multi = append(a.k.multi, m)
		a.k.retryMulti()
	}
}

// tryExcl takes a lock if it is free.
func (a *app) tryExcl(r *ref) {
	if r != nil && !a.holds(r) && r.lock.free(true) {
		r.lock.take(true)
		a.excl = append(a.excl, r)
	}
}

// retryMulti serves calls that wait for several locks.
func (k *kernel) retryMulti() {
	for i := 0; i < len(k.multi); i++ {
		m := k.multi[i]
		ok := true
		for _, r := range m.refs {
			ok = ok && r.lock.free(true)
		}
		if !ok {
			continue
		}
		k.multi = append(k.multi[:i:i], k.multi[i+1:]...)
		for _, r := range m.refs {
			r.lock.take(true)
		}
		m.fn()
		i = -1
	}
}

func (a *app) holds(r *ref) bool { return contains(a.excl, r) || contains(a.share, r) }

// lockShared takes a directory's lock shared.
func (a *app) lockShared(r *ref, fn func()) {
	r.lock.lock(false, func() {
		a.share = append(a.share, r)
		fn()
	})
}

// unlockShared gives it back.
func (a *app) unlockShared(r *ref) {
	for i, x := range a.share {
		if x == r {
			a.share = append(a.share[:i:i], a.share[i+1:]...)
			r.lock.unlock(false)
			a.k.retryMulti()
			return
		}
	}
}

func contains(list []*ref, r *ref) bool {
	for _, x := range list {
		if x == r {
			return true
		}
	}
	return false
}
