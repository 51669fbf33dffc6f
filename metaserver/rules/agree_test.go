package rules_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/rules"
	"agentdrive/metaserver/tree"
)

// mirror is what a client with every lease knows: attributes and names. It
// executes operations with the rules alone.
type mirror struct {
	attrs  map[meta.Ino]*meta.Attr
	names  map[meta.Ino]map[string]meta.Ino
	parent map[meta.Ino]meta.Ino // of directories
	xattrs map[meta.Ino]map[string]bool
	next   meta.Ino // number of the next inode: taken from what the tree chose
}

func newMirror(root meta.Attr) *mirror {
	return &mirror{
		attrs:  map[meta.Ino]*meta.Attr{root.Ino: &root},
		names:  map[meta.Ino]map[string]meta.Ino{root.Ino: {}},
		parent: map[meta.Ino]meta.Ino{root.Ino: root.Ino},
		xattrs: map[meta.Ino]map[string]bool{},
	}
}

func kindErr(k errs.Kind) error { return errs.E("mirror", k, "", nil) }

// inode and dir find what an operation names by number.
func (m *mirror) inode(ino meta.Ino) (*meta.Attr, error) {
	if a := m.attrs[ino]; a != nil {
		return a, nil
	}
	return nil, kindErr(errs.Stale)
}

func (m *mirror) dir(ino meta.Ino) (*meta.Attr, error) {
	a, err := m.inode(ino)
	if err == nil {
		err = rules.CheckDir(a)
	}
	return a, err
}

// victim finds a name that is to be taken away.
func (m *mirror) victim(parent meta.Ino, name string) (dir, n *meta.Attr, err error) {
	if err := rules.CheckName(name); err != nil {
		return nil, nil, err
	}
	if dir, err = m.dir(parent); err != nil {
		return nil, nil, err
	}
	ino, ok := m.names[parent][name]
	if !ok {
		return nil, nil, kindErr(errs.NotExist)
	}
	return dir, m.attrs[ino], nil
}

// do executes op and gives the inode whose attributes are the result.
func (m *mirror) do(op meta.Op, now int64) (meta.Ino, error) {
	switch x := op.(type) {
	case *meta.Make:
		return m.create(x, now)
	case *meta.Link:
		return m.link(x, now)
	case *meta.Unlink:
		dir, n, err := m.victim(x.Parent, x.Name)
		if err == nil {
			err = rules.CheckUnlink(x, dir, n)
		}
		return m.remove(dir, n, x.Name, now, err)
	case *meta.Rmdir:
		dir, n, err := m.victim(x.Parent, x.Name)
		if err == nil {
			err = rules.CheckRmdir(x, dir, n)
		}
		return m.remove(dir, n, x.Name, now, err)
	case *meta.Rename:
		return m.rename(x, now)
	case *meta.SetAttr:
		n, err := m.inode(x.Ino)
		if err != nil {
			return 0, err
		}
		return x.Ino, rules.SetAttr(n, x, now)
	case *meta.Write:
		n, err := m.inode(x.Ino)
		if err == nil {
			err = rules.CheckWrite(n)
		}
		if err != nil {
			return 0, err
		}
		end := x.Extents[0].Off + uint64(x.Extents[0].Len)
		if x.Append {
			end += n.Size
		}
		rules.Wrote(n, x.Cred, end, x.KillPriv, now)
		return x.Ino, nil
	case *meta.SetXattr:
		return m.xattr(x.Cred, x.Ino, x.Name, true, now)
	case *meta.RemoveXattr:
		return m.xattr(x.Cred, x.Ino, x.Name, false, now)
	}
	panic(fmt.Sprintf("%T", op))
}

func (m *mirror) create(x *meta.Make, now int64) (meta.Ino, error) {
	mode, err := rules.CheckMake(x)
	if err != nil {
		return 0, err
	}
	dir, err := m.dir(x.Parent)
	if err != nil {
		return 0, err
	}
	if ino, taken := m.names[x.Parent][x.Name]; taken {
		return ino, rules.Existing(x, mode, m.attrs[ino].Mode)
	}
	if err := rules.CheckLive(dir); err != nil {
		return 0, err
	}
	n := rules.Born(dir, x, mode, m.next, now)
	rules.Made(dir, &n, now)
	m.attrs[n.Ino] = &n
	m.names[x.Parent][x.Name] = n.Ino
	if n.IsDir() {
		m.names[n.Ino], m.parent[n.Ino] = map[string]meta.Ino{}, x.Parent
	}
	return n.Ino, nil
}

