package core

import (
	"github.com/tidwall/btree"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// op is one operation or read on its way to the server.
type op struct {
	id       meta.OpID // 0 until sent; a retry after errs.Again is a new operation
	body     meta.Op   // frozen once sent
	read     bool
	dropped  bool         // nobody wants it sent any longer
	canceled bool         // a SetLock whose caller is gone: CancelOp follows it
	forReq   bool         // a request waits for its reply, for Stats.Waits
	after    uint64       // the log must be executed up to here before it
	touched  *touched     // a change that has its knowledge blocked
	grants   []meta.Grant // of the reply, set before done runs
	pause    Time         // before the next attempt after errs.Again
	// done takes the outcome: exactly one of result and error. If the
	// operation is withdrawn before it is sent, withdrawn is called instead, if set.
	done      func(meta.Result, error)
	withdrawn func()
}

// ops is the exactly-once machinery. Ids grow; every frame of a stream is
// sent in the order of ids.
type ops struct {
	last      meta.OpID
	reads     []*op // wait for a stream
	changes   []*op // wait for a stream or the window
	flight    btree.Map[meta.OpID, *op]
	mutations int // in flight
	telling   int // changes that wait until the kernel has forgotten
	delayed   []delayedOp

	// Acknowledgements: replies that the client has and the server does not
	// yet know of, and those told in a frame whose arrival is not yet proven.
	acks    []meta.OpID
	ackAt   Time // when acks are told without a frame to ride on; 0 = none
	acking  []ackBatch
	carrier bool // a read that only carries acks is in flight
}

// ackBatch are acknowledgements told in the frame of operation with: any
// reply to it or to a later operation proves their arrival.
type ackBatch struct {
	with meta.OpID
	ids  []meta.OpID
}

type delayedOp struct {
	at Time
	op *op
}

func (c *Client) submit(o *op) {
	o.after = min(o.after, c.log.last) // of this session's log
	o.read = o.body.Kind().IsRead()
	if o.read {
		c.ops.reads = append(c.ops.reads, o)
	} else {
		c.ops.changes = append(c.ops.changes, o)
	}
}

// drop withdraws an operation that was not sent.
func (c *Client) drop(o *op) {
	o.dropped = true
	sweep(&c.ops.reads)
	sweep(&c.ops.changes)
	c.unblock(o)
	if o.withdrawn != nil {
		o.withdrawn()
	}
}

// sweep removes dropped operations at once: queues grow while no stream is up,
// and the operations of cancelled callers must not pile up then.
func sweep(q *[]*op) {
	kept := (*q)[:0]
	for _, o := range *q {
		if !o.dropped {
			kept = append(kept, o)
		}
	}
	clear((*q)[len(kept):])
	*q = kept
}

// unacknowledged counts the mutations that the server may hold a record of.
func (o *ops) unacknowledged() int {
	n := o.mutations + len(o.acks)
	for i := range o.acking {
		n += len(o.acking[i].ids)
	}
	return n
}

// pump sends what may be sent.
func (c *Client) pump() {
	if c.ses.phase != phaseReady {
		return
	}
	o := &c.ops
	if len(o.reads)+len(o.changes) > 0 {
		c.flushUnpins(true)
	}
	if len(o.reads) > 0 {
		reads := o.reads
		o.reads = nil
		for _, r := range reads {
			if r.after > c.log.sent {
				o.reads = append(o.reads, r) // behind what the log holds
				continue
			}
			c.launch(r)
		}
	}
	for len(o.changes) > 0 && o.unacknowledged() < meta.OpWindow-1 && o.changes[0].after <= c.log.sent {
		c.launch(shift(&o.changes))
	}
	if len(o.changes) > 0 && len(o.acks) > 0 {
		c.carryAcks()
	}
}

func shift[T any](q *[]T) T {
	var zero T
	x := (*q)[0]
	(*q)[0] = zero
	*q = (*q)[1:]
	return x
}

// launch sends an operation for the first time.
func (c *Client) launch(o *op) {
	c.ops.last++
	o.id = c.ops.last
	c.ops.flight.Set(o.id, o)
	if !o.read {
		c.ops.mutations++
	}
	c.sendOp(o)
}

func (c *Client) sendOp(o *op) {
	f := &meta.OpFrame{ID: o.id, After: o.after, Op: o.body}
	if n := min(len(c.ops.acks), meta.OpWindow); n > 0 {
		f.Acked = append([]meta.OpID(nil), c.ops.acks[:n]...)
		c.ops.acks = append([]meta.OpID(nil), c.ops.acks[n:]...)
		c.ops.acking = append(c.ops.acking, ackBatch{o.id, f.Acked})
		if len(c.ops.acks) == 0 {
			c.ops.ackAt = 0
		}
	}
	c.send(f)
}

// resend repeats everything unanswered on a new stream, in the first order
// and with the first ids.
func (c *Client) resend() {
	var again []*op
	c.ops.flight.Scan(func(_ meta.OpID, o *op) bool { again = append(again, o); return true })
	for _, o := range again {
		c.sendOp(o)
		if o.canceled {
			c.send(&meta.CancelOp{ID: o.id})
		}
	}
}

func (c *Client) opsStreamDown() {
	o := &c.ops
	var acks []meta.OpID
	for _, b := range o.acking {
		acks = append(acks, b.ids...)
	}
	o.acks, o.acking = append(acks, o.acks...), nil
	if len(o.acks) > 0 && o.ackAt == 0 {
		o.ackAt = c.now + ackDelay
	}
	c.interruptCanceled()
}

func (c *Client) reply(r *meta.Reply) {
	o, ok := c.ops.flight.Delete(r.ID)
	if !ok {
		return
	}
	if !o.read {
		c.ops.mutations--
		c.ops.acks = append(c.ops.acks, o.id)
		if c.ops.ackAt == 0 {
			c.ops.ackAt = c.now + ackDelay
		}
	}
	for len(c.ops.acking) > 0 && c.ops.acking[0].with <= o.id {
		shift(&c.ops.acking)
	}
	if o.forReq {
		c.stats.Waits++
	}
	c.granted(o, r.Grants)
	switch {
	case r.Outcome.Err != nil && (r.Outcome.Err.Kind == errs.Again || c.roomComes(o, r.Outcome.Err)):
		c.delay(o)
	case r.Outcome.Err != nil:
		o.done(nil, r.Outcome.Err)
	case r.Outcome.Result == nil:
		o.done(nil, errs.E("reply", errs.Corrupt, "reply without outcome", nil))
	default:
		o.done(r.Outcome.Result, nil)
	}
	c.reapLingering()
}

// roomComes reports whether the drive was full for an operation perhaps only
// because inodes that were removed here were not given back, or not long ago:
// who removes a file may make another.
func (c *Client) roomComes(o *op, err *errs.Error) bool {
	if err.Kind != errs.Quota || o.pause >= quotaDelay {
		return false
	}
	if len(c.pins.giveBack) > 0 || c.pins.given != 0 && c.now < c.pins.given+quotaDelay {
		return true
	}
	waits := false
	c.leases.table.Scan(func(ino meta.Ino, n *node) bool {
		p, _ := c.pins.table.Get(ino)
		waits = n.gone && p.kernel == 0 && p.replies > 0
		return !waits
	})
	return waits
}

// delay puts an operation that the server could not start yet aside. It was
// not executed and its id is spent, so it starts over with a new one.
func (c *Client) delay(o *op) {
	o.id = 0
	o.pause = min(max(2*o.pause, againDelay), maxDelay)
	d := delayedOp{c.now + o.pause, o}
	q := append(c.ops.delayed, d)
	for i := len(q) - 1; i > 0 && q[i-1].at > d.at; i-- {
		q[i-1], q[i] = q[i], q[i-1]
	}
	c.ops.delayed = q
}

func (c *Client) opsDue() {
	o := &c.ops
	for len(o.delayed) > 0 && o.delayed[0].at <= c.now {
		if d := shift(&o.delayed); !d.op.dropped {
			c.submit(d.op)
		}
	}
	if c.ses.phase == phaseReady && o.ackAt != 0 && o.ackAt <= c.now && len(o.acks) > 0 {
		c.carryAcks()
	}
}

// carryAcks tells acknowledgements by means of a read that is cheap and wanted
// for nothing else: no frame carries them alone.
func (c *Client) carryAcks() {
	if c.ops.carrier {
		c.ops.ackAt = c.now + ackDelay
		return
	}
	c.ops.carrier = true
	c.ops.ackAt = 0
	c.launch(&op{
		body: &meta.GetAttr{Ino: c.ses.root}, read: true,
		done: func(meta.Result, error) { c.ops.carrier = false },
	})
}

// oldest returns the smallest id in flight, or one beyond the last.
func (o *ops) oldest() meta.OpID {
	if id, _, ok := o.flight.Min(); ok {
		return id
	}
	return o.last + 1
}
