package tree

import (
	"math"
	"strings"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/rules"
)

// lookup executes Lookup.
func (s Space) lookup(v kv.View, x *meta.Lookup) (meta.Result, error) {
	if err := rules.CheckName(x.Name); err != nil {
		return nil, err
	}
	n, err := s.child(v, x.Parent, x.Name)
	if err != nil {
		return nil, err
	}
	return &meta.EntryResult{Attr: n.Attr}, nil
}

// child reads the inode behind a name. errs.NotExist: there is no such name.
func (s Space) child(v kv.View, dir meta.Ino, name string) (*inode, error) {
	if _, err := s.dir(v, dir); err != nil {
		return nil, err
	}
	e, ok, err := s.entry(v, dir, name)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fail("tree.lookup", errs.NotExist, "no %q in directory %d", name, dir)
	}
	n, err := s.inode(v, e.Ino)
	if errs.Is(err, errs.Stale) {
		return nil, fail("tree.lookup", errs.Corrupt, "%q in directory %d names inode %d, which does not exist", name, dir, e.Ino)
	}
	return n, err
}

// NameOf reads which inode a name in dir stands for; ok is false if there is no
// such name, or no such directory.
func (s Space) NameOf(v kv.View, dir meta.Ino, name string) (ino meta.Ino, ok bool, err error) {
	e, ok, err := s.entry(v, dir, name)
	return e.Ino, ok, err
}

// wanted reads the attributes for an Acquire; who gets which lease is not
// decided here.
func (s Space) wanted(v kv.View, x *meta.Acquire) (meta.Result, error) {
	res := &meta.AcquireResult{Attrs: make([]meta.Attr, len(x.Wants))}
	for i, w := range x.Wants {
		n, err := s.inode(v, w.Ino)
		if errs.Is(err, errs.Stale) {
			continue
		}
		if err != nil {
			return nil, err
		}
		res.Attrs[i] = n.Attr
	}
	return res, nil
}

// readlink executes Readlink.
func (s Space) readlink(v kv.View, x *meta.Readlink) (meta.Result, error) {
	n, err := s.inode(v, x.Ino)
	if err != nil {
		return nil, err
	}
	if n.Mode&meta.ModeType != meta.ModeSymlink {
		return nil, fail("tree.readlink", errs.Invalid, "inode %d is not a symbolic link", x.Ino)
	}
	return &meta.BytesResult{Data: []byte(n.Target)}, nil
}

// maxMap bounds the extents of one ReadMap, maxDead the dead ones it passes
// over.
const (
	maxMap  = 4096
	maxDead = 4096
)

// readMap executes ReadMap.
func (s Space) readMap(v kv.View, x *meta.ReadMap) (meta.Result, error) {
	n, err := s.inode(v, x.Ino)
	if err != nil {
		return nil, err
	}
	if n.IsDir() {
		return nil, fail("tree.readmap", errs.IsDir, "inode %d is a directory", x.Ino)
	}
	if !n.IsRegular() {
		return nil, fail("tree.readmap", errs.Invalid, "inode %d is not a regular file", x.Ino)
	}
	hi := x.Off + min(x.Len, math.MaxUint64-x.Off)
	limit := int(min(x.Limit, maxMap))
	if limit == 0 {
		limit = maxMap
	}
	res := &meta.MapResult{Attr: n.Attr, Covered: hi}
	if x.Off >= meta.MaxSize || x.Len == 0 {
		return res, nil
	}
	living, dead, full := 0, 0, false
	found, _, err := s.collect(v, n, x.Off, math.MaxInt, func(e *extent) bool {
		if n.Trim.covers(e) {
			dead++
			full = dead > maxDead
		} else {
			if e.Off >= hi {
				return false
			}
			full = living == limit
			living++
		}
		return !full
	})
	if err != nil {
		return nil, err
	}
	for i := range found {
		if !n.Trim.covers(&found[i]) {
			res.Extents = append(res.Extents, found[i].Extent)
		}
	}
	if full {
		if len(res.Extents) == 0 {
			return nil, fail("tree.readmap", errs.Again, "inode %d has a trim pending", x.Ino)
		}
		last := &res.Extents[len(res.Extents)-1]
		res.Covered = min(hi, last.Off+uint64(last.Len))
	}
	res.Blocks, err = s.refs(v, res.Extents)
	return res, err
}

// refs reads the blocks that exts name, each once, in order of appearance.
func (s Space) refs(v kv.View, exts []meta.Extent) ([]meta.BlockRef, error) {
	var list []meta.BlockRef
	seen := make(map[chunk.BlockID]bool, len(exts))
	for i := range exts {
		id := exts[i].Block
		if exts[i].Kind != meta.ExtentBlock || seen[id] {
			continue
		}
		seen[id] = true
		rec, ok, err := block(v, id)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fail("tree.readmap", errs.Corrupt, "block %v has no record", id)
		}
		list = append(list, meta.BlockRef{ID: id, PG: rec.PG, Epoch: rec.Epoch, Len: rec.Len, Missing: rec.Missing})
	}
	return list, nil
}

// walk splits a path into names.
func walk(path string) ([]string, error) {
	if len(path) > meta.MaxPath {
		return nil, fail("tree.path", errs.NameTooLong, "path of %d bytes, the limit is %d", len(path), meta.MaxPath)
	}
	var names []string
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		if err := rules.CheckName(name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// ResolvePath walks the names of a path from the root; empty names are
// skipped, "." and ".." refused, symbolic links not followed (errs.NotDir).
func (s Space) ResolvePath(v kv.View, path string) (meta.Attr, error) {
	names, err := walk(path)
	if err != nil {
		return meta.Attr{}, err
	}
	n, err := s.inode(v, meta.RootIno)
	for _, name := range names {
		if err != nil {
			break
		}
		n, err = s.child(v, n.Ino, name)
	}
	if err != nil {
		return meta.Attr{}, err
	}
	return n.Attr, nil
}

// MakePath is mkdir -p: it creates what is missing, as root with mode 0755,
// and returns the last directory.
func (s Space) MakePath(tx kv.Tx, st Stamp, path string) (meta.Attr, error) {
	names, err := walk(path)
	if err != nil {
		return meta.Attr{}, err
	}
	at, err := s.dir(tx, meta.RootIno)
	if err != nil {
		return meta.Attr{}, err
	}
	for i, name := range names {
		n, err := s.child(tx, at.Ino, name)
		if errs.Is(err, errs.NotExist) {
			return s.makeRest(tx, st, at.Ino, names[i:])
		}
		if err != nil {
			return meta.Attr{}, err
		}
		if at = n; !n.IsDir() {
			return meta.Attr{}, fail("tree.path", errs.NotDir, "%q is not a directory", name)
		}
	}
	return at.Attr, nil
}

func (s Space) makeRest(tx kv.Tx, st Stamp, at meta.Ino, names []string) (attr meta.Attr, err error) {
	for _, name := range names {
		res, err := s.Apply(tx, st, &meta.Make{Parent: at, Name: name, Mode: meta.ModeDir | 0o755, Excl: true})
		if err != nil {
			return meta.Attr{}, err
		}
		attr = res.(*meta.EntryResult).Attr
		at = attr.Ino
	}
	return attr, nil
}
