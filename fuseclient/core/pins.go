package core

import (
	"github.com/tidwall/btree"

	"agentdrive/metaserver/meta"
)

const (
	pinsPerReclaim = 4096
	pinsPerUnpin   = 1024
)

// pin counts one inode from both sides: the kernel's references, which FORGET
// takes back one by one, and the entry replies that the server counts on this
// stream, which Unpin gives back all at once when the kernel's are gone.
type pin struct {
	kernel  uint64
	replies uint32
}

// pins is the table of inodes that the kernel may name.
type pins struct {
	table btree.Map[meta.Ino, pin]
	// declared: the server counts for this session on this stream, so that
	// changes must be told. Before, Reclaim will tell the whole truth.
	declared bool
	giveBack []meta.Pin
	flushAt  Time
	given    Time // when something was given back last
}

// pinned notes an entry reply.
func (c *Client) pinned(ino meta.Ino, delivered bool) {
	p, _ := c.pins.table.Get(ino)
	p.replies++
	if delivered {
		p.kernel++
	}
	c.pins.table.Set(ino, p)
	if p.kernel == 0 {
		c.settlePin(ino)
	}
}

// pinLocal notes an entry that the table answered; the servers pin the inode
// already.
func (c *Client) pinLocal(ino meta.Ino) {
	p, _ := c.pins.table.Get(ino)
	p.kernel++
	c.pins.table.Set(ino, p)
}

func (c *Client) forget(ino meta.Ino, n uint64) {
	p, ok := c.pins.table.Get(ino)
	if !ok {
		return
	}
	p.kernel -= min(p.kernel, n)
	c.pins.table.Set(ino, p)
	if p.kernel == 0 {
		c.forgotten(ino)
		c.settlePin(ino)
	}
}

// settlePin gives an inode's pin back if neither the kernel nor unpublished
// data needs it.
func (c *Client) settlePin(ino meta.Ino) {
	p, ok := c.pins.table.Get(ino)
	if !ok || p.kernel != 0 {
		return
	}
	if f, ok := c.files.Get(ino); ok && f.inUse() {
		return
	}
	if n := c.nodeOf(ino); n != nil && (n.lease > meta.LeaseNone || n.seq > c.log.acked) {
		c.retire(n)
		return // answers from the table give references that the servers must know of
	}
	c.pins.table.Delete(ino)
	if !c.pins.declared || p.replies == 0 {
		return
	}
	c.pins.giveBack = append(c.pins.giveBack, meta.Pin{Ino: ino, Count: p.replies})
	if c.pins.flushAt == 0 {
		c.pins.flushAt = c.now + unpinDelay
	}
}

// flushUnpins sends what is to be given back: when it is time, when a frame
// is full, or (now) because another frame goes out anyway.
func (c *Client) flushUnpins(now bool) {
	p := &c.pins
	if c.ses.phase != phaseReady || len(p.giveBack) == 0 {
		return
	}
	due := now || c.now >= p.flushAt
	for len(p.giveBack) >= pinsPerUnpin || due && len(p.giveBack) > 0 {
		n := min(len(p.giveBack), pinsPerUnpin)
		c.send(&meta.Unpin{Pins: p.giveBack[:n:n]})
		p.giveBack = p.giveBack[n:]
		p.given = c.now
	}
	if len(p.giveBack) == 0 {
		p.giveBack, p.flushAt = nil, 0
	}
}

// pinsStreamDown forgets what was to be told: the next Reclaim includes it.
func (c *Client) pinsStreamDown() {
	c.pins.declared = false
	c.pins.giveBack, c.pins.flushAt = nil, 0
}

// reclaim declares all pins on a new stream. The counts declared are those
// kept here: the server starts from exactly them.
func (c *Client) reclaim() {
	c.pins.declared = true
	frame := &meta.Reclaim{}
	c.pins.table.Scan(func(ino meta.Ino, p pin) bool {
		if len(frame.Pins) == pinsPerReclaim {
			c.send(frame)
			frame = &meta.Reclaim{}
		}
		if k := c.resentMakes(ino); k < p.replies {
			frame.Pins = append(frame.Pins, meta.Pin{Ino: ino, Count: p.replies - k})
		}
		return true
	})
	frame = c.reclaimLocks(c.reclaimLeases(frame))
	c.ops.flight.Scan(func(id meta.OpID, o *op) bool {
		if !o.read {
			frame.Open = append(frame.Open, id)
		}
		return true
	})
	frame.Last = true
	c.send(frame)
}

// reclaimFresh follows the Welcome of a new session: the first has nothing to
// declare, one after an eviction has the kernel's references.
func (c *Client) reclaimFresh() {
	if c.pins.table.Len() == 0 {
		c.pins.declared = true
		return
	}
	c.reclaim()
}

// resentMakes is how many pins of an inode the servers count when they meet the
// log again.
func (c *Client) resentMakes(ino meta.Ino) uint32 {
	if n := c.nodeOf(ino); n != nil && n.born > c.log.acked {
		return 1
	}
	return 0
}

// reclaimLeases declares what is held, and Write on whatever the rest of the log
// changes: the servers must let nobody see it before, even where the lease was
// given back behind it.
func (c *Client) reclaimLeases(frame *meta.Reclaim) *meta.Reclaim {
	if c.cfg.NoLeases {
		return frame
	}
	c.leases.table.Scan(func(ino meta.Ino, n *node) bool {
		kind := n.lease
		if n.seq > c.log.acked {
			kind = meta.LeaseWrite
		}
		if kind == meta.LeaseNone {
			return true
		}
		if len(frame.Leases) >= pinsPerReclaim {
			c.send(frame)
			frame = &meta.Reclaim{}
		}
		frame.Leases = append(frame.Leases, meta.Grant{Ino: ino, Kind: kind})
		return true
	})
	return frame
}
