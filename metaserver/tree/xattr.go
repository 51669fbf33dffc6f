package tree

import (
	"bytes"
	"slices"
	"strings"

	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/rules"
)

// inlineXattrs bounds the bytes of names and values kept in the inode.
const inlineXattrs = 1 << 10

// xattrAt finds a name among the inline attributes.
func (n *inode) xattrAt(name string) (int, bool) {
	return slices.BinarySearchFunc(n.Small, name, func(a xattr, name string) int {
		return strings.Compare(a.Name, name)
	})
}

// xattr reads a value; the caller owns it.
func (s Space) xattr(v kv.View, n *inode, name string) (val []byte, ok bool, err error) {
	if i, ok := n.xattrAt(name); ok {
		return n.Small[i].Value, true, nil
	}
	if n.XattrKeys == 0 {
		return nil, false, nil
	}
	var rec xattrRec
	ok, err = get(v, s.xattrKey(n.Ino, name), &rec)
	return bytes.Clone(rec.Value), ok, err
}

// setXattr executes SetXattr.
func (u *unit) setXattr(x *meta.SetXattr) (meta.Result, error) {
	if x.Flags&^(meta.XattrCreate|meta.XattrReplace) != 0 {
		return nil, fail("tree.setxattr", errs.Invalid, "flags %#x", x.Flags)
	}
	n, err := u.load(x.Ino)
	if err != nil {
		return nil, err
	}
	if err := rules.CheckXattrWrite(x.Cred, &n.Attr, x.Name); err != nil {
		return nil, err
	}
	if len(x.Value) > meta.MaxXattr {
		return nil, fail("tree.setxattr", errs.TooBig, "value of %d bytes, the limit is %d", len(x.Value), meta.MaxXattr)
	}
	old, exists, err := u.xattr(u.tx, &n.inode, x.Name)
	if err != nil {
		return nil, err
	}
	fresh := xattr{x.Name, bytes.Clone(x.Value)}
	total := n.XattrSize + fresh.size()
	if exists {
		was := xattr{x.Name, old}
		total -= was.size()
	}
	switch {
	case exists && x.Flags&meta.XattrCreate != 0:
		return nil, fail("tree.setxattr", errs.Exist, "attribute %q exists", x.Name)
	case !exists && x.Flags&meta.XattrReplace != 0:
		return nil, fail("tree.setxattr", errs.NoAttr, "no attribute %q", x.Name)
	case total > meta.MaxXattrs:
		return nil, fail("tree.setxattr", errs.NoSpace, "%d bytes of attributes, the limit is %d", total, meta.MaxXattrs)
	}
	if exists {
		u.takeXattr(n, x.Name)
	}
	u.putXattr(n, fresh)
	n.XattrSize = total
	rules.Xattred(&n.Attr, true, u.st.Now)
	changed(n)
	return &meta.EmptyResult{}, nil
}

// takeXattr removes an attribute that exists from where it is.
func (u *unit) takeXattr(n *node, name string) {
	if i, ok := n.xattrAt(name); ok {
		n.Small = slices.Delete(n.Small, i, i+1)
		return
	}
	u.del(u.xattrKey(n.Ino, name))
	n.XattrKeys--
}

// putXattr stores an attribute that does not exist: in the inode while it
// fits, else under its own key.
func (u *unit) putXattr(n *node, a xattr) {
	inline := a.size()
	for i := range n.Small {
		inline += n.Small[i].size()
	}
	if inline > inlineXattrs {
		u.set(u.xattrKey(n.Ino, a.Name), encode(&xattrRec{a.Value}))
		n.XattrKeys++
		return
	}
	i, _ := n.xattrAt(a.Name)
	n.Small = slices.Insert(n.Small, i, a)
}

// removeXattr executes RemoveXattr.
func (u *unit) removeXattr(x *meta.RemoveXattr) (meta.Result, error) {
	n, err := u.load(x.Ino)
	if err != nil {
		return nil, err
	}
	if err := rules.CheckXattrWrite(x.Cred, &n.Attr, x.Name); err != nil {
		return nil, err
	}
	old, exists, err := u.xattr(u.tx, &n.inode, x.Name)
	if err != nil {
		return nil, err
	}
	if !exists {
		return nil, fail("tree.removexattr", errs.NoAttr, "no attribute %q", x.Name)
	}
	u.takeXattr(n, x.Name)
	was := xattr{x.Name, old}
	n.XattrSize -= was.size()
	rules.Xattred(&n.Attr, n.XattrSize > 0, u.st.Now)
	changed(n)
	return &meta.EmptyResult{}, nil
}

// getXattr executes GetXattr.
func (s Space) getXattr(v kv.View, x *meta.GetXattr) (meta.Result, error) {
	n, err := s.inode(v, x.Ino)
	if err != nil {
		return nil, err
	}
	if err := rules.CheckXattrName(x.Name); err != nil {
		return nil, err
	}
	val, ok, err := s.xattr(v, n, x.Name)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fail("tree.getxattr", errs.NoAttr, "no attribute %q", x.Name)
	}
	return &meta.BytesResult{Data: val}, nil
}

// listXattr executes ListXattr; MaxXattrs bounds what it reads.
func (s Space) listXattr(v kv.View, x *meta.ListXattr) (meta.Result, error) {
	n, err := s.inode(v, x.Ino)
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range n.Small {
		names = append(names, n.Small[i].Name)
	}
	if n.XattrKeys > 0 {
		lo := s.xattrKey(x.Ino, "")
		err = v.Scan(lo, keysEnd(lo), func(k, _ []byte) bool {
			names = append(names, string(k[len(lo):]))
			return true
		})
		slices.Sort(names)
	}
	return &meta.NamesResult{Names: names}, err
}
