package core

import "agentdrive/metaserver/meta"

// checkData is CheckInvariants for data under leases; it describes what is
// wrong, if anything.
func (c *Client) checkData() (bad string) {
	if n := c.buf.queue.Len(); n != c.buf.parts {
		return "parts under way are not in the queue by age"
	}
	cost, maps := 0, 0
	for e := c.maps.lru.Front(); e != nil; e = e.Next() {
		m := e.Value.(*keptMap)
		cost += m.cost
		maps++
		if x, ok := c.maps.table.Get(m.ino); !ok || x != m {
			return "a kept map is not in the table"
		}
		if m.m != nil && len(m.m.Extents) > mapExtents {
			return "a kept map is too large"
		}
		if n := c.nodeOf(m.ino); n == nil || n.lease < meta.LeaseRead {
			return "a map is kept without a lease"
		}
	}
	if cost != c.maps.cost || maps != c.maps.table.Len() {
		return "accounts of kept maps are wrong"
	}
	c.files.Scan(func(_ meta.Ino, f *file) bool {
		bad = c.checkPlaces(f)
		return bad == ""
	})
	return bad
}

// checkPlaces checks the places of one file's data in the log.
func (c *Client) checkPlaces(f *file) string {
	if c.cfg.NoLeases {
		if f.placed != 0 || len(f.cuts) > 0 {
			return "records without leases"
		}
		return ""
	}
	if f.write != nil || len(f.shadows) > 0 {
		return "data under leases is published by operations"
	}
	if f.placed > len(f.parts) {
		return "more parts have a place than there are"
	}
	for i, p := range f.parts {
		switch r := p.rec; {
		case (r != nil) != (i < f.placed):
			return "parts with a place do not come first"
		case r == nil:
		case r.seq <= c.log.acked || r.seq > c.log.last:
			return "the record of a part is not in the log"
		case i > 0 && f.parts[i-1].rec.seq > r.seq:
			return "records of a file are out of order"
		case r.ready && !p.ready:
			return "a record is ready before its block"
		}
		for _, s := range p.view {
			if len(s.data) == 0 || s.end() > p.end() {
				return "a part shows what it does not have"
			}
		}
	}
	if n := c.nodeOf(f.ino); f.dirty.bytes > 0 || len(f.parts) > f.placed {
		if n == nil || n.lease != meta.LeaseWrite {
			return "data without a place and without a lease"
		}
		if n.attrOK && n.attr.Size < f.dirty.end() {
			return "a file is shorter than its data"
		}
	}
	return ""
}
