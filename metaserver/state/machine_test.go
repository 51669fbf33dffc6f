package state

import (
	"testing"

	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
)

// world is a machine with a store, applied to one entry at a time.
type world struct {
	t     *testing.T
	m     Machine
	db    *kv.Mem
	index uint64
}

func newWorld(t *testing.T, group uint32) *world {
	return &world{t: t, m: Machine{Group: group}, db: kv.NewMem()}
}

// apply runs one entry and returns the outcomes of its items.
func (w *world) apply(items ...Item) []meta.Outcome {
	w.t.Helper()
	w.index++
	cmd := EncodeEntry(nil, &Entry{Now: int64(w.index) * 1e9, Items: items})
	tx := w.db.Begin()
	res := w.m.Apply(tx, w.index, 1, cmd)
	tx.Commit()
	out, err := DecodeOutcomes(res)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(out.List) != len(items) {
		w.t.Fatalf("%d outcomes for %d items", len(out.List), len(items))
	}
	return out.List
}

func (w *world) internal(op Internal) meta.Outcome {
	w.t.Helper()
	return w.apply(Item{Internal: op})[0]
}

func (w *world) view() kv.Snapshot { return w.db.View() }

// session makes drive 1 and opens a session of it.
func (w *world) session(nonce byte, capa meta.Capability) *meta.SessionResult {
	w.t.Helper()
	if o := w.internal(&InitDrive{Drive: 1, Name: "demo"}); o.Err != nil {
		w.t.Fatal(o.Err)
	}
	capa.Drive = 1
	o := w.internal(&OpenSession{Open: meta.Open{Nonce: [16]byte{nonce}, Capability: capa, CreatePath: true}})
	res, err := o.Unpack()
	if err != nil {
		w.t.Fatal(err)
	}
	return res.(*meta.SessionResult)
}

func (w *world) op(s *meta.SessionResult, id meta.OpID, op meta.Op, acked ...meta.OpID) meta.Outcome {
	w.t.Helper()
	return w.apply(Item{Session: s.Session, Epoch: s.Epoch, ID: id, Op: op, Acked: acked})[0]
}

func mkdir(name string) *meta.Make {
	return &meta.Make{Parent: meta.RootIno, Name: name, Mode: meta.ModeDir | 0o755, Excl: true}
}

func wantKind(t *testing.T, o meta.Outcome, kind errs.Kind) {
	t.Helper()
	if o.Err == nil || o.Err.Kind != kind {
		t.Fatalf("outcome %+v, want kind %v", o, kind)
	}
}

func TestOperationsAreExecutedOnce(t *testing.T) {
	w := newWorld(t, 1)
	s := w.session(1, meta.Capability{Path: "/"})
	first := w.op(s, 7, mkdir("a"))
	if first.Err != nil {
		t.Fatal(first.Err)
	}
	again := w.op(s, 7, mkdir("a"))
	if again.Err != nil || again.Result.(*meta.EntryResult).Attr != first.Result.(*meta.EntryResult).Attr {
		t.Fatalf("the repeated operation answered %+v, the first %+v", again, first)
	}
	// A failure is remembered as well, even when it would succeed by now.
	wantKind(t, w.op(s, 8, &meta.Rmdir{Parent: meta.RootIno, Name: "b"}), errs.NotExist)
	w.op(s, 9, mkdir("b"))
	wantKind(t, w.op(s, 8, &meta.Rmdir{Parent: meta.RootIno, Name: "b"}), errs.NotExist)
	// Once acknowledged it is forgotten: the id may be used again.
	if o := w.op(s, 10, &meta.Rmdir{Parent: meta.RootIno, Name: "b"}, 8); o.Err != nil {
		t.Fatal(o.Err)
	}
	wantKind(t, w.op(s, 8, mkdir("a")), errs.Exist)
}

func TestSessionsEnd(t *testing.T) {
	w := newWorld(t, 1)
	s := w.session(1, meta.Capability{Path: "/"})
	if r := w.session(1, meta.Capability{Path: "/"}); r.Session != s.Session {
		t.Fatalf("the same nonce opened sessions %d and %d", s.Session, r.Session)
	}
	w.op(s, 1, mkdir("a"))
	if o := w.internal(&CloseSession{Session: s.Session}); o.Err != nil {
		t.Fatal(o.Err)
	}
	wantKind(t, w.op(s, 2, mkdir("late")), errs.Expired)
	wantKind(t, w.op(s, 1, mkdir("a")), errs.Expired)
	wantKind(t, w.internal(&OpenSession{Open: meta.Open{Nonce: [16]byte{1}, Capability: meta.Capability{Drive: 1, Path: "/"}}}), errs.Expired)
	v := w.view()
	defer v.Release()
	if _, _, err := ResumeInfo(v, s.Session, s.Epoch, [16]byte{1}); !errs.Is(err, errs.Expired) {
		t.Fatalf("resume of an ended session: %v", err)
	}
	if closed, err := Closed(v, 0, 10); err != nil || len(closed) != 1 || closed[0].ID != s.Session {
		t.Fatalf("closed sessions %v, %v", closed, err)
	}
	if n := countPrefix(t, v, spaceReply); n != 0 {
		t.Fatalf("%d recorded replies outlive their session", n)
	}
}

