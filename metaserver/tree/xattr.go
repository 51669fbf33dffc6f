package tree

import (
	"bytes"
	"slices"
	"strings"

	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
)

// inlineXattrs bounds the bytes of names and values kept in the inode.
const inlineXattrs = 1 << 10

// checkXattrName refuses names and namespaces that an inode cannot have.
func checkXattrName(name string) error {
	if name == "" || len(name) > meta.MaxName {
		return fail("tree.xattr", errs.Range, "attribute name of %d bytes", len(name))
	}
	if strings.IndexByte(name, 0) >= 0 {
		return fail("tree.xattr", errs.Invalid, "attribute name holds NUL")
	}
	for _, space := range [...]string{"user.", "trusted.", "security."} {
		if strings.HasPrefix(name, space) {
			if len(name) == len(space) {
				return fail("tree.xattr", errs.Invalid, "attribute name %q ends with its namespace", name)
			}
			return nil
		}
	}
	return fail("tree.xattr", errs.Unsupported, "attribute namespace of %q", name)
}

// checkXattrWrite applies the rules of the namespaces.
func checkXattrWrite(cred meta.Cred, n *node, name string) error {
	if err := checkXattrName(name); err != nil {
		return err
	}
	switch {
	case strings.HasPrefix(name, "trusted."):
		if cred.UID != 0 {
			return fail("tree.xattr", errs.Permission, "trusted attributes are for root")
		}
	case strings.HasPrefix(name, "user."):
		if !n.IsRegular() && !n.IsDir() {
			return fail("tree.xattr", errs.Permission, "user attributes are for files and directories")
		}
		if n.IsDir() && n.Mode&meta.ModeSticky != 0 && cred.UID != 0 && cred.UID != n.UID {
			return fail("tree.xattr", errs.Permission, "directory %d is sticky", n.Ino)
		}
	}
	return nil
}

// xattrAt finds a name among the inline attributes.
func (n *inode) xattrAt(name string) (int, bool) {
	return slices.BinarySearchFunc(n.Xattrs, name, func(a xattr, name string) int {
		return strings.Compare(a.Name, name)
	})
}

// xattr reads a value; the caller owns it.
func (s Space) xattr(v kv.View, n *inode, name string) (val []byte, ok bool, err error) {
	if i, ok := n.xattrAt(name); ok {
		return n.Xattrs[i].Value, true, nil
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
	if err := checkXattrWrite(x.Cred, n, x.Name); err != nil {
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
	u.touch(n)
	return &meta.EmptyResult{}, nil
}

// takeXattr removes an attribute that exists from where it is.
func (u *unit) takeXattr(n *node, name string) {
	if i, ok := n.xattrAt(name); ok {
		n.Xattrs = slices.Delete(n.Xattrs, i, i+1)
		return
	}
	u.del(u.xattrKey(n.Ino, name))
	n.XattrKeys--
}

// putXattr stores an attribute that does not exist: in the inode while it
// fits, else under its own key.
func (u *unit) putXattr(n *node, a xattr) {
	inline := a.size()
	for i := range n.Xattrs {
		inline += n.Xattrs[i].size()
	}
	if inline > inlineXattrs {
		u.set(u.xattrKey(n.Ino, a.Name), encode(&xattrRec{a.Value}))
		n.XattrKeys++
		return
	}
	i, _ := n.xattrAt(a.Name)
	n.Xattrs = slices.Insert(n.Xattrs, i, a)
}

// removeXattr executes RemoveXattr.
func (u *unit) removeXattr(x *meta.RemoveXattr) (meta.Result, error) {
	n, err := u.load(x.Ino)
	if err != nil {
		return nil, err
	}
	if err := checkXattrWrite(x.Cred, n, x.Name); err != nil {
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
	u.touch(n)
	return &meta.EmptyResult{}, nil
}

// getXattr executes GetXattr.
func (s Space) getXattr(v kv.View, x *meta.GetXattr) (meta.Result, error) {
	n, err := s.inode(v, x.Ino)
	if err != nil {
		return nil, err
	}
	if err := checkXattrName(x.Name); err != nil {
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
	for i := range n.Xattrs {
		names = append(names, n.Xattrs[i].Name)
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
