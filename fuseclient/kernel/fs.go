package kernel

import (
	"math"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"agentdrive/fuseclient/core"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// rootNode is the node id of the mount's root in the FUSE protocol.
const rootNode = fuse.FUSE_ROOT_ID

// fileSystem translates requests into operations. It is stateless but for the
// connection's tables. The cancel channels that go-fuse hands out are not
// used: it cannot be told that the connection died; see Call.
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

// do runs op and returns its result as R, and the answer that it came with.
// Another type is a broken backend.
func do[R any](f *fileSystem, h *fuse.InHeader, op any) (R, core.Answer, error) {
	var zero R
	call := f.conn.call(h.Unique)
	call.begin(op)
	a := f.backend.Do(call, op)
	if a.Err != nil {
		return zero, a, a.Err
	}
	r, ok := a.Result.(R)
	if !ok {
		return zero, a, errs.E("kernel.do", errs.IO, "backend answered with another type of result", nil)
	}
	return r, a, nil
}

// answerKind says what a lifetime is for.
type answerKind int

const (
	answerAttr     answerKind = iota // attributes alone
	answerSet                        // attributes after they were set
	answerEntry                      // a name and its inode
	answerNew                        // a name just made
	answerNegative                   // a name that is absent
)

// lifetimes is the only source of cache lifetimes given to the kernel: those
// of the answer, as far as the kernel can be trusted with them.
func (f *fileSystem) lifetimes(kind answerKind, t core.Cache) core.Cache {
	switch kind {
	case answerNew:
		// The kernel applies the attributes of such a reply without
		// checking whether a newer answer overtook it (C2).
		t.Attr = 0
	case answerSet:
		// Nor before Linux 6.16, which brought INC_EPOCH.
		if !f.conn.hasEpoch {
			t.Attr = 0
		}
	}
	if f.conn.noEntries {
		t.Entry = 0
	}
	return core.Cache{Entry: max(0, t.Entry), Attr: max(0, t.Attr)}
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
func (f *fileSystem) fillEntry(out *fuse.EntryOut, a *meta.Attr, t core.Cache) {
	out.NodeId, out.Generation = uint64(a.Ino), 1
	out.SetEntryTimeout(time.Duration(t.Entry))
	out.SetAttrTimeout(time.Duration(t.Attr))
	fillAttr(&out.Attr, a)
}

// entry runs op, whose result is an entry, and fills out. An inode that cannot
// stand below the root is refused: its node id would name the root.
func (f *fileSystem) entry(h *fuse.InHeader, op any, kind answerKind, out *fuse.EntryOut) (*meta.EntryResult, core.Cache, error) {
	r, a, err := do[*meta.EntryResult](f, h, op)
	if err != nil {
		return nil, a.Cache, err
	}
	if err := f.checkChild(r.Attr.Ino); err != nil {
		f.backend.Forget(r.Attr.Ino, 1)
		return nil, a.Cache, err
	}
	t := f.lifetimes(kind, a.Cache)
	f.fillEntry(out, &r.Attr, t)
	return r, t, nil
}

func (f *fileSystem) checkChild(ino meta.Ino) error {
	if ino == 0 || ino == f.conn.root || ino == rootNode {
		return errs.E("kernel.entry", errs.IO, "the root appears below itself", nil)
	}
	return nil
}

// Lookup implements fuse.RawFileSystem.
func (f *fileSystem) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	_, t, err := f.entry(h, &meta.Lookup{Parent: f.ino(h.NodeId), Name: name}, answerEntry, out)
	if errs.Is(err, errs.NotExist) {
		if t = f.lifetimes(answerNegative, t); t.Entry > 0 {
			*out = fuse.EntryOut{} // node 0: absent
			out.SetEntryTimeout(time.Duration(t.Entry))
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
func (f *fileSystem) attr(h *fuse.InHeader, op any, kind answerKind, out *fuse.AttrOut) fuse.Status {
	r, a, err := do[*meta.AttrResult](f, h, op)
	if err != nil {
		return status(err)
	}
	out.SetTimeout(time.Duration(f.lifetimes(kind, a.Cache).Attr))
	fillAttr(&out.Attr, &r.Attr)
	return fuse.OK
}

// settlePages waits for what the kernel is about to forget of the inode: a
// read(2) that asks for attributes now may look at the pages next (C6).
func (f *fileSystem) settlePages(h *fuse.InHeader) error {
	if f.conn.awaitDrops(h.Unique, f.ino(h.NodeId)) {
		return nil
	}
	return errs.E("kernel.getattr", errs.Interrupted, "", nil)
}

// GetAttr implements fuse.RawFileSystem.
func (f *fileSystem) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if err := f.settlePages(&in.InHeader); err != nil {
		return status(err)
	}
	return f.attr(&in.InHeader, &meta.GetAttr{Ino: f.ino(in.NodeId)}, answerAttr, out)
}

// Bits of statx(2) that an answer can hold.
const statxMask = 0x7ff | 0x800 // STATX_BASIC_STATS, STATX_BTIME

// Statx implements fuse.RawFileSystem: attributes with the time of birth.
func (f *fileSystem) Statx(_ <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	if err := f.settlePages(&in.InHeader); err != nil {
		return status(err)
	}
	r, ans, err := do[*meta.AttrResult](f, &in.InHeader, &meta.GetAttr{Ino: f.ino(in.NodeId)})
	if err != nil {
		return status(err)
	}
	a := &r.Attr
	out.SetTimeout(time.Duration(f.lifetimes(answerAttr, ans.Cache).Attr))
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
		return f.attr(&in.InHeader, &meta.GetAttr{Ino: op.Ino}, answerAttr, out)
	}
	return f.attr(&in.InHeader, op, answerSet, out)
}

// StatFs implements fuse.RawFileSystem. What is free is the least that quota
// and the cluster's disks allow; without a quota on files their number is
// bounded by nothing that could be told.
func (f *fileSystem) StatFs(_ <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	r, _, err := do[*meta.StatFSResult](f, h, &meta.StatFS{})
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
