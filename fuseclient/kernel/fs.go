package kernel

import (
	"math"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// rootNode is the node id of the mount's root in the FUSE protocol.
const rootNode = fuse.FUSE_ROOT_ID

// fileSystem translates requests into operations. It is stateless but for the
// connection's tables. The cancel channels that go-fuse hands out are not
// used: it cannot be told that the connection died; see conn.cancel.
type fileSystem struct {
	fuse.RawFileSystem // answers ENOSYS to what is not implemented here
	backend            Backend
	conn               *conn
}

var _ fuse.RawFileSystem = (*fileSystem)(nil)

// String names the file system to go-fuse.
func (*fileSystem) String() string { return fsType }

func (f *fileSystem) ino(node uint64) meta.Ino { return f.conn.ino(node) }

// status turns an error into what the kernel is told.
func status(err error) fuse.Status { return fuse.Status(errs.Errno(err)) }

func cred(h *fuse.InHeader) meta.Cred { return meta.Cred{UID: h.Uid, GID: h.Gid} }

// do runs op and returns its result as R. Another type is a broken backend.
func do[R any](f *fileSystem, h *fuse.InHeader, op any) (R, error) {
	var zero R
	res, err := f.backend.Do(f.conn.cancel(h.Unique), op)
	if err != nil {
		return zero, err
	}
	r, ok := res.(R)
	if !ok {
		return zero, errs.E("kernel.do", errs.IO, "backend answered with another type of result", nil)
	}
	return r, nil
}

// lifetime is how long the kernel may believe an answer without asking.
type lifetime struct{ entry, attr time.Duration }

// answerKind says what a lifetime is for.
type answerKind int

const (
	answerAttr     answerKind = iota // attributes alone
	answerEntry                      // a name and its inode
	answerNew                        // a name just made: attributes are never kept (C2)
	answerNegative                   // a name that is absent
)

// lifetimes is the only source of cache lifetimes given to the kernel. Without
// leases nothing may be kept.
func (f *fileSystem) lifetimes(kind answerKind, _ meta.Ino) lifetime {
	var t lifetime
	if kind == answerNew {
		// The kernel applies the attributes of such a reply without
		// checking whether a newer answer overtook it.
		t.attr = 0
	}
	return t
}

func splitTime(ns int64) (sec uint64, nsec uint32) {
	s, n := ns/1e9, ns%1e9
	if n < 0 {
		s, n = s-1, n+1e9
	}
	return uint64(s), uint32(n)
}

func joinTime(sec uint64, nsec uint32) int64 {
	s := int64(sec)
	const second = int64(time.Second)
	if s > math.MaxInt64/second-1 {
		return math.MaxInt64
	}
	if s < math.MinInt64/second+1 {
		return math.MinInt64
	}
	return s*second + int64(nsec)
}

const blockSize = 4096

func fillAttr(out *fuse.Attr, a *meta.Attr) {
	out.Ino, out.Size = uint64(a.Ino), a.Size
	out.Blocks = (a.Bytes + 511) / 512
	out.Atime, out.Atimensec = splitTime(a.Atime)
	out.Mtime, out.Mtimensec = splitTime(a.Mtime)
	out.Ctime, out.Ctimensec = splitTime(a.Ctime)
	out.Mode, out.Nlink = a.Mode, a.Nlink
	out.Uid, out.Gid = a.UID, a.GID
	out.Rdev, out.Blksize = a.Rdev, blockSize
}

// fillEntry writes an entry reply for a.
func (f *fileSystem) fillEntry(out *fuse.EntryOut, a *meta.Attr, kind answerKind) {
	t := f.lifetimes(kind, a.Ino)
	out.NodeId, out.Generation = uint64(a.Ino), 1
	out.SetEntryTimeout(t.entry)
	out.SetAttrTimeout(t.attr)
	fillAttr(&out.Attr, a)
}

// entry runs op, whose result is an entry, and fills out. An inode that cannot
// stand below the root is refused: its node id would name the root.
func (f *fileSystem) entry(h *fuse.InHeader, op any, kind answerKind, out *fuse.EntryOut) (*meta.EntryResult, error) {
	r, err := do[*meta.EntryResult](f, h, op)
	if err != nil {
		return nil, err
	}
	if err := f.checkChild(r.Attr.Ino); err != nil {
		f.backend.Forget(r.Attr.Ino, 1)
		return nil, err
	}
	f.fillEntry(out, &r.Attr, kind)
	return r, nil
}

func (f *fileSystem) checkChild(ino meta.Ino) error {
	if ino == 0 || ino == f.conn.root || ino == rootNode {
		return errs.E("kernel.entry", errs.IO, "the root appears below itself", nil)
	}
	return nil
}

// Lookup implements fuse.RawFileSystem.
func (f *fileSystem) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	parent := f.ino(h.NodeId)
	_, err := f.entry(h, &meta.Lookup{Parent: parent, Name: name}, answerEntry, out)
	if errs.Is(err, errs.NotExist) {
		if t := f.lifetimes(answerNegative, parent); t.entry > 0 {
			*out = fuse.EntryOut{}
			out.SetEntryTimeout(t.entry)
			return fuse.OK
		}
	}
	return status(err)
}

