package tree

import (
	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/rules"
)

// move is a rename with its inodes.
type move struct {
	*meta.Rename
	from, to *node // directories
	n        *node // what moves
	over     *node // what has the new name now, or nil
}

// rename executes Rename. The order of its checks is that of Linux.
func (u *unit) rename(x *meta.Rename) (meta.Result, error) {
	m, err := u.prepareMove(x)
	if err != nil {
		return nil, err
	}
	if err := u.checkLoops(m); err != nil {
		return nil, err
	}
	r := m.rules()
	if r.Nothing() { // two names of one file, or one name
		return &meta.AttrResult{Attr: m.n.Attr}, nil
	}
	if err := r.Check(); err != nil {
		return nil, err
	}
	r.Apply(u.st.Now)
	changed(m.from, m.to, m.n)
	if m.over != nil {
		changed(m.over)
	}
	if x.Flags&meta.RenameExchange != 0 {
		err = u.exchange(m)
	} else {
		err = u.replace(m)
	}
	if err != nil {
		return nil, err
	}
	return &meta.AttrResult{Attr: m.n.Attr}, nil
}

func (m *move) rules() *rules.Move {
	r := &rules.Move{Op: m.Rename, From: &m.from.Attr, To: &m.to.Attr, Moved: &m.n.Attr}
	if m.over != nil {
		r.Over = &m.over.Attr
	}
	return r
}

// prepareMove resolves both names and checks flags against what exists.
func (u *unit) prepareMove(x *meta.Rename) (*move, error) {
	if err := rules.CheckRename(x); err != nil {
		return nil, err
	}
	m := &move{Rename: x}
	var err error
	if m.from, m.n, err = u.victim(x.OldParent, x.OldName); err != nil {
		return nil, err
	}
	if m.to, err = u.loadDir(x.NewParent); err != nil {
		return nil, err
	}
	e, exists, err := u.entry(u.tx, x.NewParent, x.NewName)
	if err != nil {
		return nil, err
	}
	if err := rules.CheckNew(x, &m.to.Attr, exists); err != nil {
		return nil, err
	}
	if exists {
		m.over, err = u.loadEntry(e)
	}
	return m, err
}

// checkLoops refuses to make a directory its own descendant.
func (u *unit) checkLoops(m *move) error {
	if m.from == m.to {
		return nil
	}
	if m.n.IsDir() {
		below, err := u.within(u.tx, m.n.Ino, m.to.Ino)
		if err != nil {
			return err
		}
		if below {
			return fail("tree.rename", errs.Invalid, "directory %d would become its own descendant", m.n.Ino)
		}
	}
	if m.over == nil || !m.over.IsDir() {
		return nil
	}
	above, err := u.within(u.tx, m.over.Ino, m.from.Ino)
	if err != nil || !above {
		return err
	}
	if m.Flags&meta.RenameExchange != 0 {
		return fail("tree.rename", errs.Invalid, "directory %d would become its own descendant", m.over.Ino)
	}
	return fail("tree.rename", errs.NotEmpty, "directory %d holds what is moved", m.over.Ino)
}

// replace moves m.n to the new name, over what is there.
func (u *unit) replace(m *move) error {
	if m.over != nil {
		if err := u.unlinked(m.over, m.to); err != nil {
			return err
		}
		u.dropEntry(m.to, m.NewName)
	}
	u.dropEntry(m.from, m.OldName)
	u.addEntry(m.to, m.NewName, m.n)
	return u.moved(m.n, m.from, m.to)
}

// exchange swaps what the two names stand for.
func (u *unit) exchange(m *move) error {
	u.set(u.entryKey(m.from.Ino, m.OldName), encode(&entry{Ino: m.over.Ino, Type: m.over.Mode & meta.ModeType}))
	u.set(u.entryKey(m.to.Ino, m.NewName), encode(&entry{Ino: m.n.Ino, Type: m.n.Mode & meta.ModeType}))
	if err := u.moved(m.n, m.from, m.to); err != nil {
		return err
	}
	return u.moved(m.over, m.to, m.from)
}

// moved books that a name of n went from one directory to another.
func (u *unit) moved(n, from, to *node) error {
	if from == to {
		return nil
	}
	if n.Nlink == 1 || n.IsDir() {
		n.Parent = to.Ino
		return nil
	}
	if err := u.countParent(n.Ino, from.Ino, -1); err != nil {
		return err
	}
	return u.countParent(n.Ino, to.Ino, 1)
}

// maxDepth ends walks to the root that a damaged store made endless.
const maxDepth = 1 << 20

// within reports whether dir is root or lies below it.
func (s Space) within(v kv.View, root, dir meta.Ino) (bool, error) {
	for range maxDepth {
		if dir == root {
			return true, nil
		}
		if dir == meta.RootIno || dir == 0 {
			return false, nil
		}
		n, err := s.inode(v, dir)
		if err != nil {
			if errs.Is(err, errs.Stale) {
				return false, nil
			}
			return false, err
		}
		dir = n.Parent
	}
	return false, fail("tree.parents", errs.Corrupt, "the parents of inode %d form a ring", dir)
}

// maxParents bounds the parents of a file with several links that InSubtree
// looks at.
const maxParents = 64

// InSubtree reports whether ino is root or lies below it, by stored parents.
// A file with several links counts when one of the first maxParents
// directories that hold it does. An orphan lies nowhere.
func (s Space) InSubtree(v kv.View, root, ino meta.Ino) (bool, error) {
	if ino == root {
		return true, nil
	}
	n, err := s.inode(v, ino)
	if err != nil {
		return false, err
	}
	if n.Nlink <= 1 || n.IsDir() {
		return s.within(v, root, n.Parent)
	}
	var parents []meta.Ino
	lo := key(prefixParent, uint64(s.Layer), uint64(ino))
	err = v.Scan(lo, keysEnd(lo), func(k, _ []byte) bool {
		parents = append(parents, meta.Ino(keyInt(k, 2)))
		return len(parents) < maxParents
	})
	if err != nil {
		return false, err
	}
	for _, p := range parents {
		if in, err := s.within(v, root, p); err != nil || in {
			return in, err
		}
	}
	return false, nil
}
