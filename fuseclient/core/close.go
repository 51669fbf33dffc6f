package core

import (
	"container/list"

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
