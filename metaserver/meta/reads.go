package meta

import "agentdrive/internal/wire"

// Lookup resolves a name; "." and ".." are not names here. Result:
// *EntryResult, or errs.NotExist.
type Lookup struct {
	Parent Ino
	Name   string
}

// Kind implements Op.
func (*Lookup) Kind() OpKind { return KindLookup }

// Wire codes the fields in order.
func (x *Lookup) Wire(c *wire.Coder) {
	wire.Uint(c, &x.Parent)
	wireName(c, &x.Name)
}

// GetAttr reads attributes, of an unlinked inode too while it is pinned.
// Result: *AttrResult, or errs.Stale when the inode is gone.
type GetAttr struct {
	Ino Ino
}

// Kind implements Op.
func (*GetAttr) Kind() OpKind { return KindGetAttr }

// Wire codes the fields in order.
func (x *GetAttr) Wire(c *wire.Coder) { wire.Uint(c, &x.Ino) }

// Readlink reads a symbolic link. Result: *BytesResult.
type Readlink struct {
	Ino Ino
}

// Kind implements Op.
func (*Readlink) Kind() OpKind { return KindReadlink }

// Wire codes the fields in order.
func (x *Readlink) Wire(c *wire.Coder) { wire.Uint(c, &x.Ino) }

// ReadDir lists a page of entries after Cookie (0 = from the start) in cookie
// order, without "." and "..". A cookie stays valid whatever is created or
// removed: entries present during the whole listing are seen exactly once.
// Result: *DirResult.
type ReadDir struct {
	Dir    Ino
	Cookie uint64
	Limit  uint32 // entries; a page may be shorter, and never splits equal cookies
	Plus   bool   // with attributes; then each entry given is pinned
}

// Kind implements Op.
func (*ReadDir) Kind() OpKind { return KindReadDir }

// Wire codes the fields in order.
func (x *ReadDir) Wire(c *wire.Coder) {
	wire.Uint(c, &x.Dir)
	c.U64(&x.Cookie)
	c.U32(&x.Limit)
	c.Bool(&x.Plus)
}

// GetXattr reads an extended attribute. Result: *BytesResult, or errs.NoAttr.
type GetXattr struct {
	Ino  Ino
	Name string
}

// Kind implements Op.
func (*GetXattr) Kind() OpKind { return KindGetXattr }

// Wire codes the fields in order.
func (x *GetXattr) Wire(c *wire.Coder) {
	wire.Uint(c, &x.Ino)
	wireName(c, &x.Name)
}

// ListXattr lists names, ascending. Result: *NamesResult.
type ListXattr struct {
	Ino Ino
}

// Kind implements Op.
func (*ListXattr) Kind() OpKind { return KindListXattr }

// Wire codes the fields in order.
func (x *ListXattr) Wire(c *wire.Coder) { wire.Uint(c, &x.Ino) }

// StatFS reads the drive's use. Result: *StatFSResult.
type StatFS struct{}

// Kind implements Op.
func (*StatFS) Kind() OpKind { return KindStatFS }

// Wire codes nothing.
func (*StatFS) Wire(*wire.Coder) {}

// ReadMap reads attributes and the extents that overlap a range, ascending,
// clipped to nothing (whole extents). If more than Limit overlap, the map ends
// early: Covered tells how far it speaks. Result: *MapResult.
type ReadMap struct {
	Ino   Ino
	Off   uint64 // bytes
	Len   uint64
	Limit uint32 // extents
}

// Kind implements Op.
func (*ReadMap) Kind() OpKind { return KindReadMap }

// Wire codes the fields in order.
func (x *ReadMap) Wire(c *wire.Coder) {
	wire.Uint(c, &x.Ino)
	c.U64(&x.Off)
	c.U64(&x.Len)
	c.U32(&x.Limit)
}
