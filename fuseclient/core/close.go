package core

import (
	"container/list"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// finishShutdown moves a Shutdown on: publish, let everything sent come back,
// close the session. A cancelled Shutdown goes on: the data is worth it.
func (c *Client) finishShutdown() {
	s := &c.ses
	if c.shutdown == nil || s.phase == phaseEnded || s.closeSent {
		return
	}
	for _, ino := range c.dirtyInos() {
		f, _ := c.files.Get(ino)
		if c.takeAll(f); !c.cfg.NoLeases {
			c.placeAll(f)
		}
	}
	c.log.want = c.log.last
	c.startPuts()
	c.pumpAll()
	if c.buf.held > 0 || c.changing() || len(c.log.recs) > 0 {
		return
	}
	switch {
	case s.id == 0:
		// Nothing was ever done, or all was lost: no session to close. One
		// that Open is making right now expires by itself.
		c.emit(Disconnect{Stream: s.stream})
		c.end(nil)
	case s.phase == phaseReady:
		s.closeSent = true
		c.send(&meta.Close{})
	}
}

// changing reports whether a mutation is queued, in flight or delayed, or a
// write waits.
func (c *Client) changing() bool {
	o := &c.ops
	if len(o.changes) > 0 || o.mutations > 0 || len(o.delayed) > 0 || o.telling > 0 {
		return true
	}
	busy := false
	c.files.Scan(func(_ meta.Ino, f *file) bool {
		busy = len(f.appends) > 0
		return !busy
	})
	c.reqs.Scan(func(_ ReqID, r *request) bool {
		busy = busy || r.write != nil
		return !busy
	})
	return busy
}

// dropEverything answers all requests and forgets all state.
func (c *Client) dropEverything(err error) {
	var open []*request
	c.reqs.Scan(func(_ ReqID, r *request) bool { open = append(open, r); return true })
	for _, r := range open {
		if r == c.shutdown {
			continue
		}
		c.answer(r, nil, err)
	}
	if r := c.shutdown; r != nil {
		c.answer(r, &meta.EmptyResult{}, c.stopErr)
		c.shutdown = nil
	}
	c.ops.flight.Clear()
	c.ops = ops{last: c.ops.last}
	c.leases.init()
	c.log = logbook{}
	c.pins = pins{}
	c.files.Clear()
	c.buf = buffers{aged: list.New(), queue: list.New()}
	c.maps = maps{lru: list.New()}
	c.puts.queue, c.puts.running = nil, 0
	clear(c.puts.byToken)
	c.late = late{}
	c.names.init()
	c.names.ring, c.names.next = nil, 0
}

// CheckInvariants compares what the client counts with what it holds. It is
// for tests and simulators; an error is a bug.
func (c *Client) CheckInvariants() error {
	var held, untaken, parts int
	bad := ""
	c.files.Scan(func(ino meta.Ino, f *file) bool {
		held += f.dirty.cost()
		untaken += f.dirty.cost()
		for i, p := range f.parts {
			held += p.cost
			parts++
			if i > 0 && f.parts[i-1].no >= p.no {
				bad = "parts out of order"
			}
		}
		for _, p := range f.shadows {
			held += p.cost
		}
		if (f.aged != nil) != (f.dirty.bytes > 0) {
			bad = "a file's age and its data disagree"
		}
		if len(f.parts) == 0 && (len(f.waiters) > 0 || f.pending != 0) {
			bad = "somebody waits for nothing"
		}
		if len(f.shadows) > 0 && f.reads == 0 {
			bad = "shadows without reads"
		}
		return true
	})
	mutations := 0
	c.ops.flight.Scan(func(id meta.OpID, o *op) bool {
		if !o.read {
			mutations++
		}
		if o.id != id {
			bad = "operation under a wrong id"
		}
		return true
	})
	c.pins.table.Scan(func(_ meta.Ino, p pin) bool {
		if p.replies == 0 {
			bad = "pin without a reply"
		}
		return true
	})
	switch {
	case bad != "":
	case held != c.buf.held || untaken != c.buf.untaken || parts != c.buf.parts:
		bad = "buffer accounts are wrong"
	case mutations != c.ops.mutations:
		bad = "mutations in flight are miscounted"
	case c.ops.mutations >= meta.OpWindow:
		bad = "more mutations in flight than the window"
	case c.puts.running > c.cfg.MaxPuts || c.puts.running < 0:
		bad = "blocks under way are miscounted"
	default:
		return nil
	}
	return errs.E("core.invariant", errs.Other, bad, nil)
}
