package tree

import (
	"fmt"
	"math"

	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/rules"
)

// Space is one drive's namespace inside the ordered key space of a group. It
// is a value: copy it freely.
type Space struct {
	Drive meta.DriveID
	Layer meta.LayerID

	// cut replaces maxCut: in tests, so that small files reach the queue, and
	// for Unbounded. It must be the same on all replicas; usually it is 0.
	cut int
}

// Stamp is what the leader decided for an entry.
type Stamp struct {
	Index uint64 // Raft index of the entry
	Now   int64  // nanoseconds since the Unix epoch
}

// maxCut bounds the extents that one operation removes or cuts itself; more
// are marked dead and left to the queue.
const maxCut = 1024

func (s Space) maxCut() int {
	if s.cut > 0 {
		return s.cut
	}
	return maxCut
}

// Unbounded is the space for operations that must be executed as they are, now:
// they never fail with errs.Again or errs.TooBig, and their work may grow with
// the size of a file. For those that were refused so.
func (s Space) Unbounded() Space {
	s.cut = math.MaxInt
	return s
}

// fail makes the error of an operation.
func fail(op string, kind errs.Kind, format string, args ...any) error {
	return errs.E(op, kind, fmt.Sprintf(format, args...), nil)
}

// Init creates the root directory, inode 1, of an empty layer. errs.Exist: the
// layer is in use.
func (s Space) Init(tx kv.Tx, st Stamp, mode uint32, uid, gid uint32) error {
	if _, used, err := tx.Get(s.counterKey()); err != nil || used {
		if err != nil {
			return err
		}
		return fail("tree.init", errs.Exist, "layer %d is in use", s.Layer)
	}
	root := inode{Attr: meta.Attr{
		Mode: meta.ModeDir | mode&meta.ModePerm, Nlink: 2, UID: uid, GID: gid,
		Atime: st.Now, Mtime: st.Now, Ctime: st.Now, Btime: st.Now,
	}, Parent: meta.RootIno}
	tx.Set(s.inodeKey(meta.RootIno), encode(&root))
	tx.Set(s.counterKey(), encode(&counters{NextGroup: 1, NextContent: 1, Files: 1}))
	return nil
}

// Apply executes a mutation; the kinds of its errors are those that Linux
// gives for the same mistake, besides errs.Stale for an inode that is gone and
// errs.Again (run ReclaimStep, then repeat). See the package doc for what an
// error leaves behind. meta.LateAck is not a namespace operation: see LateAck.
func (s Space) Apply(tx kv.Tx, st Stamp, op meta.Op) (meta.Result, error) {
	return s.ApplyWithin(tx, st, op, Unlimited)
}

// ApplyWithin is Apply under a quota: errs.Quota when the drive would grow, and
// be larger than room. What does not grow it is never refused. errs.Again: the
// drive is full, but bytes wait for the queue that count no longer, or it is
// not known yet whether anybody still uses a file without a name.
func (s Space) ApplyWithin(tx kv.Tx, st Stamp, op meta.Op, room Room) (meta.Result, error) {
	u := &unit{Space: s, tx: tx, st: st}
	if err := u.loadCounters(); err != nil {
		return nil, err
	}
	before := u.count
	res, err := u.run(op)
	if err == nil {
		err = u.checkRoom(before, room)
	}
	if err != nil {
		return nil, err
	}
	u.commit()
	return res, nil
}

func (u *unit) run(op meta.Op) (meta.Result, error) {
	switch x := op.(type) {
	case *meta.Make:
		return u.create(x)
	case *meta.Link:
		return u.link(x)
	case *meta.Unlink:
		return u.unlink(x)
	case *meta.Rmdir:
		return u.rmdir(x)
	case *meta.Rename:
		return u.rename(x)
	case *meta.SetAttr:
		return u.setAttr(x)
	case *meta.SetXattr:
		return u.setXattr(x)
	case *meta.RemoveXattr:
		return u.removeXattr(x)
	case *meta.Write:
		return u.write(x)
	}
	return nil, fail("tree.apply", errs.Invalid, "operation %d does not change a namespace", op.Kind())
}

// Read answers a read from one consistent state. errs.Stale: the inode is
// gone. errs.Again: the range of a ReadMap is full of extents that wait for
// the queue; run ReclaimStep and repeat.
func (s Space) Read(v kv.View, op meta.Op) (meta.Result, error) {
	switch x := op.(type) {
	case *meta.Lookup:
		return s.lookup(v, x)
	case *meta.GetAttr:
		n, err := s.inode(v, x.Ino)
		if err != nil {
			return nil, err
		}
		return &meta.AttrResult{Attr: n.Attr}, nil
	case *meta.Readlink:
		return s.readlink(v, x)
	case *meta.ReadDir:
		return s.readDir(v, x)
	case *meta.GetXattr:
		return s.getXattr(v, x)
	case *meta.ListXattr:
		return s.listXattr(v, x)
	case *meta.StatFS:
		bytes, files, err := s.Stats(v)
		if err != nil {
			return nil, err
		}
		return &meta.StatFSResult{Bytes: bytes, Files: files}, nil
	case *meta.ReadMap:
		return s.readMap(v, x)
	case *meta.Acquire:
		return s.wanted(v, x)
	}
	return nil, fail("tree.read", errs.Invalid, "operation %d is not a read", op.Kind())
}

// Stats gives the sum of Attr.Bytes and the number of all inodes, orphans
// included.
func (s Space) Stats(v kv.View) (bytes, files uint64, err error) {
	var n counters
	if _, err := get(v, s.counterKey(), &n); err != nil {
		return 0, 0, err
	}
	return n.Bytes, n.Files, nil
}

// inode reads an inode. errs.Stale: there is none.
func (s Space) inode(v kv.View, ino meta.Ino) (*inode, error) {
	n := &inode{}
	ok, err := get(v, s.inodeKey(ino), n)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fail("tree.inode", errs.Stale, "inode %d is gone", ino)
	}
	n.Ino = ino
	return n, nil
}

// dir reads a directory. errs.NotDir: it is something else.
func (s Space) dir(v kv.View, ino meta.Ino) (*inode, error) {
	n, err := s.inode(v, ino)
	if err == nil {
		err = rules.CheckDir(&n.Attr)
	}
	return n, err
}

// entry reads the record of a name.
func (s Space) entry(v kv.View, dir meta.Ino, name string) (e entry, ok bool, err error) {
	ok, err = get(v, s.entryKey(dir, name), &e)
	return e, ok, err
}