func (m *mirror) link(x *meta.Link, now int64) (meta.Ino, error) {
	if err := rules.CheckName(x.Name); err != nil {
		return 0, err
	}
	n, err := m.inode(x.Ino)
	if err != nil {
		return 0, err
	}
	dir, err := m.dir(x.Parent)
	if err != nil {
		return 0, err
	}
	_, taken := m.names[x.Parent][x.Name]
	if err := rules.CheckLink(x, dir, n, taken); err != nil {
		return 0, err
	}
	rules.Linked(dir, n, now)
	m.names[x.Parent][x.Name] = n.Ino
	return n.Ino, nil
}

func (m *mirror) remove(dir, n *meta.Attr, name string, now int64, err error) (meta.Ino, error) {
	if err != nil {
		return 0, err
	}
	rules.Unlinked(dir, n, now)
	delete(m.names[dir.Ino], name)
	return n.Ino, nil
}

// within reports whether dir is root or lies below it.
func (m *mirror) within(root, dir meta.Ino) bool {
	for dir != root {
		if dir == meta.RootIno {
			return false
		}
		dir = m.parent[dir]
	}
	return true
}

func (m *mirror) rename(x *meta.Rename, now int64) (meta.Ino, error) {
	if err := rules.CheckRename(x); err != nil {
		return 0, err
	}
	from, n, err := m.victim(x.OldParent, x.OldName)
	if err != nil {
		return 0, err
	}
	to, err := m.dir(x.NewParent)
	if err != nil {
		return 0, err
	}
	ino, taken := m.names[x.NewParent][x.NewName]
	if err := rules.CheckNew(x, to, taken); err != nil {
		return 0, err
	}
	move := rules.Move{Op: x, From: from, To: to, Moved: n, Over: m.attrs[ino]}
	exchange := x.Flags&meta.RenameExchange != 0
	if from != to && n.IsDir() && m.within(n.Ino, to.Ino) {
		return 0, kindErr(errs.Invalid)
	}
	if from != to && taken && move.Over.IsDir() && m.within(move.Over.Ino, from.Ino) {
		if exchange {
			return 0, kindErr(errs.Invalid)
		}
		return 0, kindErr(errs.NotEmpty)
	}
	if move.Nothing() {
		return n.Ino, nil
	}
	if err := move.Check(); err != nil {
		return 0, err
	}
	move.Apply(now)
	delete(m.names[from.Ino], x.OldName)
	if exchange {
		m.names[from.Ino][x.OldName] = ino
		m.parent[ino] = from.Ino
	}
	m.names[to.Ino][x.NewName] = n.Ino
	m.parent[n.Ino] = to.Ino
	return n.Ino, nil
}

func (m *mirror) xattr(cred meta.Cred, ino meta.Ino, name string, set bool, now int64) (meta.Ino, error) {
	n, err := m.inode(ino)
	if err == nil {
		err = rules.CheckXattrWrite(cred, n, name)
	}
	if err != nil {
		return 0, err
	}
	have := m.xattrs[ino]
	if have == nil {
		have = map[string]bool{}
		m.xattrs[ino] = have
	}
	if set {
		have[name] = true
	} else if !have[name] {
		return 0, kindErr(errs.NoAttr)
	} else {
		delete(have, name)
	}
	rules.Xattred(n, len(have) > 0, now)
	return ino, nil
}

// draw makes up operations on few names and inodes, so that they meet.
type draw struct {
	*rand.Rand
	inos []meta.Ino // that were made
	dirs []meta.Ino
}

func (r draw) ino() meta.Ino {
	if r.IntN(20) == 0 {
		return 9999 // there is none
	}
	return r.inos[r.IntN(len(r.inos))]
}

// parent is mostly a directory.
func (r draw) parent() meta.Ino {
	if r.IntN(10) == 0 {
		return r.ino()
	}
	return r.dirs[r.IntN(len(r.dirs))]
}

func (r draw) name() string {
	return []string{"a", "b", "c", "d", "e", "f", ".", ""}[min(r.IntN(40), r.IntN(40))*8/40]
}

func (r draw) cred() meta.Cred {
	if r.IntN(2) == 0 {
		return meta.Cred{}
	}
	return meta.Cred{UID: uint32(r.IntN(3)), GID: uint32(r.IntN(3))}
}

