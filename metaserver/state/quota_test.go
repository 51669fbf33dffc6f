package state

import (
	"strings"
	"testing"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/tree"
)

// quotaWorld is a drive under a quota with one session.
type quotaWorld struct {
	*world
	s    *meta.SessionResult
	last meta.OpID
	seq  uint64
}

func newQuotaWorld(t *testing.T, bytes, files uint64) *quotaWorld {
	q := &quotaWorld{world: newWorld(t, 1)}
	q.s = q.session(1, meta.Capability{Path: "/"})
	q.limit(&SetQuota{Drive: 1, SetBytes: true, MaxBytes: bytes, SetFiles: true, MaxFiles: files})
	return q
}

func (q *quotaWorld) limit(op *SetQuota) {
	q.t.Helper()
	if o := q.internal(op); o.Err != nil {
		q.t.Fatal(o.Err)
	}
}

// try runs a synchronous operation while others have a claim on res.
func (q *quotaWorld) try(op meta.Op, res Reserved) meta.Outcome {
	q.last++
	return q.apply(Item{Session: q.s.Session, Epoch: q.s.Epoch, ID: q.last, Op: op, Reserved: res})[0]
}

func (q *quotaWorld) must(op meta.Op) meta.Result {
	q.t.Helper()
	o := q.try(op, Reserved{})
	if o.Err != nil {
		q.t.Fatalf("%T %+v: %v", op, op, o.Err)
	}
	return o.Result
}

func (q *quotaWorld) refused(op meta.Op) {
	q.t.Helper()
	before := q.statfs()
	wantKind(q.t, q.try(op, Reserved{}), errs.Quota)
	if after := q.statfs(); after != before {
		q.t.Fatalf("%T was refused and changed the use from %+v to %+v", op, before, after)
	}
}

func (q *quotaWorld) file(name string) meta.Ino {
	q.t.Helper()
	return q.must(&meta.Make{Parent: meta.RootIno, Name: name, Mode: meta.ModeRegular | 0o644}).(*meta.EntryResult).Attr.Ino
}

func (q *quotaWorld) logged(op meta.Op) {
	q.t.Helper()
	q.seq++
	if o := q.log(q.s, q.seq, op); o.Err != nil {
		q.t.Fatalf("log: %T %+v: %v", op, op, o.Err)
	}
}

func (q *quotaWorld) statfs() meta.StatFSResult {
	q.t.Helper()
	v := q.view()
	defer v.Release()
	res, err := Read(v, 1, &meta.StatFS{})
	if err != nil {
		q.t.Fatal(err)
	}
	return *res.(*meta.StatFSResult)
}

func (q *quotaWorld) use(bytes, files uint64) {
	q.t.Helper()
	if st := q.statfs(); st.Bytes != bytes || st.Files != files {
		q.t.Fatalf("%d bytes in %d files, want %d in %d", st.Bytes, st.Files, bytes, files)
	}
}

func (q *quotaWorld) reclaim() {
	q.t.Helper()
	for range 1000 {
		if o := q.internal(&Reclaim{Budget: 100}); o.Err != nil || o.Result.(*meta.BytesResult).Data[0] == 1 {
			return
		}
	}
	q.t.Fatal("reclaim does not end")
}

