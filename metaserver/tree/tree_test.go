package tree

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// refuse expects a kind of error and that nothing was written.
func (w *world) refuse(kind errs.Kind, op meta.Op) {
	w.t.Helper()
	before := w.dump()
	if _, err := w.try(op); !errs.Is(err, kind) {
		w.t.Errorf("%T %+v: %v, want %v", op, op, err, kind)
	}
	if w.dump() != before {
		w.t.Errorf("%T %+v changed the state", op, op)
	}
}

func (w *world) dump() string {
	var b strings.Builder
	if err := w.tx.Tx.Scan(nil, nil, func(k, val []byte) bool {
		fmt.Fprintf(&b, "%q %q\n", k, val)
		return true
	}); err != nil {
		w.t.Fatal(err)
	}
	return b.String()
}

const (
	file = meta.ModeRegular | 0o644
	dir  = meta.ModeDir | 0o755
)

func TestNames(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("x", meta.MaxName)
	w.make(meta.RootIno, long, file)
	w.make(meta.RootIno, "\xff\x01\n", file)
	for name, kind := range map[string]errs.Kind{
		"": errs.Invalid, ".": errs.Invalid, "..": errs.Invalid, "a/b": errs.Invalid, "a\x00": errs.Invalid,
		long + "x": errs.NameTooLong,
	} {
		f := w.make(meta.RootIno, "f", file).Ino
		w.refuse(kind, &meta.Make{Parent: meta.RootIno, Name: name, Mode: file})
		w.refuse(kind, &meta.Lookup{Parent: meta.RootIno, Name: name})
		w.refuse(kind, &meta.Link{Ino: f, Parent: meta.RootIno, Name: name})
		w.refuse(kind, &meta.Unlink{Parent: meta.RootIno, Name: name})
		w.refuse(kind, &meta.Rmdir{Parent: meta.RootIno, Name: name})
		w.refuse(kind, &meta.Rename{OldParent: meta.RootIno, OldName: name, NewParent: meta.RootIno, NewName: "y"})
		w.refuse(kind, &meta.Rename{OldParent: meta.RootIno, OldName: "f", NewParent: meta.RootIno, NewName: name})
		w.do(&meta.Unlink{Parent: meta.RootIno, Name: "f"})
	}
	w.check()
}

func TestMakeRefused(t *testing.T) {
	w := newWorld(t)
	f := w.make(meta.RootIno, "f", file).Ino
	d := w.make(meta.RootIno, "d", dir).Ino
	for _, c := range []struct {
		kind errs.Kind
		op   meta.Op
	}{
		{errs.Stale, &meta.Make{Parent: 99, Name: "x", Mode: file}},
		{errs.NotDir, &meta.Make{Parent: f, Name: "x", Mode: file}},
		{errs.Exist, &meta.Make{Parent: meta.RootIno, Name: "f", Mode: file, Excl: true}},
		{errs.IsDir, &meta.Make{Parent: meta.RootIno, Name: "d", Mode: file}},
		{errs.Exist, &meta.Make{Parent: meta.RootIno, Name: "f", Mode: dir}},
		{errs.Invalid, &meta.Make{Parent: meta.RootIno, Name: "x", Mode: 0o150000}},
		{errs.NotExist, &meta.Make{Parent: meta.RootIno, Name: "x", Mode: meta.ModeSymlink}},
		{errs.NameTooLong, &meta.Make{Parent: meta.RootIno, Name: "x", Mode: meta.ModeSymlink, Target: strings.Repeat("t", meta.MaxTarget+1)}},
		{errs.Invalid, &meta.Make{Parent: meta.RootIno, Name: "x", Mode: meta.ModeSymlink, Target: "a\x00"}},
		{errs.Permission, &meta.Link{Ino: d, Parent: meta.RootIno, Name: "x"}},
		{errs.Exist, &meta.Link{Ino: d, Parent: meta.RootIno, Name: "f"}},
		{errs.Invalid, &meta.Rename{OldParent: meta.RootIno, OldName: "f", NewParent: meta.RootIno, NewName: "x", Flags: 3}},
		{errs.Invalid, &meta.Rename{OldParent: meta.RootIno, OldName: "f", NewParent: meta.RootIno, NewName: "x", Flags: 4}},
		{errs.Invalid, &meta.SetAttr{Ino: f, Set: 1 << 20}},
		{errs.FileTooLarge, &meta.SetAttr{Ino: f, Set: meta.SetSize, Size: meta.MaxSize + 1}},
		{errs.IsDir, &meta.SetAttr{Ino: d, Set: meta.SetSize}},
		{errs.Invalid, &meta.LateAck{}},
		{errs.Invalid, &meta.SetXattr{Ino: f, Name: "user.a", Flags: 4}},
	} {
		w.refuse(c.kind, c.op)
	}
	if _, err := w.space.Apply(w.tx, w.st, &meta.GetAttr{Ino: f}); !errs.Is(err, errs.Invalid) {
		t.Error("a read was applied:", err)
	}
	if _, err := w.space.Read(w.tx, &meta.Unlink{}); !errs.Is(err, errs.Invalid) {
		t.Error("a mutation was read:", err)
	}
	if err := w.space.Init(w.tx, w.st, 0, 0, 0); !errs.Is(err, errs.Exist) {
		t.Error("a layer was created twice:", err)
	}
}