func (r draw) op() meta.Op {
	cred, name := r.cred(), r.name()
	types := []uint32{0, meta.ModeRegular, meta.ModeDir, meta.ModeDir, meta.ModeDir, meta.ModeSymlink, meta.ModeFIFO, meta.ModeChar, meta.ModeType}
	switch r.IntN(14) {
	case 0, 1, 2:
		return &meta.Make{Cred: cred, Parent: r.parent(), Name: name, Mode: types[r.IntN(len(types))] | uint32(r.IntN(0o10000)),
			Rdev: 5, Target: r.name(), Excl: r.IntN(2) == 0}
	case 3:
		return &meta.Link{Cred: cred, Ino: r.ino(), Parent: r.parent(), Name: name}
	case 4:
		return &meta.Unlink{Cred: cred, Parent: r.parent(), Name: name}
	case 5:
		return &meta.Rmdir{Cred: cred, Parent: r.parent(), Name: name}
	case 6, 7:
		return &meta.Rename{Cred: cred, OldParent: r.parent(), OldName: name, NewParent: r.parent(), NewName: r.name(), Flags: uint32(r.IntN(4))}
	case 8, 9:
		set := uint32(1) << r.IntN(9)
		for r.IntN(2) == 0 {
			set |= 1 << r.IntN(10)
		}
		return &meta.SetAttr{Cred: cred, Ino: r.ino(), Set: set, Mode: uint32(r.IntN(0o10000)), UID: uint32(r.IntN(3)), GID: uint32(r.IntN(3)),
			Size: uint64(r.IntN(3) * 500), Atime: r.Int64N(1e6), Mtime: r.Int64N(1e6)}
	case 10:
		return &meta.Write{Cred: cred, Ino: r.ino(), Append: r.IntN(4) == 0, KillPriv: r.IntN(2) == 0,
			Extents: []meta.Extent{{Off: uint64(r.IntN(1000)), Len: 3, Kind: meta.ExtentInline, Inline: []byte("abc")}}}
	}
	x := []string{"user.a", "user.a", "user.a", "trusted.a", "user.", "bad.a"}[r.IntN(6)]
	if r.IntN(2) == 0 {
		return &meta.RemoveXattr{Cred: cred, Ino: r.ino(), Name: x}
	}
	return &meta.SetXattr{Cred: cred, Ino: r.ino(), Name: x, Value: make([]byte, r.IntN(900))}
}

// TestRulesAgreeWithTree runs random operations through the tree and through a
// mirror that has only the rules: the same errors, and the same attributes of
// every inode that an operation could concern.
func TestRulesAgreeWithTree(t *testing.T) {
	counts := map[string]int{}
	for seed := range uint64(40) {
		agree(t, seed, 1000, counts)
	}
	for k := meta.KindMake; k <= meta.KindWrite; k++ {
		for _, ok := range []bool{true, false} {
			if what := fmt.Sprintf("%T, success %v", meta.NewOp(k), ok); counts[what] < 50 {
				t.Errorf("%s: only %d", what, counts[what])
			}
		}
	}
}

func agree(t *testing.T, seed uint64, steps int, counts map[string]int) {
	r := draw{rand.New(rand.NewPCG(seed, 1)), []meta.Ino{meta.RootIno}, []meta.Ino{meta.RootIno}}
	space, store := tree.Space{Drive: 1, Layer: 1}, kv.NewMem()
	tx := store.Begin()
	if err := space.Init(tx, tree.Stamp{Index: 1, Now: 100}, 0o1777, 0, 0); err != nil {
		t.Fatal(err)
	}
	m := newMirror(attrOf(t, space, tx, meta.RootIno))
	for step := range steps {
		op, now := r.op(), int64(200+step*r.IntN(5)-r.IntN(300))
		res, err := space.Apply(tx, tree.Stamp{Index: 2, Now: now}, op)
		if e, ok := res.(*meta.EntryResult); ok && e.Created {
			m.next = e.Attr.Ino
			r.inos = append(r.inos, m.next)
			if e.Attr.IsDir() {
				r.dirs = append(r.dirs, m.next)
			}
			r.inos, r.dirs = r.inos[max(0, len(r.inos)-40):], r.dirs[max(0, len(r.dirs)-6):]
		}
		ino, want := m.do(op, now)
		if (err == nil) != (want == nil) || errs.KindOf(err) != errs.KindOf(want) {
			t.Fatalf("seed %d, step %d: %T %+v: tree %v, rules %v", seed, step, op, op, err, want)
		}
		counts[fmt.Sprintf("%T, success %v", op, err == nil)]++
		for _, i := range slices.Concat(r.inos, r.dirs, []meta.Ino{ino}) {
			if i == 0 || err != nil && i == ino {
				continue
			}
			got, have := attrOf(t, space, tx, i), *m.attrs[i]
			if have.Bytes = got.Bytes; got != have {
				t.Fatalf("seed %d, step %d: %T %+v\ninode %d: tree  %+v\nrules %+v", seed, step, op, op, i, got, have)
			}
		}
	}
}

func attrOf(t *testing.T, space tree.Space, v kv.View, ino meta.Ino) meta.Attr {
	t.Helper()
	res, err := space.Read(v, &meta.GetAttr{Ino: ino})
	if err != nil {
		t.Fatal(err)
	}
	return res.(*meta.AttrResult).Attr
}
