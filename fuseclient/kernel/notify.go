package kernel

import (
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"agentdrive/fuseclient/core"
	"agentdrive/metaserver/meta"
)

// Notifier is told by a Backend what the kernel shall forget. A Mount hands it
// to its Backend before the first request.
type Notifier interface {
	// Invalidate carries out an effect core.Invalidate. It is called under
	// the lock that orders it with Call.Answered, and does not block. done is
	// called once, on another goroutine, when the kernel believes nothing of
	// it any more; also when the connection ends.
	// Without items it only waits for the replies answered before.
	Invalidate(items []core.Inval, done func())
	// Barrier is closed when every reply answered so far is written; nil
	// means that there is none. It does not block. What a client tells the
	// servers of its own operations must not be ahead of what its kernel
	// tells the processes beside it.
	Barrier() <-chan struct{}
}

// Pauses between attempts at an inode that the kernel does not know yet, or
// whose FORGET has not arrived.
const (
	firstPause = 50 * time.Microsecond
	lastPause  = 10 * time.Millisecond
)

// note runs f on a goroutine that may use the device. It reports false, and
// runs nothing, when the connection is over.
func (c *conn) note(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return false
	}
	c.notes.Add(1)
	go func() {
		defer c.notes.Done()
		f()
	}()
	return true
}

// Invalidate implements Notifier.
func (c *conn) Invalidate(items []core.Inval, done func()) {
	o := c.led.issue(items)
	over := c.epochs.next()
	c.stats.invalidations.Inc()
	if !c.note(func() {
		c.carryOut(o, over)
		done()
	}) {
		go done()
	}
}

// Barrier implements Notifier.
func (c *conn) Barrier() <-chan struct{} { return c.led.barrier() }

// carryOut tells the kernel, once every reply answered before is written.
//
// Inodes and names are told beside each other, and the names of each directory
// by a goroutine of their own: a notification of a name waits for the
// directory's lock, which an own request may hold. It is not waited for any
// longer once over is closed, for a new epoch has begun: no name from before
// the order is believed then, and the notification ends by itself.
func (c *conn) carryOut(o *order, over <-chan struct{}) {
	select {
	case <-o.passed:
	case <-c.gone:
		return
	}
	var inodes []core.Inval
	var dirs []meta.Ino
	names := map[meta.Ino][]string{}
	epoch := false
	for _, it := range o.items {
		switch {
		case it.Epoch:
			epoch = true
		case it.Ino != 0:
			inodes = append(inodes, it)
		default:
			if names[it.Dir] == nil {
				dirs = append(dirs, it.Dir)
			}
			names[it.Dir] = append(names[it.Dir], it.Name)
		}
	}
	told := make([]*naming, 0, len(dirs))
	for _, d := range dirs {
		n := &naming{done: make(chan struct{})}
		if c.note(func() {
			defer close(n.done)
			c.invalNames(d, names[d], over, n)
		}) {
			told = append(told, n)
		}
	}
	if epoch {
		c.newEpoch()
	}
	for _, it := range inodes {
		if it.Attr {
			c.invalInode(it.Ino, nil)
		} else {
			c.dropPages(it.Ino, []span{rangeOf(it)}, nil)
		}
	}
	for _, n := range told {
		c.awaitNames(n, over)
	}
}

// naming is the telling of names of one directory.
type naming struct {
	done   chan struct{}
	thread atomic.Int64 // that does it
}

// hangsAfter is how long a notification of a name may wait for the directory's
// lock before the names are dropped by a new epoch instead.
const hangsAfter = 5 * time.Millisecond