// TestLocality: children are born in groups of their directory, a new one when
// it is full.
func TestLocality(t *testing.T) {
	w := newWorld(t)
	d := w.make(meta.RootIno, "d", dir).Ino
	first := w.make(d, "a", file).Ino
	if second := w.make(d, "b", file).Ino; second != first+1 || first>>meta.SlotBits == d>>meta.SlotBits {
		t.Errorf("children %x and %x of %x", first, second, d)
	}
	e := w.make(meta.RootIno, "e", dir).Ino // takes the group behind
	w.make(e, "a", file)
	n, err := w.space.inode(w.tx, d)
	if err != nil {
		t.Fatal(err)
	}
	n.NextSlot = 1 << meta.SlotBits
	w.tx.Set(w.space.inodeKey(d), encode(n))
	if third := w.make(d, "c", file).Ino; third>>meta.SlotBits <= first>>meta.SlotBits+1 || third&(1<<meta.SlotBits-1) != 0 {
		t.Errorf("%x was born in a full group, or in that of another directory", third)
	}
	w.check()
}

// TestRemovedDirectory: a directory that a kernel still references takes no
// new names.
func TestRemovedDirectory(t *testing.T) {
	w := newWorld(t)
	d := w.make(meta.RootIno, "d", dir).Ino
	f := w.make(meta.RootIno, "f", file).Ino
	if a := w.do(&meta.Rmdir{Parent: meta.RootIno, Name: "d"}).(*meta.AttrResult).Attr; a.Nlink != 0 || a.Ino != d {
		t.Errorf("removed: %+v", a)
	}
	w.refuse(errs.NotExist, &meta.Make{Parent: d, Name: "x", Mode: file})
	w.refuse(errs.NotExist, &meta.Link{Ino: f, Parent: d, Name: "x"})
	w.refuse(errs.NotExist, &meta.Rename{OldParent: meta.RootIno, OldName: "f", NewParent: d, NewName: "x"})
	w.refuse(errs.NotExist, &meta.Lookup{Parent: d, Name: "x"})
	if p := w.do(&meta.ReadDir{Dir: d}).(*meta.DirResult); !p.EOF || len(p.Entries) != 0 {
		t.Errorf("listing %+v", p)
	}
	w.resolve(d)
	w.refuse(errs.Stale, &meta.GetAttr{Ino: d})
	w.do(&meta.Unlink{Parent: meta.RootIno, Name: "f"})
	w.refuse(errs.NotExist, &meta.Link{Ino: f, Parent: meta.RootIno, Name: "again"})
	w.check()
}