func TestQuotaOfFiles(t *testing.T) {
	q := newQuotaWorld(t, 0, 3) // the root is one
	a := q.file("a")
	q.file("b")
	for _, mode := range []uint32{meta.ModeRegular, meta.ModeDir, meta.ModeFIFO} {
		q.refused(&meta.Make{Parent: meta.RootIno, Name: "c", Mode: mode})
	}
	q.refused(&meta.Make{Parent: meta.RootIno, Name: "c", Mode: meta.ModeSymlink, Target: "t"})
	// What makes no inode goes on.
	q.file("a")
	q.must(&meta.Link{Ino: a, Parent: meta.RootIno, Name: "l"})
	q.must(&meta.Rename{OldParent: meta.RootIno, OldName: "l", NewParent: meta.RootIno, NewName: "m"})
	q.must(inline(a, 0, "bytes are not limited"))
	q.must(&meta.SetXattr{Ino: a, Name: "user.a", Value: make([]byte, 5000)})
	// A file counts until nobody has it open.
	b := q.must(&meta.Unlink{Parent: meta.RootIno, Name: "b"}).(*meta.AttrResult).Attr.Ino
	wantKind(t, q.try(mkdir("c"), Reserved{}), errs.Again) // perhaps nobody has
	q.internal(&ResolveOrphans{Drive: 1, Orphans: []OrphanPins{{Ino: b, Pins: []meta.SessionID{q.s.Session}}}})
	q.refused(mkdir("c"))
	q.internal(&UnpinOrphans{Session: q.s.Session, Inos: []meta.Ino{b}})
	q.must(mkdir("c"))
	b = q.must(&meta.Rmdir{Parent: meta.RootIno, Name: "c"}).(*meta.AttrResult).Attr.Ino
	q.internal(&ResolveOrphans{Drive: 1, Orphans: []OrphanPins{{Ino: b}}})
	q.must(mkdir("c"))
	q.use(21, 3)
}

func TestQuotaOfBytes(t *testing.T) {
	q := newQuotaWorld(t, 100, 0)
	a := q.file("a")
	q.must(inline(a, 0, strings.Repeat("x", 90)))
	q.refused(inline(a, 90, strings.Repeat("y", 11)))
	q.refused(inline(q.file("b"), 1000, strings.Repeat("y", 11)))
	q.must(inline(a, 90, strings.Repeat("y", 10)))
	// At the limit: what does not grow goes on, and so does what shrinks.
	q.must(inline(a, 20, strings.Repeat("z", 80)))
	q.refused(inline(a, 20, strings.Repeat("z", 81)))
	q.must(&meta.SetAttr{Ino: a, Set: meta.SetSize, Size: 1 << 40}) // a hole takes nothing
	q.must(&meta.SetAttr{Ino: a, Set: meta.SetSize, Size: 50})
	q.must(inline(a, 50, strings.Repeat("z", 50)))
	q.must(mkdir("files are not limited"))
	q.use(100, 4)
	// A limit below the use stops growth only.
	q.limit(&SetQuota{Drive: 1, SetBytes: true, MaxBytes: 10})
	q.refused(inline(a, 100, "z"))
	q.must(inline(a, 0, "z"))
	q.must(&meta.SetAttr{Ino: a, Set: meta.SetSize, Size: 5})
	q.must(inline(a, 5, "z"))
	q.use(6, 4)
}

// What the leader promised to other sessions is not there for this one.
func TestQuotaLeavesRoomForCredit(t *testing.T) {
	q := newQuotaWorld(t, 100, 10)
	a := q.file("a")
	wantKind(t, q.try(inline(a, 0, strings.Repeat("x", 41)), Reserved{Bytes: 60}), errs.Quota)
	if o := q.try(inline(a, 0, strings.Repeat("x", 40)), Reserved{Bytes: 60, Files: 1 << 50}); o.Err != nil {
		t.Fatal(o.Err)
	}
	wantKind(t, q.try(mkdir("d"), Reserved{Files: 8}), errs.Quota)
	wantKind(t, q.try(mkdir("d"), Reserved{Files: 1 << 63}), errs.Quota)
	if o := q.try(mkdir("d"), Reserved{Files: 7, Bytes: 1 << 63}); o.Err != nil {
		t.Fatal(o.Err)
	}
	wantKind(t, q.try(inline(a, 40, "x"), Reserved{Bytes: 1 << 63}), errs.Quota)
	if o := q.try(inline(a, 0, strings.Repeat("y", 40)), Reserved{Bytes: 1 << 63}); o.Err != nil {
		t.Fatal(o.Err) // does not grow
	}
}

// A session's log was paid for by its credit.
func TestQuotaDoesNotRefuseTheLog(t *testing.T) {
	q := newQuotaWorld(t, 10, 2)
	a := q.file("a")
	own := meta.Ino(q.groups(q.s, 1) << meta.SlotBits)
	q.logged(&meta.Make{Ino: own, Parent: meta.RootIno, Name: "b", Mode: meta.ModeRegular})
	q.logged(inline(own, 0, strings.Repeat("x", 100)))
	q.use(100, 3)
	q.refused(inline(a, 0, "x"))
	q.refused(mkdir("d"))
}

