package core

import (
	"slices"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

const (
	lateBatch = 256  // copies in one LateAck
	maxLate   = 4096 // published blocks whose missing copies are still watched
)

// late tells the servers of copies that became durable after their block was
// published. It is an economy: what it loses, repair finds.
type late struct {
	watched []*put // published with copies missing, oldest first
	copies  []meta.BlockCopy
	flushAt Time
}

func (c *Client) blockLate(ev BlockLate) {
	p := c.puts.byToken[ev.Token]
	if p == nil {
		return
	}
	i := slices.Index(p.fact.Missing, ev.Server)
	if i < 0 {
		return
	}
	// Copies: operations and records share the slices, and may be on their way.
	p.fact.Missing = slices.Delete(slices.Clone(p.fact.Missing), i, i+1)
	p.fact.Acked = append(slices.Clone(p.fact.Acked), ev.Server)
	switch {
	case p.published:
		c.tellLate(p.fact.ID, ev.Server)
	case p.rec != nil && p.rec.ready, p.write != nil && p.write.id != 0:
		p.late = append(p.late, ev.Server)
	case p.write != nil: // not sent yet: it may still say so itself
		p.write.body.(*meta.Write).Blocks[p.index] = p.fact
	}
	if len(p.fact.Missing) == 0 && p.published {
		delete(c.puts.byToken, ev.Token)
	}
}

// latePublished follows the answer to the Write that names the block.
func (c *Client) latePublished(p *put) {
	p.published = true
	p.write = nil
	for _, s := range p.late {
		c.tellLate(p.fact.ID, s)
	}
	p.late = nil
	if len(p.fact.Missing) == 0 {
		delete(c.puts.byToken, p.token)
		return
	}
	l := &c.late
	l.watched = slices.DeleteFunc(append(l.watched, p), func(p *put) bool { return len(p.fact.Missing) == 0 })
	if len(l.watched) > maxLate {
		delete(c.puts.byToken, shift(&l.watched).token)
	}
}

func (c *Client) tellLate(id chunk.BlockID, s chunk.ServerID) {
	l := &c.late
	l.copies = append(l.copies, meta.BlockCopy{ID: id, Server: s})
	if l.flushAt == 0 {
		l.flushAt = c.now + lateDelay
	}
}

func (c *Client) lateDue() {
	l := &c.late
	for len(l.copies) >= lateBatch || len(l.copies) > 0 && c.now >= l.flushAt && c.ses.phase == phaseReady {
		n := min(len(l.copies), lateBatch)
		c.submit(&op{body: &meta.LateAck{Copies: l.copies[:n:n]}, done: func(_ meta.Result, err error) {
			if err != nil {
				c.say(c.ses.state(), errs.E("lateack", errs.Other, "", err), "late copies not recorded; repair will find them")
			}
		}})
		l.copies = l.copies[n:]
	}
	if len(l.copies) == 0 {
		l.copies, l.flushAt = nil, 0
	}
}