func (w *world) resolve(ino meta.Ino, pins ...meta.SessionID) {
	w.t.Helper()
	if err := w.space.ResolveOrphan(w.tx, w.st, ino, pins); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) unpin(session meta.SessionID, inos []meta.Ino) {
	w.t.Helper()
	if err := w.space.UnpinOrphans(w.tx, w.st, session, inos); err != nil {
		w.t.Fatal(err)
	}
}

// TestOrphan: an unlinked file lives, readable and writable, until the last
// session lets go of it.
func TestOrphan(t *testing.T) {
	w := newWorld(t)
	f := w.make(meta.RootIno, "f", file).Ino
	g := w.make(meta.RootIno, "g", file).Ino
	w.do(&meta.Rename{OldParent: meta.RootIno, OldName: "g", NewParent: meta.RootIno, NewName: "f"})
	list, err := w.space.Orphans(w.tx, 0, 10)
	if err != nil || len(list) != 1 || list[0].Ino != f || list[0].Resolved {
		t.Fatalf("orphans %+v, %v", list, err)
	}
	w.resolve(f, 5, 6)
	w.resolve(g, 5) // no orphan: nothing happens
	w.do(&meta.Write{Ino: f, Extents: []meta.Extent{{Len: 3, Kind: meta.ExtentInline, Inline: []byte("abc")}}})
	w.do(&meta.SetAttr{Ino: f, Set: meta.SetSize, Size: 2})
	w.check()
	w.unpin(5, []meta.Ino{f, g})
	w.unpin(5, []meta.Ino{f})
	if a := w.attr(f); a.Size != 2 || a.Nlink != 0 {
		t.Errorf("orphan %+v", a)
	}
	w.unpin(6, nil)
	w.refuse(errs.Stale, &meta.GetAttr{Ino: f})
	if _, files, _ := w.space.Stats(w.tx); files != 2 {
		t.Errorf("%d files", files)
	}
	w.check()
}

// TestSessionEnd: the pins of a session with many orphans go in steps.
func TestSessionEnd(t *testing.T) {
	w := newWorld(t)
	const n = unpinNow * 3
	for i := range n {
		name := fmt.Sprint(i)
		ino := w.make(meta.RootIno, name, file).Ino
		w.do(&meta.Unlink{Parent: meta.RootIno, Name: name})
		w.resolve(ino, 5)
	}
	w.tx.keys = 0
	w.unpin(5, nil)
	if w.tx.keys > unpinNow*12 {
		t.Errorf("the end of a session touched %d keys", w.tx.keys)
	}
	steps := w.reclaim(100)
	if _, files, _ := w.space.Stats(w.tx); files != 1 || steps < 3 {
		t.Errorf("%d files after %d steps", files, steps)
	}
	w.check()
}

// reclaim runs the queue empty and counts the steps.
func (w *world) reclaim(budget int) int {
	w.t.Helper()
	for steps := 1; ; steps++ {
		w.st.Index++
		done, err := w.space.ReclaimStep(w.tx, w.st, budget)
		if err != nil {
			w.t.Fatal(err)
		}
		if done {
			return steps
		}
	}
}