// awaitNames waits until names are told, or dropped by an epoch. If the telling
// hangs, an own request may hold the directory's lock, and wait at the servers
// for this very order: nobody can know which directories an RMDIR or RENAME
// has locked besides those that it names. So a new epoch is begun here, even
// if the core did not see that it must.
func (c *conn) awaitNames(n *naming, over <-chan struct{}) {
	t := time.NewTicker(hangsAfter)
	defer t.Stop()
	for hung := 0; ; {
		select {
		case <-n.done:
			return
		case <-over:
			return
		case <-c.gone:
			return
		case <-t.C:
		}
		if hung++; !sleepsInKernel(n.thread.Load()) {
			hung = 0
		}
		if hung > 1 && c.hasEpoch {
			c.stats.hung.Inc()
			c.newEpoch() // closes over
		}
	}
}

// rangeOf tells which pages an item means.
func rangeOf(it core.Inval) span {
	if it.Len == 0 {
		return span{it.Off &^ (pageSize - 1), endless}
	}
	return pages(it.Off, it.Len)
}

// invalNames makes the kernel forget names of a directory, plainly: a name
// that is merely expired comes back with the reply to a LOOKUP under way.
func (c *conn) invalNames(dir meta.Ino, names []string, over <-chan struct{}, as *naming) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	as.thread.Store(int64(unix.Gettid()))
	for i, n := range names {
		if i > 0 {
			select {
			case <-over: // the rest is forgotten already
				return
			default:
			}
		}
		c.tell(invalEntryMessage(c.node(dir), n), syscall.ENOTDIR)
	}
}

// invalInode makes the kernel forget attributes and, unless pages is nil,
// those pages. ENOENT does not end it while references are counted: then a
// reply that gives one is being applied, or its FORGET is on the way.
func (c *conn) invalInode(ino meta.Ino, pages *span) {
	node := c.node(ino)
	msg := invalInodeMessage(node, pages)
	for pause := firstPause; !c.tell(msg) && c.nodes.lookups(node) > 0; pause = min(2*pause, lastPause) {
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-c.gone:
			t.Stop()
			return
		}
	}
}

// Bounds of the wait for listings that are being applied.
const (
	listingPoll  = 2 * time.Millisecond
	listingGuess = 20 * time.Millisecond  // in which a thread that can run applies one
	listingWait  = 250 * time.Millisecond // for one that gets no processor
)

// newEpoch makes the kernel look up every name again. Requests under way keep
// the epoch in which they began, but for READDIRPLUS: its names take the epoch
// of the moment when the kernel applies the reply. So if there were listings
// lately a second epoch follows when they are applied.
func (c *conn) newEpoch() {
	if !c.hasEpoch {
		c.log.Warn("fuse: names cannot be dropped at once on this kernel; they end with their lifetimes")
		return
	}
	c.tell(notification(notifyIncEpoch))
	if dirs := c.epochs.listings(); len(dirs) > 0 {
		for d, threads := range dirs {
			c.settleListing(d, threads)
		}
		c.tell(notification(notifyIncEpoch))
	}
	c.epochs.advance()
}

// settleListing waits until no reply to READDIRPLUS of a directory is being
// applied. The kernel holds the directory's lock meanwhile, so a notification
// of a name that cannot exist tells when it is over; and so does an own request
// that has the lock for itself. Locks of others (a LOOKUP may share this one, a
// RMDIR have it without naming it) can make this wait for nothing: there is a
// bound, a longer one while a thread that asked waits for a processor.
func (c *conn) settleListing(dir uint64, threads []uint32) {
	free := make(chan struct{})
	if !c.note(func() {
		defer close(free)
		c.tell(invalEntryMessage(dir, "/"), syscall.ENOTDIR)
	}) {
		return
	}
	t := time.NewTicker(listingPoll)
	defer t.Stop()
	for start := time.Now(); !c.ownsLock(dir); {
		if waited := time.Since(start); waited > c.listingWait ||
			waited > listingGuess && !slices.ContainsFunc(threads, wantsProcessor) {
			return
		}
		select {
		case <-free:
			return
		case <-c.gone:
			return
		case <-t.C:
		}
	}
}