func TestSetQuota(t *testing.T) {
	q := newQuotaWorld(t, 7, 8)
	limits := func(bytes, files uint64) {
		t.Helper()
		if st := q.statfs(); st.MaxBytes != bytes || st.MaxFiles != files {
			t.Errorf("limits %d and %d, want %d and %d", st.MaxBytes, st.MaxFiles, bytes, files)
		}
	}
	limits(7, 8)
	q.limit(&SetQuota{Drive: 1, SetBytes: true, MaxBytes: 9})
	limits(9, 8)
	q.limit(&SetQuota{Drive: 1, SetFiles: true})
	limits(9, 0)
	q.limit(&SetQuota{Drive: 1, SetBytes: true})
	limits(0, 0)
	wantKind(t, q.internal(&SetQuota{Drive: 5}), errs.NotExist)
}

// scattered writes n single bytes with holes between them.
func (q *quotaWorld) scattered(ino meta.Ino, n int) {
	q.t.Helper()
	for at := 0; at < n; {
		w := &meta.Write{Ino: ino}
		for ; at < n && len(w.Extents) < meta.MaxExtents; at++ {
			w.Extents = append(w.Extents, meta.Extent{Off: uint64(2 * at), Len: 1, Kind: meta.ExtentInline, Inline: []byte{1}})
		}
		q.must(w)
	}
}

// Bytes that wait for the queue count; a full drive waits for them rather than
// refusing what a user made room for.
func TestQuotaWaitsForTrims(t *testing.T) {
	const n = 3000
	q := newQuotaWorld(t, n, 0)
	a := q.file("a")
	q.scattered(a, n)
	q.refused(inline(a, 1, "x"))
	q.must(&meta.SetAttr{Ino: a, Set: meta.SetSize, Size: 2}) // leaves the rest to the queue
	q.use(n, 2)
	wantKind(t, q.try(inline(a, 1, "x"), Reserved{}), errs.Again)
	q.reclaim()
	q.must(inline(a, 1, "x"))
	q.use(2, 2)
	// An overwrite of many extents at the limit: the new bytes count beside the
	// old ones until the queue is empty.
	b := q.file("b")
	q.scattered(b, n-2)
	q.must(inline(b, 0, strings.Repeat("x", 4096)))
	q.use(n+4096, 3)
	q.reclaim()
	q.use(n+4096-2048, 3)
}

// What a client has answered for is executed, however much work it is, and
// never put off: that would end its session.
func TestLogIsNeverPutOff(t *testing.T) {
	q := newQuotaWorld(t, 0, 0)
	a := q.file("a")
	q.scattered(a, 8000)
	truncate := &meta.SetAttr{Ino: a, Set: meta.SetSize, Size: 12000}
	over := inline(a, 0, strings.Repeat("x", 4096))
	two := &meta.Write{Ino: a, Extents: append(inline(a, 5000, strings.Repeat("y", 2500)).Extents, inline(a, 8000, strings.Repeat("z", 2500)).Extents...)}
	wantKind(t, q.try(two, Reserved{}), errs.TooBig)
	q.must(truncate)
	wantKind(t, q.try(over, Reserved{}), errs.Again)
	q.logged(over)
	q.logged(two)
	q.logged(&meta.SetAttr{Ino: a, Set: meta.SetSize, Size: 11000})
	q.check()
	q.reclaim()
	q.check()
	if at, err := q.attr(a); err != nil || at.Size != 11000 || at.Bytes != 4096+452+2500+250+2500+250 {
		t.Errorf("%+v, %v", at, err)
	}
}

func (w *world) check() {
	w.t.Helper()
	v := w.view()
	defer v.Release()
	report := func(p string) { w.t.Error(p) }
	d, err := LoadDrive(v, 1)
	if err == nil {
		err = d.Space().Check(v, report)
	}
	if err == nil {
		err = tree.CheckBlocks(v, report)
	}
	if err != nil {
		w.t.Errorf("check: %v", err)
	}
}