// TestDrop: a dropped drive is closed at once, frees its blocks, leaves other
// drives alone and in the end no key.
func TestDrop(t *testing.T) {
	w := newWorld(t)
	other := *w
	other.space.Layer = 3
	if err := other.space.Init(w.tx, w.st, 0o755, 0, 0); err != nil {
		t.Fatal(err)
	}
	other.make(meta.RootIno, "keep", file)
	kept := w.countKeys(3)
	for i := range 50 {
		d := w.make(meta.RootIno, fmt.Sprint("d", i), dir).Ino
		f := w.make(d, "f", file).Ino
		w.do(&meta.Link{Ino: f, Parent: meta.RootIno, Name: fmt.Sprint("l", i)})
		w.do(&meta.SetXattr{Ino: f, Name: "user.big", Value: make([]byte, 5000)})
		w.writeBlock(f, chunk.BlockID{9, byte(i)}, 0)
		g := w.make(d, "g", file).Ino
		w.writeBlock(g, chunk.BlockID{8, byte(i)}, 0)
		w.do(&meta.Unlink{Parent: d, Name: "g"})
		if i%2 == 0 {
			w.resolve(g, 5)
		}
	}
	w.check()
	if err := w.space.Drop(w.tx, w.st); err != nil {
		t.Fatal(err)
	}
	w.refuse(errs.Stale, &meta.Make{Parent: meta.RootIno, Name: "x", Mode: file})
	w.refuse(errs.Stale, &meta.GetAttr{Ino: meta.RootIno})
	w.unpin(5, nil)
	if steps := w.reclaim(40); steps < 5 {
		t.Errorf("%d steps", steps)
	}
	if n := w.countKeys(2); n != 0 {
		t.Errorf("%d keys left:\n%s", n, w.dump())
	}
	if n := w.countKeys(3); n != kept {
		t.Errorf("the other drive has %d keys, had %d", n, kept)
	}
	if list, err := FreedBlocks(w.tx, FreedKey{}, w.st.Now+1, 1000); len(list) != 100 || err != nil {
		t.Errorf("%d blocks freed, %v", len(list), err)
	}
	if err := w.space.Drop(w.tx, w.st); err != nil {
		t.Error("dropping again:", err)
	}
	other.check()
}

// countKeys counts keys that belong to a layer.
func (w *world) countKeys(layer uint64) (n int) {
	if err := w.tx.Scan(nil, nil, func(k, _ []byte) bool {
		at := 0
		if k[0] == prefixPin {
			at = 1
		}
		if k[0] != prefixBlock && k[0] != prefixFreed && k[0] != prefixRepair && k[0] != prefixTotals && keyInt(k, at) == layer {
			n++
		}
		return true
	}); err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *world) writeBlock(ino meta.Ino, id chunk.BlockID, off uint64) {
	w.t.Helper()
	w.do(&meta.Write{Ino: ino,
		Extents: []meta.Extent{{Off: off, Len: 100, Kind: meta.ExtentBlock, Block: id}},
		Blocks:  []meta.NewBlock{{ID: id, PG: 4, Epoch: 2, Len: 100, Acked: []chunk.ServerID{1, 2}, Missing: []chunk.ServerID{3}}}})
}

