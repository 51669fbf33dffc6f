package core

import (
	"slices"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// put is one block on its way to the chunk servers and into a Write.
type put struct {
	token uint64
	data  []byte
	fact  meta.NewBlock
	done  func(err error) // durable or impossible; nil: nobody waits any more

	parts   []*part // whose data is in it; nil for one of an append
	started bool
	rec     *record // the Write in the log that brings the block, nil before

	write     *op // the Write that names the block, nil before
	index     int // of its fact in the Write
	published bool
	late      []chunk.ServerID // durable since the Write left
}

// puts is the queue of blocks to store; at most MaxPuts are under way.
type puts struct {
	last    uint64
	queue   []*put
	running int
	byToken map[uint64]*put // look-up only
}

func (c *Client) enqueuePut(p *put) { c.puts.queue = append(c.puts.queue, p) }

// startPuts begins what may begin. Blocks belong to the session, so without
// one they wait.
func (c *Client) startPuts() {
	q := &c.puts
	for len(q.queue) > 0 && q.running < c.cfg.MaxPuts && c.ses.id != 0 && c.ses.phase != phaseEnded {
		p := shift(&q.queue)
		if p.done == nil {
			continue
		}
		q.last++
		q.running++
		p.started = true
		p.token = q.last
		p.fact.ID = c.cfg.NewBlockID()
		p.fact.Len = uint32(len(p.data))
		q.byToken[p.token] = p
		c.emit(PutBlock{Token: p.token, ID: p.fact.ID, Owner: c.owner(), Data: p.data})
	}
}

// putEnded looks a block up whose storing ended one way or the other.
func (c *Client) putEnded(token uint64) *put {
	p := c.puts.byToken[token]
	if p == nil || p.fact.Acked != nil {
		return nil
	}
	c.puts.running--
	p.data = nil
	return p
}

func (c *Client) blockStored(ev BlockStored) {
	if len(ev.Acked) == 0 {
		c.blockFailed(BlockFailed{ev.Token, errs.E("block.put", errs.Unavailable, "no copy is durable", nil)})
		return
	}
	p := c.putEnded(ev.Token)
	if p == nil {
		return
	}
	p.fact.PG, p.fact.Epoch = ev.PG, ev.Epoch
	p.fact.Acked, p.fact.Missing = slices.Clone(ev.Acked), slices.Clone(ev.Missing)
	if len(ev.Missing) == 0 || p.done == nil {
		delete(c.puts.byToken, ev.Token)
	}
	if done := p.done; done != nil {
		p.done = nil
		done(nil)
	}
}

func (c *Client) blockFailed(ev BlockFailed) {
	p := c.putEnded(ev.Token)
	if p == nil {
		return
	}
	delete(c.puts.byToken, ev.Token)
	err := ev.Err
	if err == nil {
		err = errs.E("block.put", errs.IO, "block could not be stored", nil)
	}
	if done := p.done; done != nil {
		p.done = nil
		done(err)
	}
}

// name enters the block into a Write.
func (p *put) name(o *op, w *meta.Write) {
	p.write, p.index = o, len(w.Blocks)
	w.Blocks = append(w.Blocks, p.fact)
}

// forgetPut gives a block up whose data nobody wants any longer. A put under
// way still counts until it ends: the adapter holds its memory.
func (c *Client) forgetPut(p *put) {
	if p == nil {
		return
	}
	p.done = nil
	if !p.started || p.fact.Acked != nil {
		delete(c.puts.byToken, p.token)
	}
}

// forgetPuts gives all blocks up: they belong to an ended session.
func (c *Client) forgetPuts() {
	c.puts.queue = nil
	c.puts.running = 0
	clear(c.puts.byToken)
}
