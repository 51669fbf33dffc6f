package tree

import (
	"testing"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// A client that works locally has chosen the number already.
func TestChosenNumbers(t *testing.T) {
	w := newWorld(t)
	d := w.make(meta.RootIno, "d", dir)
	first, err := w.space.AllocGroups(w.tx, 2)
	if err != nil {
		t.Fatal(err)
	}
	own := func(group uint64, slot uint64) meta.Ino { return meta.Ino(group<<meta.SlotBits | slot) }
	mk := func(ino meta.Ino, name string, mode uint32) *meta.Make {
		return &meta.Make{Ino: ino, Parent: d.Ino, Name: name, Mode: mode, Excl: true}
	}
	sub := w.do(mk(own(first, 5), "sub", dir)).(*meta.EntryResult).Attr
	if sub.Ino != own(first, 5) {
		t.Fatalf("made inode %d, want %d", sub.Ino, own(first, 5))
	}
	w.do(mk(own(first+1, 1<<meta.SlotBits-1), "f", file))
	w.refuse(errs.Exist, mk(own(first, 5), "again", file))
	w.refuse(errs.Exist, mk(own(first, 6), "f", file))
	// The client believes that it made a new file: never another one.
	w.refuse(errs.Exist, &meta.Make{Ino: own(first, 6), Parent: d.Ino, Name: "f", Mode: file})
	w.refuse(errs.Invalid, mk(own(first+2, 0), "x", file))
	w.refuse(errs.Invalid, mk(7, "x", file))
	// The group in which the servers bear the children of the root.
	w.refuse(errs.Invalid, &meta.Make{Ino: d.Ino + 1, Parent: meta.RootIno, Name: "x", Mode: file})
	// The servers go on in groups of their own.
	for _, parent := range []meta.Ino{d.Ino, sub.Ino} {
		if n := w.make(parent, "g", file); uint64(n.Ino)>>meta.SlotBits <= first+1 {
			t.Errorf("the servers chose inode %d in a client's group", n.Ino)
		}
	}
	// An orphan still has its number.
	w.do(&meta.Unlink{Parent: d.Ino, Name: "f"})
	w.refuse(errs.Exist, mk(own(first+1, 1<<meta.SlotBits-1), "y", file))
	for _, n := range []uint32{0, MaxGroups + 1} {
		if _, err := w.space.AllocGroups(w.tx, n); !errs.Is(err, errs.Invalid) {
			t.Errorf("%d groups: %v", n, err)
		}
	}
	w.check()
}

func TestAcquireReadsAttributes(t *testing.T) {
	w := newWorld(t)
	f := w.make(meta.RootIno, "f", file)
	w.do(&meta.SetXattr{Ino: f.Ino, Name: "user.a"})
	res := w.do(&meta.Acquire{Wants: []meta.Grant{{Ino: f.Ino}, {Ino: 99}, {Ino: meta.RootIno}}}).(*meta.AcquireResult)
	if len(res.Attrs) != 3 || res.Attrs[0] != w.attr(f.Ino) || !res.Attrs[0].Xattrs || res.Attrs[1] != (meta.Attr{}) || res.Attrs[2] != w.attr(meta.RootIno) {
		t.Errorf("%+v", res.Attrs)
	}
	w.do(&meta.RemoveXattr{Ino: f.Ino, Name: "user.a"})
	if w.attr(f.Ino).Xattrs {
		t.Error("the inode has no extended attributes any more")
	}
	w.do(&meta.SetXattr{Ino: f.Ino, Name: "user.large", Value: make([]byte, 60<<10)})
	page := w.do(&meta.ReadDir{Dir: meta.RootIno, Plus: true, Limit: 10}).(*meta.DirResult)
	for _, e := range page.Entries {
		if e.Name == "f" && !e.Attr.Xattrs {
			t.Error("a listing does not tell of extended attributes")
		}
	}
}