func countPrefix(t *testing.T, v kv.View, space byte) (n int) {
	t.Helper()
	if err := v.Scan(prefix(space), end(prefix(space)), func(_, _ []byte) bool { n++; return true }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSweptSessionsAreForgotten(t *testing.T) {
	w := newWorld(t, 1)
	s := w.session(1, meta.Capability{Path: "/"})
	w.internal(&CloseSession{Session: s.Session})
	w.internal(&Swept{Session: s.Session, Server: 1})
	v := w.view()
	one, err := IsSwept(v, s.Session, 1)
	two, err2 := IsSwept(v, s.Session, 2)
	if err != nil || err2 != nil || !one || two {
		t.Fatalf("swept on 1: %v, on 2: %v (%v, %v)", one, two, err, err2)
	}
	v.Release()
	w.internal(&Swept{Session: s.Session})
	v = w.view()
	defer v.Release()
	for _, space := range []byte{spaceClosed, spaceSwept, spaceNonce} {
		if n := countPrefix(t, v, space); n != 0 {
			t.Errorf("%d records under %c remain", n, space)
		}
	}
}

func TestReadOnlySessionsChangeNothing(t *testing.T) {
	w := newWorld(t, 1)
	w.session(1, meta.Capability{Path: "/sub"})
	s := w.session(2, meta.Capability{Path: "/sub", ReadOnly: true})
	wantKind(t, w.op(s, 1, mkdir("a")), errs.ReadOnly)
}

func TestSubtreeMissingReadOnly(t *testing.T) {
	w := newWorld(t, 1)
	w.session(1, meta.Capability{Path: "/"})
	o := w.internal(&OpenSession{Open: meta.Open{Nonce: [16]byte{9}, CreatePath: true,
		Capability: meta.Capability{Drive: 1, Path: "/none", ReadOnly: true}}})
	wantKind(t, o, errs.NotExist)
}

func TestExpiredCapability(t *testing.T) {
	w := newWorld(t, 1)
	w.session(1, meta.Capability{Path: "/"})
	o := w.internal(&OpenSession{Open: meta.Open{Nonce: [16]byte{9},
		Capability: meta.Capability{Drive: 1, Path: "/", Expires: 1}}})
	wantKind(t, o, errs.Refused)
}

func TestLogIsAFIFO(t *testing.T) {
	w := newWorld(t, 1)
	s := w.session(1, meta.Capability{Path: "/"})
	logItem := func(first uint64, ops ...meta.Op) Item {
		it := Item{Session: s.Session, Epoch: s.Epoch, First: first}
		for _, op := range ops {
			it.Records = append(it.Records, meta.LogRecord{Now: int64(first), Op: op})
		}
		return it
	}
	if o := w.apply(logItem(1, mkdir("a"), mkdir("b")))[0]; o.Err != nil || o.Result.(*meta.SessionResult).LastLogSeq != 2 {
		t.Fatalf("log of two: %+v", o)
	}
	// Sent again with more behind: only the new part is executed.
	if o := w.apply(logItem(2, mkdir("b"), mkdir("c")))[0]; o.Err != nil || o.Result.(*meta.SessionResult).LastLogSeq != 3 {
		t.Fatalf("overlapping log: %+v", o)
	}
	wantKind(t, w.apply(logItem(5, mkdir("e")))[0], errs.Invalid)
	// An operation that waits for the log is not executed and not recorded.
	after := Item{Session: s.Session, Epoch: s.Epoch, ID: 1, After: 4, Op: mkdir("x")}
	wantKind(t, w.apply(after)[0], errs.Again)
	if o := w.apply(logItem(4, mkdir("d")), after); o[0].Err != nil || o[1].Err != nil {
		t.Fatalf("log and operation behind it: %+v", o)
	}
	// A refused record poisons the session.
	wantKind(t, w.apply(logItem(5, mkdir("e"), mkdir("a"), mkdir("f")))[0], errs.Exist)
	wantKind(t, w.apply(logItem(6, mkdir("g")))[0], errs.Expired)
	v := w.view()
	defer v.Release()
	for name, want := range map[string]bool{"e": true, "f": false, "g": false} {
		_, err := Read(v, 1, &meta.Lookup{Parent: meta.RootIno, Name: name})
		if got := err == nil; got != want {
			t.Errorf("%s exists: %v, want %v", name, got, want)
		}
	}
}

func TestDropDrive(t *testing.T) {
	w := newWorld(t, 1)
	s := w.session(1, meta.Capability{Path: "/"})
	w.op(s, 1, mkdir("a"))
	wantKind(t, w.internal(&DropDrive{Drive: 1}), errs.Busy)
	if o := w.internal(&DropDrive{Drive: 1, Force: true}); o.Err != nil {
		t.Fatal(o.Err)
	}
	wantKind(t, w.op(s, 2, mkdir("b")), errs.Expired)
	for range 1000 {
		o := w.internal(&Reclaim{Budget: 8})
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		if o.Result.(*meta.BytesResult).Data[0] == 1 {
			v := w.view()
			defer v.Release()
			if d, err := GroupDrives(v); err != nil || len(d) != 0 {
				t.Fatalf("drives left: %v, %v", d, err)
			}
			if n := countPrefix(t, v, 'I'); n != 0 {
				t.Fatalf("%d inodes left", n)
			}
			return
		}
	}
	t.Fatal("reclaim does not end")
}

func TestCluster(t *testing.T) {
	w := newWorld(t, 0)
	wantKind(t, w.internal(&CreateDrive{Name: "a"}), errs.Unavailable)
	w.internal(&InitCluster{Cluster: Cluster{ID: [16]byte{1}, Copies: 3, Quorum: 2, MinCopies: 2, Groups: 2, PGs: 64}})
	w.internal(&InitCluster{Cluster: Cluster{ID: [16]byte{2}}})
	for _, name := range []string{"", "-a", "a-", "A", "a_b", "a/b", "ä"} {
		wantKind(t, w.internal(&CreateDrive{Name: name}), errs.Invalid)
	}
	wantKind(t, w.internal(&CreateDrive{Name: string(make([]byte, 64))}), errs.NameTooLong)
	groups := map[uint32]int{}
	for _, name := range []string{"a", "b", "c", "d"} {
		o := w.internal(&CreateDrive{Name: name})
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		d, err := DecodeDrive(o.Result.(*meta.BytesResult).Data)
		if err != nil {
			t.Fatal(err)
		}
		groups[d.Group]++
	}
	if groups[1] != 2 || groups[2] != 2 {
		t.Errorf("drives by group: %v", groups)
	}
	wantKind(t, w.internal(&CreateDrive{Name: "a"}), errs.Exist)
	wantKind(t, w.internal(&RemoveDrive{Name: "a"}), errs.Busy)
	w.internal(&MarkDrive{Name: "a", Deleting: true})
	w.internal(&RemoveDrive{Name: "a"})

	w.internal(&PutServer{Server: Server{ID: 1, Address: "x:1"}})
	w.internal(&PutServer{Server: Server{ID: 1, Address: "x:1"}})
	w.internal(&PutServer{Server: Server{ID: 2, Address: "x:2"}})
	w.internal(&PutServer{Server: Server{ID: 1, Address: "x:3"}})
	v := w.view()
	defer v.Release()
	m, ok, err := ReadMap(v)
	if err != nil || !ok || m.Cluster.ID != [16]byte{1} {
		t.Fatalf("map %+v %v %v", m, ok, err)
	}
	if m.Version != 3 || len(m.Placements) != 2 || len(m.Placements[0].Servers) != 1 || len(m.Placements[1].Servers) != 2 || m.Servers[0].Address != "x:3" {
		t.Errorf("map %+v", m)
	}
	if list, err := Drives(v); err != nil || len(list) != 3 {
		t.Errorf("drives %v, %v", list, err)
	}
}

func TestHostileEntriesChangeNothing(t *testing.T) {
	w := newWorld(t, 1)
	tx := w.db.Begin()
	w.m.Apply(tx, 1, 1, []byte{1, 2, 3, 4})
	tx.Commit()
	v := w.view()
	defer v.Release()
	if err := v.Scan(nil, nil, func(k, _ []byte) bool { t.Errorf("key %q was written", k); return true }); err != nil {
		t.Fatal(err)
	}
}

// A leader that lost its leadership and won it again may append what it
// decided before: that must not happen any more.
func TestEntryOfAnotherTermChangesNothing(t *testing.T) {
	w := newWorld(t, 1)
	entry := func(term uint64) []byte {
		return EncodeEntry(nil, &Entry{Now: 1, Term: term, Items: []Item{{Internal: &InitDrive{Drive: 1, Name: "d"}}}})
	}
	for i, tc := range []struct {
		meant, appended uint64
		done            bool
	}{{2, 3, false}, {4, 3, false}, {3, 3, true}} {
		tx := w.db.Begin()
		out, err := DecodeOutcomes(w.m.Apply(tx, uint64(i)+1, tc.appended, entry(tc.meant)))
		tx.Commit()
		if err != nil || len(out.List) != 1 {
			t.Fatalf("outcomes %+v, %v", out, err)
		}
		if refused := out.List[0].Err != nil && out.List[0].Err.Kind == errs.NotLeader; refused == tc.done {
			t.Errorf("term %d in %d: %+v", tc.meant, tc.appended, out.List[0])
		}
		v := w.view()
		list, err := GroupDrives(v)
		v.Release()
		if err != nil || (len(list) == 1) != tc.done {
			t.Errorf("term %d in %d: drives %v, %v", tc.meant, tc.appended, list, err)
		}
	}
}
