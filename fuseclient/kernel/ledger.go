package kernel

import (
	"sync"
	"sync/atomic"
	"time"

	"agentdrive/fuseclient/core"
	"agentdrive/metaserver/meta"
)

// ledger keeps the order of answers and invalidations of one connection, which
// the kernel does not keep: a notification that overtakes a reply leaves what
// the reply says in the kernel's caches for its whole lifetime.
type ledger struct {
	// mu guards everything below and the marked fields of Call. A leaf,
	// taken under the Backend's lock.
	mu          sync.Mutex
	clock       uint64 // numbers answers and invalidations in their order
	first, last *Call  // answered, reply not yet written; ascending seq
	orders      []*order
	lastOrder   uint64
	files       map[meta.Ino]*fileState

	// busy counts orders and files with drops: while it is 0 a reply needs no
	// check. It is read without mu; an order that comes later waits for the
	// reply.
	busy atomic.Int64
}

// order is an invalidation that waits for replies answered before it.
type order struct {
	seq    uint64
	items  []core.Inval
	passed chan struct{} // closed when they are written
}

func newLedger() *ledger { return &ledger{files: map[meta.Ino]*fileState{}} }

// begin takes back the answer of a call that asks once more.
func (l *ledger) begin(c *Call) {
	if c.seq == 0 { // only this goroutine and the Backend's answer write it
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.since == 0 {
		c.since = c.seq
	}
	c.seq = 0
	l.unlist(c)
}

// answered enters an answer.
func (l *ledger) answered(c *Call, a *core.Answer, keep bool) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock++
	c.seq, c.at = l.clock, now
	if ino, s, ok := leaves(c.op, a); ok && !keep && c.drop == nil {
		c.drop = l.promise(ino, s)
	}
	// READ is not waited for: its bytes may have to be fetched first. What it
	// leaves are pages, and the kernel orders those itself: they are locked
	// until the reply is applied, and an invalidation waits for that.
	if c.loose {
		return
	}
	c.listed, c.prev = true, l.last
	if l.last != nil {
		l.last.next = c
	} else {
		l.first = c
	}
	l.last = c
}

func (l *ledger) unlist(c *Call) {
	if !c.listed {
		return
	}
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		l.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		l.last = c.prev
	}
	c.listed, c.prev, c.next = false, nil, nil
	n := 0
	for n < len(l.orders) && (l.first == nil || l.first.seq > l.orders[n].seq) {
		close(l.orders[n].passed)
		n++
	}
	if n > 0 {
		l.orders = append([]*order(nil), l.orders[n:]...)
		l.busy.Add(-int64(n))
	}
}

// written says that the reply of a call is with the kernel, or will never be.
// The drop returned, if any, is to be made due.
func (l *ledger) written(c *Call) *drop {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unlist(c)
	d := c.drop
	c.drop = nil
	return d
}

// issue enters an invalidation.
func (l *ledger) issue(items []core.Inval) *order {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock++
	if len(items) > 0 {
		l.lastOrder = l.clock
	}
	o := &order{seq: l.clock, items: items, passed: make(chan struct{})}
	if l.first == nil {
		close(o.passed)
		return o
	}
	l.orders = append(l.orders, o)
	l.busy.Add(1)
	return o
}

// barrier is closed when every reply answered so far is written; nil if there
// is none.
func (l *ledger) barrier() <-chan struct{} {
	l.mu.Lock()
	clear := l.first == nil
	l.mu.Unlock()
	if clear {
		return nil
	}
	return l.issue(nil).passed
}

func (l *ledger) unanswered(c *Call) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return c.seq == 0
}

// overtaken reports whether any invalidation came after the call's (first)
// answer.
func (l *ledger) overtaken(c *Call) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	seq := c.seq
	if c.since != 0 {
		seq = c.since
	}
	return seq != 0 && l.lastOrder > seq
}

// lateReply is how late the writing of a reply may be without being taken off
// its lifetimes; far below the margin that they have (C3).
const lateReply = time.Millisecond

// censor takes the lifetimes out of a reply that an invalidation has overtaken
// (C1). It looks only at what the invalidation names, and at inodes whose
// pages are about to be dropped (C6): a lifetime for their attributes would
// let reads pass without asking.
func (l *ledger) censor(c *Call, h header, in, reply []byte, ino func(uint64) meta.Ino) {
	if c.seq == 0 {
		return
	}
	// A lifetime counts from the answer (C3), however long this process was
	// stopped since.
	if late := time.Since(c.at); late >= lateReply {
		eachLife(h, in, reply, func(v life) {
			v.entry.shorten(late)
			v.attr.shorten(late)
		})
	}
	if c.since == 0 && l.busy.Load() == 0 {
		return
	}
	all := c.since != 0 && l.overtaken(c)
	l.mu.Lock()
	defer l.mu.Unlock()
	eachLife(h, in, reply, func(v life) {
		entry, attr := all, all
		if !all {
			entry, attr = l.hits(c.seq, ino(v.dir), string(v.name), ino(v.node))
		}
		if f := l.files[ino(v.node)]; v.node != 0 && f != nil && len(f.drops) > 0 {
			attr = true
		}
		if entry {
			v.entry.clear()
		}
		if attr {
			v.attr.clear()
		}
	})
}

// refilled makes sure that the kernel forgets a range after the reply.
func (l *ledger) refilled(c *Call, ino meta.Ino, s span) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.drop == nil {
		c.drop = l.promise(ino, s)
	}
}

// distrust makes sure that the pages of a READ that an invalidation has
// overtaken are dropped, whatever the answer said.
func (l *ledger) distrust(c *Call, r core.ReadFile) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.drop == nil && c.seq != 0 && l.lastOrder > c.seq && r.Len > 0 {
		c.drop = l.promise(r.Ino, pages(r.Off, uint64(r.Len)))
	}
}

// hits tells whether an invalidation after seq names the entry, or the inode.
func (l *ledger) hits(seq uint64, dir meta.Ino, name string, ino meta.Ino) (entry, attr bool) {
	for _, o := range l.orders {
		if o.seq < seq {
			continue
		}
		for i := range o.items {
			switch it := &o.items[i]; {
			case it.Epoch:
				entry = true
			case it.Ino != 0:
				attr = attr || it.Ino == ino
			case it.Dir == dir:
				entry = entry || it.Name == name
			}
		}
	}
	return entry, attr
}