func TestPaths(t *testing.T) {
	w := newWorld(t)
	a, err := w.space.MakePath(w.tx, w.st, "/projects//alpha/")
	if err != nil || !a.IsDir() || a.Mode != dir {
		t.Fatalf("%+v, %v", a, err)
	}
	again, err := w.space.MakePath(w.tx, w.st, "projects/alpha")
	if err != nil || again.Ino != a.Ino {
		t.Errorf("again %+v, %v", again, err)
	}
	f := w.make(a.Ino, "f", file).Ino
	w.make(a.Ino, "s", meta.ModeRegular)
	for path, kind := range map[string]errs.Kind{
		"/projects/beta": errs.NotExist, "/projects/alpha/f/x": errs.NotDir, "/../x": errs.Invalid,
		strings.Repeat("/x", 3000): errs.NameTooLong,
	} {
		if _, err := w.space.ResolvePath(w.tx, path); !errs.Is(err, kind) {
			t.Errorf("%.20q: %v, want %v", path, err, kind)
		}
	}
	if got, err := w.space.ResolvePath(w.tx, "/projects/alpha/f"); err != nil || got.Ino != f {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := w.space.MakePath(w.tx, w.st, "/projects/alpha/f/x"); !errs.Is(err, errs.NotDir) {
		t.Error(err)
	}
	if got, err := w.space.ResolvePath(w.tx, "/"); err != nil || got.Ino != meta.RootIno {
		t.Errorf("%+v, %v", got, err)
	}
	w.subtrees(a.Ino, f)
	w.check()
}

// subtrees checks InSubtree as a file gets and loses links.
func (w *world) subtrees(alpha, f meta.Ino) {
	w.t.Helper()
	expect := func(what string, want bool) {
		w.t.Helper()
		if in, err := w.space.InSubtree(w.tx, alpha, f); err != nil || in != want {
			w.t.Errorf("%s: %v, %v", what, in, err)
		}
	}
	expect("born inside", true)
	w.do(&meta.Link{Ino: f, Parent: meta.RootIno, Name: "out"})
	expect("linked outside too", true)
	w.do(&meta.Unlink{Parent: alpha, Name: "f"})
	expect("only outside", false)
	w.do(&meta.Rename{OldParent: meta.RootIno, OldName: "out", NewParent: alpha, NewName: "in"})
	expect("moved inside", true)
	if in, err := w.space.InSubtree(w.tx, alpha, meta.RootIno); in || err != nil {
		w.t.Error("the root is inside", err)
	}
	if in, err := w.space.InSubtree(w.tx, alpha, alpha); !in || err != nil {
		w.t.Error("a subtree is not in itself", err)
	}
}

// TestEqualHashes: a page never ends between names of one cookie.
func TestEqualHashes(t *testing.T) {
	w := newWorld(t)
	d := w.make(meta.RootIno, "d", dir).Ino
	f := w.make(d, "f", file).Ino
	for i, hash := range []uint64{10, 20, 20, 20, 20, 30} {
		k := append(key(prefixEntry, uint64(w.space.Layer), uint64(d), hash), byte('a'+i))
		w.tx.Set(k, encode(&entry{Ino: f, Type: meta.ModeRegular}))
	}
	w.tx.Delete(w.space.entryKey(d, "f"))
	var pages []string
	for cookie, eof := uint64(0), false; !eof; {
		p := w.do(&meta.ReadDir{Dir: d, Cookie: cookie, Limit: 2}).(*meta.DirResult)
		var names []string
		for _, e := range p.Entries {
			names = append(names, e.Name)
			cookie = e.Cookie
		}
		pages = append(pages, strings.Join(names, ""))
		eof = p.EOF
	}
	if want := []string{"abcde", "f"}; !slices.Equal(pages, want) {
		t.Errorf("pages %q, want %q", pages, want)
	}
}

func TestXattrLimits(t *testing.T) {
	w := newWorld(t)
	f := w.make(meta.RootIno, "f", file).Ino
	w.refuse(errs.TooBig, &meta.SetXattr{Ino: f, Name: "user.a", Value: make([]byte, meta.MaxXattr+1)})
	w.refuse(errs.NoSpace, &meta.SetXattr{Ino: f, Name: "user.a", Value: make([]byte, meta.MaxXattr)})
	for i := range 20 { // small ones inside, then outside
		w.do(&meta.SetXattr{Ino: f, Name: fmt.Sprintf("user.%02d", 19-i), Value: bytes.Repeat([]byte{byte(i)}, 100)})
	}
	w.do(&meta.SetXattr{Ino: f, Name: "user.big", Value: make([]byte, 60000)})
	w.refuse(errs.NoSpace, &meta.SetXattr{Ino: f, Name: "user.more", Value: make([]byte, 5000)})
	names := w.do(&meta.ListXattr{Ino: f}).(*meta.NamesResult).Names
	if len(names) != 21 || !slices.IsSorted(names) {
		t.Errorf("names %q", names)
	}
	for i := range 20 {
		v := w.do(&meta.GetXattr{Ino: f, Name: fmt.Sprintf("user.%02d", 19-i)}).(*meta.BytesResult).Data
		if !bytes.Equal(v, bytes.Repeat([]byte{byte(i)}, 100)) {
			t.Errorf("value %d: %d bytes", i, len(v))
		}
	}
	n, err := w.space.inode(w.tx, f)
	if err != nil || n.XattrKeys == 0 || len(n.Small) == 0 {
		t.Errorf("%d records, %d inline, %v", n.XattrKeys, len(n.Small), err)
	}
	w.check()
	w.do(&meta.Unlink{Parent: meta.RootIno, Name: "f"})
	w.resolve(f)
	w.reclaim(3)
	w.check()
}