// Forget implements fuse.RawFileSystem.
func (f *fileSystem) Forget(node, n uint64) {
	if node == rootNode {
		return // never given by a reply
	}
	f.conn.nodes.forget(node, n)
	f.backend.Forget(f.ino(node), n)
}

// attr runs op, whose result is attributes, and fills out.
func (f *fileSystem) attr(h *fuse.InHeader, op any, out *fuse.AttrOut) fuse.Status {
	r, err := do[*meta.AttrResult](f, h, op)
	if err != nil {
		return status(err)
	}
	out.SetTimeout(f.lifetimes(answerAttr, r.Attr.Ino).attr)
	fillAttr(&out.Attr, &r.Attr)
	return fuse.OK
}

// GetAttr implements fuse.RawFileSystem.
func (f *fileSystem) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return f.attr(&in.InHeader, &meta.GetAttr{Ino: f.ino(in.NodeId)}, out)
}

// Bits of statx(2) that an answer can hold.
const statxMask = 0x7ff | 0x800 // STATX_BASIC_STATS, STATX_BTIME

// Statx implements fuse.RawFileSystem: attributes with the time of birth.
func (f *fileSystem) Statx(_ <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	r, err := do[*meta.AttrResult](f, &in.InHeader, &meta.GetAttr{Ino: f.ino(in.NodeId)})
	if err != nil {
		return status(err)
	}
	a := &r.Attr
	out.SetTimeout(f.lifetimes(answerAttr, a.Ino).attr)
	s := &out.Statx
	s.Mask, s.Blksize = statxMask, blockSize
	s.Ino, s.Size, s.Blocks = uint64(a.Ino), a.Size, (a.Bytes+511)/512
	s.Mode, s.Nlink, s.Uid, s.Gid = uint16(a.Mode), a.Nlink, a.UID, a.GID
	s.Atime.Sec, s.Atime.Nsec = splitTime(a.Atime)
	s.Mtime.Sec, s.Mtime.Nsec = splitTime(a.Mtime)
	s.Ctime.Sec, s.Ctime.Nsec = splitTime(a.Ctime)
	s.Btime.Sec, s.Btime.Nsec = splitTime(a.Btime)
	// The encoding of dev_t in FUSE: 12 bits of minor split around major.
	s.RdevMajor = a.Rdev >> 8 & 0xfff
	s.RdevMinor = a.Rdev&0xff | a.Rdev>>12&0xfff00
	return fuse.OK
}

