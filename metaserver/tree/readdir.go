package tree

import (
	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
)

// maxPage bounds the entries of one page, apart from the rest of the last
// cookie.
const maxPage = 4096

// readDir executes ReadDir. A page costs one scan of its entries and one key
// more; with attributes, a second scan where the inodes lie together, else one
// read an entry.
func (s Space) readDir(v kv.View, x *meta.ReadDir) (meta.Result, error) {
	dir, err := s.dir(v, x.Dir)
	if err != nil {
		return nil, err
	}
	res := &meta.DirResult{EOF: true, Plus: x.Plus}
	if dir.Size == 0 || x.Cookie >= 1<<63-1 {
		return res, nil
	}
	limit := int(min(x.Limit, maxPage))
	if limit == 0 {
		limit = maxPage
	}
	lo := key(prefixEntry, uint64(s.Layer), uint64(x.Dir), max(x.Cookie+1, meta.FirstCookie))
	hi := key(prefixEntry, uint64(s.Layer), uint64(x.Dir)+1)
	var failed error
	err = v.Scan(lo, hi, func(k, val []byte) bool {
		cookie := keyInt(k, 2)
		if n := len(res.Entries); n >= limit && res.Entries[n-1].Cookie != cookie {
			res.EOF = false
			return false
		}
		var e entry
		if failed = decode(k, val, &e); failed != nil {
			return false
		}
		res.Entries = append(res.Entries, meta.DirEntry{
			Name: string(k[25:]), Cookie: cookie, Attr: meta.Attr{Ino: e.Ino, Mode: e.Type},
		})
		return true
	})
	if err == nil {
		err = failed
	}
	if err == nil && x.Plus {
		err = s.fillAttrs(v, dir, res)
	}
	return res, err
}

// fillAttrs puts attributes to the entries of a page.
func (s Space) fillAttrs(v kv.View, dir *inode, res *meta.DirResult) error {
	near, err := s.siblings(v, dir, res)
	if err != nil {
		return err
	}
	for i := range res.Entries {
		e := &res.Entries[i]
		if attr, ok := near[e.Attr.Ino]; ok {
			e.Attr = attr
			continue
		}
		n, err := s.inode(v, e.Attr.Ino)
		if errs.Is(err, errs.Stale) {
			return fail("tree.readdir", errs.Corrupt, "%q in directory %d names inode %d, which does not exist", e.Name, dir.Ino, e.Attr.Ino)
		}
		if err != nil {
			return err
		}
		e.Attr = n.Attr
	}
	return nil
}

// siblings scans the inodes of a small directory that fits the page: those in
// its locality group between the lowest and the highest number in the page.
// It gives up when they turn out to lie far apart.
func (s Space) siblings(v kv.View, dir *inode, res *meta.DirResult) (map[meta.Ino]meta.Attr, error) {
	if len(res.Entries) < 2 || uint64(len(res.Entries)) != dir.Size {
		return nil, nil
	}
	var lo, hi meta.Ino
	wanted := 0
	for i := range res.Entries {
		ino := res.Entries[i].Attr.Ino
		if uint64(ino)>>meta.SlotBits != dir.Group {
			continue
		}
		if wanted++; wanted == 1 {
			lo = ino
		}
		lo, hi = min(lo, ino), max(hi, ino)
	}
	if wanted*2 < len(res.Entries) || wanted < 2 {
		return nil, nil
	}
	found := make(map[meta.Ino]meta.Attr, wanted)
	budget := 2*wanted + 16
	var failed error
	err := v.Scan(s.inodeKey(lo), s.inodeKey(hi+1), func(k, val []byte) bool {
		var n inode
		if failed = decode(k, val, &n); failed != nil {
			return false
		}
		n.Ino = meta.Ino(keyInt(k, 1))
		found[n.Ino] = n.Attr
		budget--
		return budget > 0
	})
	if err == nil {
		err = failed
	}
	return found, err
}
