package state

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/tree"
)

// logHelper makes the test binary apply the log and print its hash.
const logHelper = "STATE_DETERMINISM_HELPER"

// logOps is the number of operations in the log; all of them in every build.
const logOps = 100_000

// TestSameLogSameBytes applies one log of at least 100,000 operations, of every
// kind that an entry can carry, in two processes that differ in everything but
// the log: processors, time zone, environment and start. Outcomes and final
// bytes must be equal.
func TestSameLogSameBytes(t *testing.T) {
	if os.Getenv(logHelper) != "" {
		fmt.Printf("HASH %s\n", writeAndApply(t))
		return
	}
	run := func(env ...string) string {
		cmd := exec.Command(os.Args[0], "-test.run=^TestSameLogSameBytes$", "-test.count=1")
		cmd.Env = append(os.Environ(), append(env, logHelper+"=1")...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		_, h, ok := strings.Cut(string(out), "HASH ")
		if !ok {
			t.Fatalf("no hash in %s", out)
		}
		return strings.TrimSpace(strings.SplitN(h, "\n", 2)[0])
	}
	a := run("GOMAXPROCS=1", "TZ=UTC", "GOGC=50")
	b := run("GOMAXPROCS=4", "TZ=Asia/Kathmandu", "GOGC=400", "LANG=tr_TR.UTF-8")
	if a != b {
		t.Fatalf("the replicas differ:\n%s\n%s", a, b)
	}
	t.Log(a)
}

// writer makes the log up while it applies it: later entries name sessions,
// inodes and blocks that earlier ones made.
type writer struct {
	t        testing.TB
	r        *rand.Rand
	w        *world
	sum      hash.Hash
	ops      int
	done     int // items that succeeded
	kinds    map[string]int
	sessions []*meta.SessionResult
	drives   map[meta.SessionID]meta.DriveID
	inos     []meta.Ino
	blocks   []chunk.BlockID
	lastOp   meta.OpID
	nonce    byte
	lastLog  map[meta.SessionID]uint64
	groups   map[meta.SessionID]uint64 // a group to choose numbers in
	slot     uint64
}

func writeAndApply(t *testing.T) string {
	w := &writer{
		t: t, r: rand.New(rand.NewPCG(1, 1)), w: newWorld(t, 1), sum: sha256.New(),
		kinds: map[string]int{}, drives: map[meta.SessionID]meta.DriveID{}, lastLog: map[meta.SessionID]uint64{},
		groups: map[meta.SessionID]uint64{}, inos: []meta.Ino{meta.RootIno},
	}
	w.apply(&InitCluster{Cluster: Cluster{ID: [16]byte{1}, Copies: 3, Quorum: 2, MinCopies: 2, Groups: 2, PGs: 64}})
	for w.ops < logOps {
		w.entry()
	}
	w.requireAllKinds()
	if w.done < w.ops/10 {
		t.Errorf("only %d of %d operations did anything", w.done, w.ops)
	}
	v := w.w.view()
	defer v.Release()
	if err := v.Scan(nil, nil, func(k, val []byte) bool {
		fmt.Fprintf(w.sum, "%x=%x\n", k, val)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s of %d operations, %d done", hex.EncodeToString(w.sum.Sum(nil)), w.ops, w.done)
}

// entry applies one entry of a few items.
func (w *writer) entry() {
	if len(w.sessions) == 0 || w.r.IntN(400) == 0 {
		w.open()
		return
	}
	if w.r.IntN(12) == 0 {
		op := w.internal()
		if o := w.apply(op); o.Err == nil {
			switch op := op.(type) {
			case *DropDrive:
				w.dropped(op.Drive)
			case *AllocGroups:
				w.groups[op.Session], _ = FirstGroup(o.Result)
			}
		}
		return
	}
	var items []Item
	for range 1 + w.r.IntN(8) {
		items = append(items, w.item())
	}
	w.run(items)
}

func (w *writer) run(items []Item) []meta.Outcome {
	for i := range items {
		switch it := &items[i]; it.kind() {
		case itemOp:
			w.count(it.Op)
		case itemLog:
			for i := range it.Records {
				w.count(it.Records[i].Op)
			}
		default:
			w.count(it.Internal)
		}
	}
	out := w.w.apply(items...)
	w.sum.Write(EncodeOutcomes(nil, &Outcomes{List: out}))
	for _, o := range out {
		if o.Err == nil {
			w.done++
		}
		if e, ok := o.Result.(*meta.EntryResult); ok && len(w.inos) < 4000 {
			w.inos = append(w.inos, e.Attr.Ino)
		}
	}
	return out
}

func (w *writer) count(op any) {
	w.ops++
	w.kinds[strings.TrimPrefix(reflect.TypeOf(op).String(), "*")]++
}

func (w *writer) apply(op Internal) meta.Outcome { return w.run([]Item{{Internal: op}})[0] }

// open makes a drive and a session of it.
func (w *writer) open() {
	d := meta.DriveID(1 + w.r.IntN(3))
	w.apply(&InitDrive{Drive: d, Name: fmt.Sprint("d", d)})
	w.nonce++
	o := w.apply(&OpenSession{Open: meta.Open{
		Nonce: [16]byte{w.nonce, byte(w.ops), byte(w.ops >> 8), byte(w.ops >> 16)}, CreatePath: true,
		Capability: meta.Capability{Drive: d, Path: []string{"/", "/sub", "/sub/dir"}[w.r.IntN(3)], ReadOnly: w.r.IntN(20) == 0},
	}})
	if s, ok := o.Result.(*meta.SessionResult); ok {
		w.sessions = append(w.sessions, s)
		w.drives[s.Session] = d
	}
}

// dropped forgets the sessions of a drive.
func (w *writer) dropped(d meta.DriveID) {
	live := w.sessions[:0]
	for _, s := range w.sessions {
		if w.drives[s.Session] != d {
			live = append(live, s)
		}
	}
	w.sessions = live
}

func (w *writer) session() *meta.SessionResult { return w.sessions[w.r.IntN(len(w.sessions))] }
func (w *writer) ino() meta.Ino                { return w.inos[w.r.IntN(len(w.inos))] }
func (w *writer) name() string                 { return fmt.Sprint("n", w.r.IntN(40)) }

// item is a client's operation, sometimes sent twice, or a piece of its log.
func (w *writer) item() Item {
	s := w.session()
	it := Item{Session: s.Session, Epoch: s.Epoch}
	if w.r.IntN(10) == 0 {
		it.First = w.lastLog[s.Session] + 1
		for range 1 + w.r.IntN(3) {
			it.Records = append(it.Records, meta.LogRecord{Now: w.r.Int64N(1e18), Op: &meta.SetAttr{Ino: meta.RootIno, Set: meta.SetMtime, Mtime: w.r.Int64N(1e18)}})
		}
		if own := w.groups[s.Session]; own != 0 {
			w.slot++
			it.Records = append(it.Records, meta.LogRecord{Now: w.r.Int64N(1e18), Op: &meta.Make{
				Ino: meta.Ino(own<<meta.SlotBits | w.slot), Parent: meta.RootIno, Name: fmt.Sprint("own", w.slot), Mode: meta.ModeRegular,
			}})
		}
		w.lastLog[s.Session] += uint64(len(it.Records))
		return it
	}
	if w.r.IntN(20) != 0 {
		w.lastOp++
	}
	it.ID, it.Op = w.lastOp, w.op()
	if w.lastOp > 50 && w.r.IntN(3) == 0 {
		it.Acked = []meta.OpID{w.lastOp - 50, w.lastOp - 49}
	}
	return it
}

func (w *writer) requireAllKinds() {
	for k := 0; k < 256; k++ {
		if op := newInternal(uint8(k)); op != nil {
			w.require(op)
		}
		if op := meta.NewOp(meta.OpKind(k)); op != nil && !op.Kind().IsRead() {
			w.require(op)
		}
	}
}

func (w *writer) require(op any) {
	if name := strings.TrimPrefix(reflect.TypeOf(op).String(), "*"); w.kinds[name] == 0 {
		w.t.Errorf("the log has no %s", name)
	}
}

// view runs fn on the state.
func (w *writer) view(fn func(v kv.View) error) {
	v := w.w.view()
	defer v.Release()
	if err := fn(v); err != nil {
		w.t.Fatal(err)
	}
}

// freed lists a few blocks that wait for deletion.
func (w *writer) freed() (keys []tree.FreedKey) {
	w.view(func(v kv.View) error {
		list, err := tree.FreedBlocks(v, tree.FreedKey{}, 1<<62, 4)
		for _, f := range list {
			keys = append(keys, f.Key)
		}
		return err
	})
	return keys
}

// orphans says who pins a few orphans of a drive.
func (w *writer) orphans(d meta.DriveID) (list []OrphanPins) {
	w.view(func(v kv.View) error {
		ds, err := LoadDrive(v, d)
		if err != nil {
			return nil // not made yet, or gone
		}
		found, err := ds.Space().Unresolved(v, 0, 8)
		for i, o := range found {
			p := OrphanPins{Ino: o.Ino}
			if i%2 == 0 {
				p.Pins = append(p.Pins, w.session().Session)
			}
			list = append(list, p)
		}
		return err
	})
	return list
}