// ownsLock reports whether a request without an answer holds the lock of a
// directory for itself.
func (c *conn) ownsLock(dir uint64) bool {
	var open []*Call
	c.mu.Lock()
	for _, r := range c.calls {
		if r.op < opCount && locksDir[r.op] && (r.node == dir || r.dir == dir) {
			open = append(open, &r.call)
		}
	}
	c.mu.Unlock()
	return slices.ContainsFunc(open, c.led.unanswered)
}

// tell writes a notification. It reports false when the kernel knows nothing
// of its object. Whatever is refused otherwise, but for what is allowed, is a
// fault that leaves the kernel with old beliefs: it is logged.
func (c *conn) tell(msg []byte, allowed ...syscall.Errno) bool {
	c.stats.notifications.Inc()
	for {
		_, err := unix.Write(c.dev.fd, msg)
		switch {
		case err == nil:
			return true
		case errors.Is(err, syscall.EINTR), errors.Is(err, syscall.EAGAIN):
			continue
		case errors.Is(err, syscall.ENOENT):
			return false
		case errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENOTCONN), c.isDead():
			return true // the connection is over, and its caches with it
		}
		for _, a := range allowed {
			if errors.Is(err, a) {
				return true
			}
		}
		c.log.Error("fuse: notification refused by the kernel", "bytes", len(msg), "err", err)
		return true
	}
}

// epochs tells when the next epoch begins, and what may slip through.
type epochs struct {
	mu     sync.Mutex // guards the fields below; leaf
	ch     chan struct{}
	listed map[listing]time.Time // READDIRPLUS replies, by when they were written
}

// listing is a reply to READDIRPLUS of a directory, to a thread.
type listing struct {
	dir    uint64
	thread uint32
}

// recentListing is how long a reply to READDIRPLUS takes to be applied at most.
const recentListing = 10 * time.Second

// list notes that a reply to READDIRPLUS is being written.
func (e *epochs) list(l listing) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	if e.listed == nil {
		e.listed = map[listing]time.Time{}
	}
	e.listed[l] = now
	if len(e.listed) > 64 {
		for x, at := range e.listed {
			if now.Sub(at) > recentListing {
				delete(e.listed, x)
			}
		}
	}
}

// listings returns the directories of recent replies, and who asked.
func (e *epochs) listings() map[uint64][]uint32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	dirs := map[uint64][]uint32{}
	for l, at := range e.listed {
		if time.Since(at) <= recentListing {
			dirs[l.dir] = append(dirs[l.dir], l.thread)
		}
	}
	clear(e.listed)
	return dirs
}

// next is closed when an epoch begins after the call.
func (e *epochs) next() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ch == nil {
		e.ch = make(chan struct{})
	}
	return e.ch
}

func (e *epochs) advance() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ch != nil {
		close(e.ch)
		e.ch = nil
	}
}

// probeEpoch finds out whether the kernel has FUSE_NOTIFY_INC_EPOCH; it does
// no harm where nothing is cached.
func (c *conn) probeEpoch() {
	_, err := unix.Write(c.dev.fd, notification(notifyIncEpoch))
	c.hasEpoch = err == nil
	if c.noEntries = HasIncEpoch() && !c.hasEpoch; c.noEntries {
		c.log.Warn("fuse: the kernel lacks what its release promises; names are not cached", "err", err)
	}
}

// HasIncEpoch reports whether this kernel can drop all names of a mount at
// once (FUSE_NOTIFY_INC_EPOCH, Linux 6.16), as core.Config.IncEpoch wants to
// know before there is a mount.
func HasIncEpoch() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	return newEnough(unix.ByteSliceToString(u.Release[:]))
}

// newEnough reads a kernel release like "6.18.44-generic".
func newEnough(release string) bool {
	var v [2]int
	for i := range v {
		n := 0
		for len(release) > 0 && release[0] >= '0' && release[0] <= '9' {
			n, release = n*10+int(release[0]-'0'), release[1:]
		}
		v[i] = n
		if i == 0 {
			if len(release) == 0 || release[0] != '.' {
				return false
			}
			release = release[1:]
		}
	}
	return v[0] > 6 || v[0] == 6 && v[1] >= 16
}
