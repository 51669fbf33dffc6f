package core

import (
	"math"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// Bounds of the log.
const (
	logDelay   = Time(50e6)  // records wait so long for company
	logBatch   = 256 << 10   // bytes of records in one frame, and that send it at once
	logRecords = 512         // records in one frame
	logStall   = Time(500e6) // a record unacknowledged for so long stops new local operations (P2)
	logMax     = 16 << 20    // bytes of records; more stop new local operations
)

// record is one delegated operation in the log. Its place is its seq; it is
// sent when it and all before it are ready. The operation of a record that is
// not ready may still be completed in place.
type record struct {
	seq   uint64
	now   int64
	op    meta.Op
	ready bool
	inos  []meta.Ino      // that it changes: they stay pinned until it is durable
	done  func(err error) // it is durable, or the session ended

	at    Time // when it was appended
	bytes int
	born  meta.Ino // Make: the server pins it when the record arrives
	dirs  []meta.Ino
}

// logbook is the log of the session: records in order, those before the first
// are durable.
type logbook struct {
	recs     []*record
	last     uint64 // seq of the last one appended
	acked    uint64 // durable up to here
	sent     uint64 // sent on this stream up to here
	bytes    int
	unsent   int    // bytes not sent on this stream
	flushAt  Time   // when what is not sent leaves; 0 = nothing waits
	want     uint64 // send at once up to here
	waiters  []logWaiter
	stalled  []*request // local operations that wait for the log to move
	resume   []func()   // how these go on
	poisoned bool       // the servers refused a record
}

type logWaiter struct {
	seq uint64
	req *request
	fn  func(err error)
}

// logAppend gives a record the next place in the log.
func (c *Client) logAppend(r *record) {
	l := &c.log
	l.last++
	r.seq, r.at, r.bytes = l.last, c.now, recordBytes(r.op)
	l.recs = append(l.recs, r)
	l.bytes += r.bytes
	l.unsent += r.bytes
	if l.flushAt == 0 {
		l.flushAt = c.now + logDelay
	}
	for _, ino := range r.inos {
		n := c.node(ino)
		n.seq, n.changed = r.seq, c.ops.last
	}
	if r.ready {
		c.emit(Logged{r.seq, meta.LogRecord{Now: r.now, Op: r.op}})
	}
}

// logReady says that a record may be sent: the blocks it names are durable.
func (c *Client) logReady(r *record) {
	r.ready = true
	n := recordBytes(r.op)
	c.log.bytes += n - r.bytes
	if r.seq > c.log.sent {
		c.log.unsent += n - r.bytes
	}
	r.bytes = n
	c.leases.progress++
	c.emit(Logged{r.seq, meta.LogRecord{Now: r.now, Op: r.op}})
}

// afterLog sends the log up to seq at once and calls fn when it is durable, or
// with the error that lost it.
func (c *Client) afterLog(seq uint64, r *request, fn func(err error)) {
	l := &c.log
	if seq <= l.acked {
		fn(nil)
		return
	}
	l.want = max(l.want, seq)
	l.waiters = append(l.waiters, logWaiter{seq, r, fn})
}

// logDone is the seq up to which the log is durable.
func (c *Client) logDone() uint64 { return c.log.acked }

// mayAppend reports whether a new local operation may begin, by the bounds of
// what a crash may lose.
func (c *Client) mayAppend() bool {
	l := &c.log
	return len(l.recs) == 0 || l.bytes < logMax && l.recs[0].at+logStall > c.now
}

// stall makes a local operation wait until the log moves.
func (c *Client) stall(r *request, fn func()) {
	c.log.stalled = append(c.log.stalled, r)
	c.log.resume = append(c.log.resume, fn)
	c.log.want = c.log.last
}

// unstall lets waiting operations go on, in order, as far as the bounds allow.
func (c *Client) unstall() {
	l := &c.log
	for len(l.stalled) > 0 && (c.mayAppend() || !c.valid()) {
		r, fn := shift(&l.stalled), shift(&l.resume)
		if !r.done {
			fn()
		}
	}
}

// pumpLog sends what is due: the longest prefix of records that are ready.
func (c *Client) pumpLog() {
	l := &c.log
	if c.ses.phase != phaseReady || l.poisoned || l.sent >= l.last {
		return
	}
	if c.now < l.flushAt && l.unsent < logBatch && l.want <= l.sent {
		return
	}
	if c.broken("log-reorder") {
		c.sendLogReversed()
		return
	}
	for c.sendLogFrame() {
	}
	if l.sent >= l.last {
		l.flushAt = 0
	} else {
		l.flushAt = c.now + logDelay
	}
}

// sendLogFrame sends one frame of records, and reports whether it could.
func (c *Client) sendLogFrame() bool {
	l := &c.log
	i := int(l.sent - l.acked)
	f := &meta.Log{First: l.sent + 1}
	size := 0
	for ; i < len(l.recs) && l.recs[i].ready && len(f.Records) < logRecords; i++ {
		r := l.recs[i]
		if size += r.bytes; size > logBatch && len(f.Records) > 0 {
			break
		}
		f.Records = append(f.Records, meta.LogRecord{Now: r.now, Op: r.op})
		c.recordLeaves(r)
	}
	if len(f.Records) == 0 {
		return false
	}
	c.send(f)
	return true
}

// recordLeaves follows a record into a frame.
func (c *Client) recordLeaves(r *record) {
	l := &c.log
	l.sent = r.seq
	l.unsent -= r.bytes
}

// sendLogReversed breaks the order of the log, for a test of the tests: two
// neighbours change places.
func (c *Client) sendLogReversed() {
	l := &c.log
	i := int(l.sent - l.acked)
	for j := i; j+1 < len(l.recs) && l.recs[j].ready && l.recs[j+1].ready; j += 2 {
		l.recs[j].op, l.recs[j+1].op = l.recs[j+1].op, l.recs[j].op
		l.recs[j].now, l.recs[j+1].now = l.recs[j+1].now, l.recs[j].now
	}
	for c.sendLogFrame() {
	}
	l.flushAt = c.now + logDelay
}

// logAck takes the servers' word on the log.
func (c *Client) logAck(a *meta.LogAck) {
	if a.Refused {
		c.logRefused(a)
		return
	}
	c.logDurable(a.Seq)
}

// logDurable ends the life of the records up to seq.
func (c *Client) logDurable(seq uint64) {
	l := &c.log
	if seq <= l.acked {
		return
	}
	c.leases.progress++
	for len(l.recs) > 0 && l.recs[0].seq <= seq {
		r := shift(&l.recs)
		l.acked = r.seq
		l.bytes -= r.bytes
		if r.seq > l.sent {
			c.recordLeaves(r)
		}
		if r.done != nil {
			r.done(nil)
		}
		for _, ino := range r.inos {
			if n := c.nodeOf(ino); n != nil && n.seq == r.seq {
				c.retire(n)
				c.tidy(n)
			}
			c.settlePin(ino)
		}
	}
	c.emit(LogGone{l.acked})
	c.fireLog(nil)
	c.unstall()
}

// fireLog calls those who waited for records that are durable, or with an
// error everybody.
func (c *Client) fireLog(err error) {
	l := &c.log
	var ready []logWaiter
	kept := l.waiters[:0]
	for _, w := range l.waiters {
		if err != nil || w.seq <= l.acked {
			ready = append(ready, w)
		} else {
			kept = append(kept, w)
		}
	}
	clear(l.waiters[len(kept):])
	l.waiters = kept
	for _, w := range ready {
		if w.req == nil || !w.req.done {
			w.fn(err)
		}
	}
}

// logRefused handles a record that the servers do not take: it and all behind
// it were not executed, and nothing that stands on them is true. The session
// is given up.
func (c *Client) logRefused(a *meta.LogAck) {
	if c.log.poisoned {
		return
	}
	c.logDurable(a.Seq)
	c.log.poisoned = true
	err := errs.E("log", errs.IO, "the servers refused a delegated operation", a.Err)
	c.say(c.ses.state(), err, "the servers refused delegated operations; the session starts over")
	c.send(&meta.Close{})
}

// logResume continues the log on a new stream of the same session.
func (c *Client) logResume(lastSeq uint64) {
	l := &c.log
	c.logDurable(min(lastSeq, l.last))
	l.sent, l.unsent = l.acked, l.bytes
	if len(l.recs) > 0 {
		l.flushAt = c.now // at once
	}
}

// lostLog is what a lost log means to people.
type lostLog struct{ records, dirs int }

// logLost drops the log: the session ended. Directories with lost operations
// remember it.
func (c *Client) logLost(err *errs.Error) (lost lostLog) {
	l := &c.log
	recs, waiters := l.recs, l.waiters
	stalled, resume := l.stalled, l.resume
	*l = logbook{waiters: waiters}
	c.emit(LogGone{math.MaxUint64})
	lost.records = len(recs)
	for _, r := range recs {
		for _, dir := range r.dirs {
			if n := c.node(dir); n.lost == nil {
				n.lost = err
				lost.dirs++
			}
		}
	}
	for _, r := range recs {
		if r.done != nil {
			r.done(err)
		}
		for _, ino := range r.inos {
			if f, ok := c.files.Get(ino); ok && f.handles > 0 {
				f.lost = err
			}
		}
	}
	c.fireLog(err)
	for i, r := range stalled {
		if !r.done {
			resume[i]()
		}
	}
	return lost
}

func (c *Client) logTimers(want func(Time)) {
	l := &c.log
	if c.ses.phase == phaseReady && !l.poisoned && l.sent < l.last && l.recs[l.sent-l.acked].ready {
		want(max(l.flushAt, c.now+1))
	}
}

// recordBytes estimates the encoded size of a record, rather too high.
func recordBytes(op meta.Op) int {
	const base = 96
	switch op := op.(type) {
	case *meta.Write:
		n := base + 100*len(op.Blocks)
		for i := range op.Extents {
			n += 56 + len(op.Extents[i].Inline)
		}
		return n
	case *meta.Make:
		return base + len(op.Name) + len(op.Target)
	case *meta.Link:
		return base + len(op.Name)
	case *meta.Unlink:
		return base + len(op.Name)
	case *meta.Rmdir:
		return base + len(op.Name)
	case *meta.Rename:
		return base + len(op.OldName) + len(op.NewName)
	case *meta.SetXattr:
		return base + len(op.Name) + len(op.Value)
	case *meta.RemoveXattr:
		return base + len(op.Name)
	}
	return base
}
