package sim

import (
	"encoding/binary"

	"agentdrive/metaserver/meta"
)

// orderOracle checks what a client that dies leaves behind (promise P2): at
// every entry of the log, what is published of a file is a prefix of each
// client's writes, and a file that gets a name by link or rename has the data
// that its client wrote before.
type orderOracle struct {
	data  *dataOracle
	units map[unitKey]uint64 // newest write published there; look-up only
	moves map[meta.Op]move   // links and renames asked for; look-up only
}

type unitKey struct {
	client int
	ino    meta.Ino
	unit   uint32
}

// move is a request that gives a file a name.
type move struct {
	client *client
	inv    stamp
	ino    meta.Ino // as far as the kernel knows
}

// published takes a Write of the log whose first byte went to off.
func (o *orderOracle) published(index uint64, x *meta.Write, off uint64) {
	d := o.data
	var newest *dataWrite
	for i := range x.Extents {
		e := &x.Extents[i]
		at, content := e.Off, e.Inline
		if x.Append {
			at += off
		}
		if e.Kind == meta.ExtentBlock {
			content = d.w.oracle.blockOf(e)
		}
		for j := 0; j+unit <= len(content); j += unit {
			id := binary.BigEndian.Uint64(content[j:]) >> 16
			if id == 0 || id > uint64(len(d.all)) {
				d.w.fail("entry %d publishes content that nobody wrote", index)
				return
			}
			y := d.all[id-1]
			k := unitKey{y.client.id, x.Ino, uint32(at/unit) + uint32(j/unit)}
			o.units[k] = max(o.units[k], id)
			if newest == nil || y.id > newest.id {
				newest = y
			}
		}
	}
	if newest != nil {
		o.complete(index, newest.client, x.Ino, newest.inv)
	}
}

// complete checks that everything that c wrote before a moment is published.
// What may be lost is exempt: it was or will be reported.
func (o *orderOracle) complete(index uint64, c *client, ino meta.Ino, before stamp) {
	for _, x := range o.data.files[ino] {
		if x.client != c || x.trunc || x.resp == 0 || x.resp >= before || x.lost {
			continue
		}
		for u := x.off; u < x.off+x.n; u++ {
			if o.units[unitKey{c.id, ino, u}] < x.id && !o.data.cutOff(x, u) {
				o.data.w.fail("entry %d needs write %d of %s (inode %d, unit %d) to be published before it", index, x.id, c.name, ino, u)
				return
			}
		}
	}
}

// asked notes a request that gives a file a name.
func (o *orderOracle) asked(c *client, op meta.Op, ino meta.Ino) {
	o.moves[op] = move{c, o.data.w.last, ino}
}

// named takes a link or rename of the log. If the kernel took the name for
// another inode's, somebody else moved it meanwhile, and no order is promised.
func (o *orderOracle) named(index uint64, op meta.Op, ino meta.Ino) {
	if m, ok := o.moves[op]; ok && m.ino == ino {
		o.complete(index, m.client, ino, m.inv+1)
	}
}

// cutOff reports whether a truncation took a unit of a write away before it was
// published.
func (d *dataOracle) cutOff(x *dataWrite, u uint32) bool {
	for _, t := range d.files[x.ino] {
		if t.trunc && t.client == x.client && t.resp != 0 && x.precedes(t) && t.covers(u) {
			return true
		}
	}
	return false
}

// all reports whether the log has all of a write.
func (o *orderOracle) all(x *dataWrite) bool {
	if x.trunc {
		return x.mut != nil && x.mut.index != 0
	}
	if !x.known {
		return false
	}
	for u := x.off; u < x.off+x.n; u++ {
		if o.units[unitKey{x.client.id, x.ino, u}] < x.id {
			return false
		}
	}
	return true
}
