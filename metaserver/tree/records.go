package tree

import (
	"bytes"
	"fmt"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/internal/wire"
	"agentdrive/metaserver/meta"
)

// recordVersion is the version of every record of this package. A change of a
// layout raises it and keeps decoding the older ones.
const recordVersion = 1

// encode makes the value of a record.
func encode(m wire.Message) []byte { return wire.Marshal(nil, recordVersion, m) }

// decode reads the value val of key k into m; byte strings in m alias val.
func decode(k, val []byte, m wire.Message) error {
	if err := wire.Unmarshal(val, recordVersion, m); err != nil {
		return errs.E("tree.decode", errs.Other, fmt.Sprintf("record %q", k), err)
	}
	return nil
}

// get reads the record under k into m, if it is there.
func get(v kv.View, k []byte, m wire.Message) (bool, error) {
	val, ok, err := v.Get(k)
	if err != nil || !ok {
		return false, err
	}
	return true, decode(k, val, m)
}

// inode is the record of an inode. Attr.Ino is in the key only.
type inode struct {
	meta.Attr
	// Parent is the directory that holds the name of a directory or of a file
	// with one link. 0: several links (see K|) or none. The root is its own.
	Parent meta.Ino

	// Directories: the locality group in which children are born, 0 before the
	// first, and the next slot in it.
	Group    uint64
	NextSlot uint32

	// Regular files.
	Content uint64 // key of the extents, 0 = no content yet
	Extents uint64 // records under Content, dead ones included
	Trim    trim

	Target string // symbolic links

	Small     []xattr // extended attributes kept here, ascending by name
	XattrSize uint32  // bytes of names and values of all
	XattrKeys uint32  // records under A|
}

// trim marks extents in [From, To) older than Version as dead: they read as
// absent and wait for the queue. To 0: nothing is marked.
type trim struct {
	From, To uint64
	Version  uint64 // of DataVersion
}

// covers reports whether the mark makes e dead.
func (t trim) covers(e *extent) bool {
	return e.Version < t.Version && e.Off >= t.From && e.end() <= t.To
}

// xattr is an extended attribute kept in the inode.
type xattr struct {
	Name  string
	Value []byte
}

func (x *xattr) size() uint32 { return uint32(len(x.Name) + len(x.Value)) }

// Wire codes the fields that the type of the inode has.
func (x *inode) Wire(c *wire.Coder) {
	c.U32(&x.Mode)
	c.U32(&x.Nlink)
	c.U32(&x.UID)
	c.U32(&x.GID)
	c.U64(&x.Size)
	c.I64(&x.Atime)
	c.I64(&x.Mtime)
	c.I64(&x.Ctime)
	c.I64(&x.Btime)
	c.U64(&x.DataVersion)
	wire.Uint(c, &x.Parent)
	switch x.Mode & meta.ModeType {
	case meta.ModeDir:
		c.U64(&x.Group)
		c.U32(&x.NextSlot)
	case meta.ModeRegular:
		x.wireContent(c)
	case meta.ModeSymlink:
		c.String(&x.Target)
	case meta.ModeChar, meta.ModeBlock:
		c.U32(&x.Rdev)
	case meta.ModeFIFO, meta.ModeSocket:
	default:
		c.Fail("inode of mode %o", x.Mode)
	}
	x.wireXattrs(c)
}

func (x *inode) wireContent(c *wire.Coder) {
	c.U64(&x.Bytes)
	c.U64(&x.Content)
	if x.Content == 0 {
		if x.Bytes != 0 {
			c.Fail("%d bytes without content", x.Bytes)
		}
		return
	}
	c.U64(&x.Extents)
	c.U64(&x.Trim.To)
	if x.Trim.To == 0 {
		return
	}
	c.U64(&x.Trim.From)
	c.U64(&x.Trim.Version)
	if c.Decoding() && c.Err() == nil && x.Trim.From >= x.Trim.To {
		c.Fail("trim from %d to %d", x.Trim.From, x.Trim.To)
	}
}

