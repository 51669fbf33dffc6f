package tree

import (
	"fmt"
	"slices"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/kv"
	"agentdrive/internal/wire"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/rules"
)

// Check verifies the invariants of DESIGN.md on the whole layer and reports
// each violation, in a fixed order. It holds one small entry per inode in
// memory: it is for tests and for fsck, not for the apply path.
func (s Space) Check(v kv.View, report func(problem string)) error {
	c := &checker{Space: s, v: v, report: report, nodes: make(map[meta.Ino]*checked)}
	for _, step := range [...]func() error{c.inodes, c.entries, c.parents, c.orphans, c.extents, c.xattrs, c.counters} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// checked is what the checker found out about an inode.
type checked struct {
	inode
	names    uint32 // entries that name it
	parent   meta.Ino
	mixed    bool // named in several directories
	children uint64
	subdirs  uint32
	counted  uint32 // links according to K|
	extents  uint64
	bytes    uint64
	last     uint64 // end of the last living extent
	keys     uint32 // A| records
	orphan   bool
}

type checker struct {
	Space
	v      kv.View
	report func(string)
	nodes  map[meta.Ino]*checked
	order  []meta.Ino
}

func (c *checker) problem(format string, args ...any) { c.report(fmt.Sprintf(format, args...)) }

// each decodes all records of the layer under a prefix.
func (c *checker) each(prefix byte, m wire.Message, fn func(k []byte)) error {
	var failed error
	lo := key(prefix, uint64(c.Layer))
	err := c.v.Scan(lo, keysEnd(lo), func(k, val []byte) bool {
		if failed = decode(k, val, m); failed == nil {
			fn(k)
		}
		return failed == nil
	})
	if err == nil {
		err = failed
	}
	return err
}

func (c *checker) inodes() error {
	lo := key(prefixInode, uint64(c.Layer))
	var failed error
	err := c.v.Scan(lo, keysEnd(lo), func(k, val []byte) bool {
		n := &checked{}
		if failed = decode(k, val, &n.inode); failed != nil {
			return false
		}
		n.Ino = meta.Ino(keyInt(k, 1))
		c.nodes[n.Ino] = n
		c.order = append(c.order, n.Ino)
		return true
	})
	if err == nil {
		err = failed
	}
	return err
}

func (c *checker) entries() error {
	var e entry
	return c.each(prefixEntry, &e, func(k []byte) {
		dir, name := meta.Ino(keyInt(k, 1)), string(k[25:])
		d, n := c.nodes[dir], c.nodes[e.Ino]
		if rules.CheckName(name) != nil || meta.NameCookie(name) != keyInt(k, 2) {
			c.problem("entry %q of directory %d is under a wrong key", name, dir)
		}
		if d == nil || !d.IsDir() || n == nil {
			c.problem("entry %q: directory %d or inode %d does not exist", name, dir, e.Ino)
			return
		}
		if n.Mode&meta.ModeType != e.Type {
			c.problem("entry %q of directory %d has type %o, inode %d %o", name, dir, e.Type, e.Ino, n.Mode)
		}
		d.children++
		if n.IsDir() {
			d.subdirs++
		}
		n.mixed = n.mixed || n.names > 0 && n.parent != dir
		n.names++
		n.parent = dir
	})
}

func (c *checker) parents() error {
	var k count
	return c.each(prefixParent, &k, func(at []byte) {
		ino, parent := meta.Ino(keyInt(at, 1)), meta.Ino(keyInt(at, 2))
		n := c.nodes[ino]
		if n == nil || c.nodes[parent] == nil || n.IsDir() || n.Nlink < 2 {
			c.problem("inode %d has counted parents without reason", ino)
			return
		}
		n.counted += k.N
	})
}

func (c *checker) orphans() error {
	var o orphan
	err := c.each(prefixOrphan, &o, func(k []byte) {
		ino := meta.Ino(keyInt(k, 1))
		n := c.nodes[ino]
		if n == nil || n.names != 0 {
			c.problem("orphan %d does not exist or has a name", ino)
			return
		}
		n.orphan = true
		if o.Resolved != (len(o.Pins) > 0) {
			c.problem("orphan %d: resolved %v with %d pins", ino, o.Resolved, len(o.Pins))
		}
		if _, ok, err := c.v.Get(c.unresolvedKey(ino)); err != nil || ok == o.Resolved {
			c.problem("orphan %d: resolved %v, on the list of unresolved ones %v", ino, o.Resolved, ok)
		}
		for _, session := range o.Pins {
			if _, ok, err := c.v.Get(c.pinKey(session, ino)); err != nil || !ok {
				c.problem("orphan %d: no index record for session %d", ino, session)
			}
		}
	})
	if err != nil {
		return err
	}
	for _, ino := range c.order {
		c.links(c.nodes[ino])
	}
	return nil
}

// links checks what is known of an inode's names.
func (c *checker) links(n *checked) {
	if n.IsDir() {
		want := 2 + n.subdirs
		if n.orphan {
			want = 0
		}
		if n.Nlink != want || n.Size != n.children {
			c.problem("directory %d: %d links, want %d; %d entries, want %d", n.Ino, n.Nlink, want, n.Size, n.children)
		}
		if n.names != 1 && !n.orphan && n.Ino != meta.RootIno || n.names > 1 {
			c.problem("directory %d has %d names", n.Ino, n.names)
		}
		if n.Ino != meta.RootIno && n.Parent != n.parent {
			c.problem("directory %d: parent %d, want %d", n.Ino, n.Parent, n.parent)
		}
		return
	}
	if n.Nlink != n.names || (n.names == 0) != n.orphan {
		c.problem("inode %d: %d links, %d names, orphan %v", n.Ino, n.Nlink, n.names, n.orphan)
	}
	switch {
	case n.names > 1 && (n.Parent != 0 || n.counted != n.names):
		c.problem("inode %d: parent %d, %d counted links of %d", n.Ino, n.Parent, n.counted, n.names)
	case n.names <= 1 && n.Parent != n.parent:
		c.problem("inode %d: parent %d, want %d", n.Ino, n.Parent, n.parent)
	}
}

func (c *checker) extents() error {
	byContent := make(map[uint64]*checked)
	for _, ino := range c.order {
		if n := c.nodes[ino]; n.Content != 0 {
			if byContent[n.Content] != nil {
				c.problem("content %d belongs to two inodes", n.Content)
			}
			byContent[n.Content] = n
		}
	}
	var failed error
	lo := key(prefixExtent, uint64(c.Layer))
	err := c.v.Scan(lo, keysEnd(lo), func(k, val []byte) bool {
		var e extent
		if e, failed = decodeExtent(k, val); failed != nil {
			return false
		}
		n := byContent[keyInt(k, 1)]
		if n == nil {
			if _, owed, err := c.v.Get(c.debtKey(debtContent, keyInt(k, 1))); err != nil || !owed {
				c.problem("content %d belongs to nobody", keyInt(k, 1))
			}
			return true
		}
		n.extents++
		n.bytes += uint64(e.Len)
		if n.Trim.covers(&e) {
			return true
		}
		if e.Off < n.last || e.end() > n.Size || e.Version > n.DataVersion {
			c.problem("inode %d: extent %d+%d, version %d, overlaps or is out of range", n.Ino, e.Off, e.Len, e.Version)
		}
		n.last = e.end()
		return true
	})
	if err == nil {
		err = failed
	}
	return err
}

func (c *checker) xattrs() error {
	return c.each(prefixXattr, &xattrRec{}, func(k []byte) {
		ino := meta.Ino(keyInt(k, 1))
		if n := c.nodes[ino]; n != nil {
			n.keys++
		} else if _, owed, err := c.v.Get(c.debtKey(debtXattrs, uint64(ino))); err != nil || !owed {
			c.problem("attribute of inode %d, which does not exist", ino)
		}
	})
}

func (c *checker) counters() error {
	var want, have counters
	for _, ino := range c.order {
		n := c.nodes[ino]
		want.Files++
		want.Bytes += n.Bytes
		if n.Extents != n.extents || n.Bytes != n.bytes {
			c.problem("inode %d: %d extents, want %d; %d bytes, want %d", ino, n.Extents, n.extents, n.Bytes, n.bytes)
		}
		if n.XattrKeys != n.keys {
			c.problem("inode %d: %d attribute records, want %d", ino, n.XattrKeys, n.keys)
		}
		if n.Trim.To != 0 {
			if _, owed, err := c.v.Get(c.debtKey(debtTrim, uint64(ino))); err != nil || !owed {
				c.problem("inode %d: a trim that nobody works off", ino)
			}
		}
	}
	if _, err := get(c.v, c.counterKey(), &have); err != nil {
		return err
	}
	if have.Files != want.Files || have.Bytes != want.Bytes {
		c.problem("counters: %d files, want %d; %d bytes, want %d", have.Files, want.Files, have.Bytes, want.Bytes)
	}
	return nil
}

// CheckBlocks verifies the block table of a whole group against the extents of
// all its layers, the repair list and the list of freed blocks.
func CheckBlocks(v kv.View, report func(problem string)) error {
	live := make(map[chunk.BlockID]uint64)
	var failed error
	err := v.Scan([]byte{prefixExtent}, []byte{prefixExtent + 1}, func(k, val []byte) bool {
		var e extent
		if e, failed = decodeExtent(k, val); failed == nil && e.Kind == meta.ExtentBlock {
			live[e.Block] += uint64(e.Len)
		}
		return failed == nil
	})
	if err != nil || failed != nil {
		return firstError(err, failed)
	}
	repairs := make(map[chunk.BlockID][]chunk.ServerID)
	var have, want totals
	err = v.Scan([]byte{prefixRepair}, []byte{prefixRepair + 1}, func(k, val []byte) bool {
		var r repair
		failed = decode(k, val, &r)
		repairs[blockOf(k)] = append(repairs[blockOf(k)], chunk.ServerID(uint32(keyInt(append([]byte{0, 0, 0, 0}, k...), 0))))
		want.add(1, r.Len)
		return failed == nil
	})
	if err != nil || failed != nil {
		return firstError(err, failed)
	}
	if _, err := get(v, totalsKey(), &have); err != nil {
		return err
	}
	if have != want {
		report(fmt.Sprintf("repair totals %+v, want %+v", have, want))
	}
	blocks := 0
	err = v.Scan([]byte{prefixBlock}, []byte{prefixBlock + 1}, func(k, val []byte) bool {
		var rec BlockRec
		if failed = decode(k, val, &rec); failed != nil {
			return false
		}
		id := blockOf(k)
		if rec.Live != live[id] || (rec.Live == 0) != (rec.State == BlockFreed) {
			report(fmt.Sprintf("block %v: %d live bytes, want %d, state %d", id, rec.Live, live[id], rec.State))
		}
		if !slices.Equal(rec.Missing, repairs[id]) {
			report(fmt.Sprintf("block %v: missing on %v, repair list says %v", id, rec.Missing, repairs[id]))
		}
		delete(live, id)
		delete(repairs, id)
		if rec.State == BlockFreed {
			blocks++
		}
		return true
	})
	if err != nil || failed != nil {
		return firstError(err, failed)
	}
	if len(live) > 0 || len(repairs) > 0 {
		report(fmt.Sprintf("%d blocks with extents, %d with repairs have no record", len(live), len(repairs)))
	}
	err = v.Scan([]byte{prefixFreed}, []byte{prefixFreed + 1}, func(k, val []byte) bool {
		blocks--
		return true
	})
	if blocks != 0 {
		report(fmt.Sprintf("%d freed blocks are not on the list", blocks))
	}
	return err
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
