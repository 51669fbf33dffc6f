package state

import (
	"testing"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// log sends records of a session's log, numbered from first.
func (w *world) log(s *meta.SessionResult, first uint64, ops ...meta.Op) meta.Outcome {
	w.t.Helper()
	it := Item{Session: s.Session, Epoch: s.Epoch, First: first}
	for i, op := range ops {
		it.Records = append(it.Records, meta.LogRecord{Now: int64(1e12 + i), Op: op})
	}
	return w.apply(it)[0]
}

// groups allocates locality groups.
func (w *world) groups(s *meta.SessionResult, n uint32) (first uint64) {
	w.t.Helper()
	o := w.internal(&AllocGroups{Session: s.Session, N: n})
	if o.Err != nil {
		w.t.Fatal(o.Err)
	}
	first, err := FirstGroup(o.Result)
	if err != nil {
		w.t.Fatal(err)
	}
	return first
}

func inline(ino meta.Ino, off uint64, data string) *meta.Write {
	return &meta.Write{Ino: ino, Extents: []meta.Extent{{Off: off, Len: uint32(len(data)), Kind: meta.ExtentInline, Inline: []byte(data)}}}
}

func (w *world) attr(ino meta.Ino) (meta.Attr, error) {
	v := w.view()
	defer v.Release()
	res, err := Read(v, 1, &meta.GetAttr{Ino: ino})
	if err != nil {
		return meta.Attr{}, err
	}
	return res.(*meta.AttrResult).Attr, nil
}

// A file that was made, written, unlinked and written on, all in one log.
func TestLogOfAFileWithoutAName(t *testing.T) {
	w := newWorld(t, 1)
	s := w.session(1, meta.Capability{Path: "/"})
	ino := meta.Ino(w.groups(s, 1) << meta.SlotBits)
	if o := w.log(s, 1,
		&meta.Make{Ino: ino, Parent: meta.RootIno, Name: "tmp", Mode: meta.ModeRegular | 0o600, Excl: true},
		inline(ino, 0, "abc"),
		&meta.Unlink{Parent: meta.RootIno, Name: "tmp"},
		inline(ino, 3, "def"), // its pins are not known yet
	); o.Err != nil {
		t.Fatal(o.Err)
	}
	w.internal(&ResolveOrphans{Drive: 1, Orphans: []OrphanPins{{Ino: ino, Pins: []meta.SessionID{s.Session}}}})
	if o := w.log(s, 5, inline(ino, 6, "ghi"), &meta.SetAttr{Ino: ino, Set: meta.SetSize, Size: 8}); o.Err != nil {
		t.Fatal(o.Err)
	}
	if a, err := w.attr(ino); err != nil || a.Size != 8 || a.Nlink != 0 {
		t.Fatalf("attributes %+v, %v", a, err)
	}
	w.internal(&UnpinOrphans{Session: s.Session, Inos: []meta.Ino{ino}})
	if _, err := w.attr(ino); !errs.Is(err, errs.Stale) {
		t.Fatalf("the file lives on: %v", err)
	}
	// Now nobody can miss what is written to it, and the log goes on.
	if o := w.log(s, 7, inline(ino, 0, "x"), &meta.SetAttr{Ino: ino, Set: meta.SetSize, Size: 1}); o.Err != nil {
		t.Fatal(o.Err)
	}
	// A name for it is a mistake of the client.
	wantKind(t, w.log(s, 9, &meta.Link{Ino: ino, Parent: meta.RootIno, Name: "back"}), errs.Stale)
	wantKind(t, w.log(s, 9, mkdir("late")), errs.Expired)
}

// Inode numbers come from the session's own groups only; anything else ends
// its log.
func TestGroupsBelongToSessions(t *testing.T) {
	w := newWorld(t, 1)
	a := w.session(1, meta.Capability{Path: "/"})
	b := w.session(2, meta.Capability{Path: "/"})
	a1, b1, a2, a3 := w.groups(a, 2), w.groups(b, 3), w.groups(a, 1), w.groups(a, 4)
	if b1 != a1+2 || a2 != b1+3 || a3 != a2+1 {
		t.Fatalf("groups %d, %d, %d, %d", a1, b1, a2, a3)
	}
	seq := uint64(0)
	mk := func(s *meta.SessionResult, group uint64, name string) meta.Outcome {
		seq++
		return w.log(s, seq, &meta.Make{Ino: meta.Ino(group<<meta.SlotBits | 7), Parent: meta.RootIno, Name: name, Mode: meta.ModeRegular, Excl: true})
	}
	for _, g := range []uint64{a1, a1 + 1, a2, a3, a3 + 3} {
		if o := mk(a, g, string(rune('a'+g))); o.Err != nil {
			t.Fatalf("group %d: %v", g, o.Err)
		}
	}
	v := w.view()
	if n := countPrefix(t, v, spaceGroups); n != 3 { // adjacent ones are joined
		t.Errorf("%d records of groups, want 3", n)
	}
	v.Release()
	for i, g := range []uint64{b1, b1 + 2, a3 + 100, 1, 0} {
		s := w.session(byte(10+i), meta.Capability{Path: "/"})
		w.groups(s, 1)
		seq = 0
		wantKind(t, mk(s, g, "x"), errs.Invalid)
		wantKind(t, w.op(s, 1, mkdir("late")), errs.Expired) // poisoned
	}
	// A number that is taken, too.
	seq = 0
	c := w.session(20, meta.Capability{Path: "/"})
	own := w.groups(c, 1)
	mk(c, own, "first")
	wantKind(t, mk(c, own, "second"), errs.Exist)
	// Groups go with their session.
	w.internal(&CloseSession{Session: a.Session})
	wantKind(t, w.internal(&AllocGroups{Session: a.Session, N: 1}), errs.Expired)
	v = w.view()
	defer v.Release()
	if n := countPrefix(t, v, spaceGroups); n != 7 {
		t.Errorf("%d records of groups, want 7", n)
	}
}

// The time of a record is the client's, that of the entry does not matter.
func TestLogRecordsHaveTheirOwnTime(t *testing.T) {
	w := newWorld(t, 1)
	s := w.session(1, meta.Capability{Path: "/"})
	ino := meta.Ino(w.groups(s, 1) << meta.SlotBits)
	it := Item{Session: s.Session, Epoch: s.Epoch, First: 1, Records: []meta.LogRecord{
		{Now: 77e9, Op: &meta.Make{Ino: ino, Parent: meta.RootIno, Name: "f", Mode: meta.ModeRegular}},
		{Now: 99e9, Op: inline(ino, 0, "x")},
		{Now: 88e9, Op: &meta.SetAttr{Ino: ino, Set: meta.SetAtimeNow}},
	}}
	if o := w.apply(it)[0]; o.Err != nil {
		t.Fatal(o.Err)
	}
	a, err := w.attr(ino)
	if err != nil || a.Btime != 77e9 || a.Mtime != 99e9 || a.Atime != 88e9 || a.Ctime != 99e9+1 {
		t.Fatalf("%+v, %v", a, err)
	}
}