func (x *inode) wireXattrs(c *wire.Coder) {
	c.U32(&x.XattrSize)
	if c.Decoding() {
		x.Xattrs = x.XattrSize > 0 // every name has at least a byte
	}
	if x.XattrSize == 0 {
		return
	}
	c.U32(&x.XattrKeys)
	wire.List(c, &x.Small, func(c *wire.Coder, a *xattr) {
		c.String(&a.Name)
		c.Bytes(&a.Value)
	})
	if c.Decoding() && c.Err() == nil {
		for i := range x.Small {
			x.Small[i].Value = bytes.Clone(x.Small[i].Value)
			if i > 0 && x.Small[i-1].Name >= x.Small[i].Name {
				c.Fail("attributes out of order")
			}
		}
	}
}

// entry is the record of a name.
type entry struct {
	Ino  meta.Ino
	Type uint32 // type bits of the mode
}

// Wire codes the fields in order.
func (x *entry) Wire(c *wire.Coder) {
	wire.Uint(c, &x.Ino)
	c.U32(&x.Type)
	if c.Decoding() && c.Err() == nil && (x.Ino == 0 || x.Type&^meta.ModeType != 0) {
		c.Fail("entry of inode %d, type %o", x.Ino, x.Type)
	}
}

// counters is the record of a layer.
type counters struct {
	NextGroup   uint64 // locality group
	NextContent uint64
	Bytes       uint64 // sum of Attr.Bytes of all inodes
	Files       uint64 // inodes, orphans included
	Dropped     bool   // the layer waits for its removal; nothing lives in it
}

// Wire codes the fields in order.
func (x *counters) Wire(c *wire.Coder) {
	c.U64(&x.NextGroup)
	c.U64(&x.NextContent)
	c.U64(&x.Bytes)
	c.U64(&x.Files)
	c.Bool(&x.Dropped)
}

// extent is the record of a range of a file. Off follows from the key and Len.
type extent struct {
	meta.Extent
	Version uint64 // DataVersion of the inode when it was written
}

func (x *extent) end() uint64 { return x.Off + uint64(x.Len) }

// Wire codes everything but Off.
func (x *extent) Wire(c *wire.Coder) {
	c.U64(&x.Version)
	wire.Uint(c, &x.Kind)
	switch x.Kind {
	case meta.ExtentInline:
		c.Bytes(&x.Inline)
		if c.Decoding() && c.Err() == nil {
			x.Len = uint32(len(x.Inline))
			x.Inline = bytes.Clone(x.Inline)
		}
	case meta.ExtentBlock:
		c.U32(&x.Len)
		x.Block.Wire(c)
		c.U32(&x.BlockOff)
	default:
		c.Fail("extent kind %d", x.Kind)
	}
	if c.Decoding() && c.Err() == nil && (x.Len == 0 || x.Len > chunk.MaxBlock) {
		c.Fail("extent of %d bytes", x.Len)
	}
}

// decodeExtent reads a pair under E|; the extent keeps no reference to it.
func decodeExtent(k, val []byte) (extent, error) {
	var e extent
	if err := decode(k, val, &e); err != nil {
		return e, err
	}
	last := keyInt(k, 2)
	if last >= meta.MaxSize || last+1 < uint64(e.Len) {
		return e, errs.E("tree.decode", errs.Corrupt, fmt.Sprintf("record %q: extent of %d bytes", k, e.Len), nil)
	}
	e.Off = last + 1 - uint64(e.Len)
	return e, nil
}

// xattrRec is a value too large for its inode.
type xattrRec struct{ Value []byte }

// Wire codes the value.
func (x *xattrRec) Wire(c *wire.Coder) { c.Bytes(&x.Value) }

// count is a number of links.
type count struct{ N uint32 }

// Wire codes the number.
func (x *count) Wire(c *wire.Coder) {
	c.U32(&x.N)
	if c.Decoding() && c.Err() == nil && x.N == 0 {
		c.Fail("count of 0")
	}
}

// orphan is the record of an inode without a name.
type orphan struct {
	Resolved bool // Pins are known
	Pins     []meta.SessionID
}

// Wire codes the fields in order.
func (x *orphan) Wire(c *wire.Coder) {
	c.Bool(&x.Resolved)
	wire.List(c, &x.Pins, wire.Uint[meta.SessionID])
}

// debt is the record of work that waits in the queue.
type debt struct {
	Next uint64 // debtTrim: where the next step begins
}

// Wire codes the cursor.
func (x *debt) Wire(c *wire.Coder) { c.U64(&x.Next) }