// setBits maps FUSE's bits of SETATTR to those of meta.SetAttr. FATTR_CTIME is
// ignored: the servers keep ctime. FATTR_FH and FATTR_LOCKOWNER carry nothing
// that is needed.
var setBits = []struct{ fattr, set uint32 }{
	{fuse.FATTR_MODE, meta.SetMode},
	{fuse.FATTR_UID, meta.SetUID},
	{fuse.FATTR_GID, meta.SetGID},
	{fuse.FATTR_SIZE, meta.SetSize},
	{fuse.FATTR_KILL_SUIDGID, meta.KillPriv},
}

// setAny are all bits that say what to set.
const setAny = fuse.FATTR_MODE | fuse.FATTR_UID | fuse.FATTR_GID | fuse.FATTR_SIZE | fuse.FATTR_ATIME | fuse.FATTR_ATIME_NOW |
	fuse.FATTR_MTIME | fuse.FATTR_MTIME_NOW | fuse.FATTR_CTIME | fuse.FATTR_KILL_SUIDGID

func setAttrOp(ino meta.Ino, in *fuse.SetAttrIn) *meta.SetAttr {
	op := &meta.SetAttr{
		Cred: cred(&in.InHeader), Ino: ino,
		Mode: in.Mode & meta.ModePerm, UID: in.Uid, GID: in.Gid, Size: in.Size,
	}
	for _, b := range setBits {
		if in.Valid&b.fattr != 0 {
			op.Set |= b.set
		}
	}
	// With HANDLE_KILLPRIV_V2 a change of owner kills setuid and setgid
	// here, not in the kernel, unless the same call sets the mode. A request
	// without a bit is chown(2) of neither owner nor group, which kills too.
	if op.Set&(meta.SetUID|meta.SetGID) != 0 && op.Set&meta.SetMode == 0 || in.Valid&setAny == 0 {
		op.Set |= meta.KillPriv
	}
	switch {
	case in.Valid&fuse.FATTR_ATIME_NOW != 0:
		op.Set |= meta.SetAtimeNow
	case in.Valid&fuse.FATTR_ATIME != 0:
		op.Set |= meta.SetAtime
		op.Atime = joinTime(in.Atime, in.Atimensec)
	}
	switch {
	case in.Valid&fuse.FATTR_MTIME_NOW != 0:
		op.Set |= meta.SetMtimeNow
	case in.Valid&fuse.FATTR_MTIME != 0:
		op.Set |= meta.SetMtime
		op.Mtime = joinTime(in.Mtime, in.Mtimensec)
	}
	return op
}

// SetAttr implements fuse.RawFileSystem.
func (f *fileSystem) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	op := setAttrOp(f.ino(in.NodeId), in)
	if op.Set == 0 {
		return f.attr(&in.InHeader, &meta.GetAttr{Ino: op.Ino}, out)
	}
	return f.attr(&in.InHeader, op, out)
}

// StatFs implements fuse.RawFileSystem. What is free is the least that quota
// and the cluster's disks allow; without a quota on files their number is
// bounded by nothing that could be told.
func (f *fileSystem) StatFs(_ <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	r, err := do[*meta.StatFSResult](f, h, &meta.StatFS{})
	if err != nil {
		return status(err)
	}
	free := r.FreeBytes
	if r.MaxBytes > 0 {
		free = min(free, r.MaxBytes-min(r.Bytes, r.MaxBytes))
	}
	freeFiles := uint64(1) << 32
	if r.MaxFiles > 0 {
		freeFiles = r.MaxFiles - min(r.Files, r.MaxFiles)
	}
	used := (r.Bytes + blockSize - 1) / blockSize
	*out = fuse.StatfsOut{
		Blocks: used + free/blockSize, Bfree: free / blockSize, Bavail: free / blockSize,
		Files: r.Files + freeFiles, Ffree: freeFiles,
		Bsize: blockSize, Frsize: blockSize, NameLen: meta.MaxName,
	}
	return fuse.OK
}
