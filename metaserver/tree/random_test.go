package tree

import (
	"fmt"
	"os"
	"testing"

	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/metatest"
	"agentdrive/metaserver/model"
)

const birth = 1_700_000_000_000_000_000

// session is the session of all handles of a backend.
const session = meta.SessionID(7)

// backend runs a tree over kv.Mem, one transaction an operation, as a server
// does: it resolves orphans, repeats after errs.Again, and reclaims now and
// then.
type backend struct {
	space  Space
	store  *kv.Mem
	client *metatest.Client
	index  uint64
	again  int // operations that had to wait for the queue
	lazy   bool
}

func newBackend(t testing.TB, cut int) *backend {
	b := &backend{space: Space{Drive: 1, Layer: 3, cut: cut}, store: kv.NewMem(), lazy: cut > 0}
	tx := b.store.Begin()
	if err := b.space.Init(tx, Stamp{Index: 1, Now: birth}, 0o755, 0, 0); err != nil {
		t.Fatal(err)
	}
	tx.Commit()
	b.client = metatest.NewClient(b, meta.RootIno, 1)
	return b
}

// Do implements metatest.Backend.
func (b *backend) Do(op meta.Op, now int64) (meta.Result, error) {
	for round := 0; ; round++ {
		res, err := b.try(op, now)
		if !errs.Is(err, errs.Again) || round == 10_000 {
			return res, err
		}
		b.again++
		b.tx(now, func(tx kv.Tx, st Stamp) error {
			_, err := b.space.ReclaimStep(tx, st, 5)
			return err
		})
	}
}

func (b *backend) try(op meta.Op, now int64) (res meta.Result, err error) {
	if op.Kind().IsRead() {
		v := b.store.View()
		defer v.Release()
		return b.space.Read(v, op)
	}
	b.index++
	tx := b.store.Begin()
	defer tx.Discard()
	st := Stamp{Index: b.index, Now: now}
	if res, err = b.space.Apply(tx, st, op); err != nil {
		if tx.Len() != 0 {
			panic(fmt.Sprintf("%T failed with %v and wrote %d keys", op, err, tx.Len()))
		}
		return nil, err
	}
	orphans, oerr := b.space.Orphans(tx, 0, 1000)
	for _, o := range orphans {
		if o.Resolved || oerr != nil {
			continue
		}
		var pins []meta.SessionID
		if b.client.Holds(o.Ino) {
			pins = []meta.SessionID{session, 99}
		}
		oerr = b.space.ResolveOrphan(tx, st, o.Ino, pins)
		if oerr == nil && pins != nil {
			oerr = b.space.UnpinOrphans(tx, st, 99, nil)
		}
	}
	if oerr != nil {
		panic(oerr)
	}
	if !b.lazy || b.index%16 == 0 {
		if _, err := b.space.ReclaimStep(tx, st, 20); err != nil {
			panic(err)
		}
	}
	tx.Commit()
	return res, nil
}

func (b *backend) tx(now int64, fn func(kv.Tx, Stamp) error) {
	b.index++
	tx := b.store.Begin()
	defer tx.Discard()
	if err := fn(tx, Stamp{Index: b.index, Now: now}); err != nil {
		panic(err)
	}
	tx.Commit()
}

// Forget implements metatest.Backend.
func (b *backend) Forget(ino meta.Ino) {
	b.tx(birth, func(tx kv.Tx, st Stamp) error {
		return b.space.UnpinOrphans(tx, st, session, []meta.Ino{ino})
	})
}

// check runs the queue empty and verifies all invariants.
func (b *backend) check() (problems []string) {
	report := func(p string) { problems = append(problems, p) }
	for round, done := 0, false; !done; round++ {
		v := b.store.View()
		if err := b.space.Check(v, report); err != nil {
			report(err.Error())
		}
		if err := CheckBlocks(v, report); err != nil {
			report(err.Error())
		}
		v.Release()
		if round > 10_000 {
			report("the queue does not become empty")
			break
		}
		b.tx(birth, func(tx kv.Tx, st Stamp) (err error) {
			done, err = b.space.ReclaimStep(tx, st, 50)
			return err
		})
	}
	return problems
}

// difference runs ops on tree and model and describes where they part.
func difference(t testing.TB, ops []metatest.Op, cut int) string {
	b, m := newBackend(t, cut), model.New(0o755, birth)
	// While content waits for the queue, its bytes still count.
	cmp := metatest.Compare{Times: true, Bytes: cut == 0, DirSize: true}
	if d := metatest.Run(b.client, m, ops, cmp); d != "" {
		return d
	}
	if p := b.check(); len(p) > 0 {
		return fmt.Sprintf("invariants: %q", p)
	}
	v := b.store.View()
	defer v.Release()
	bytes, files, err := b.space.Stats(v)
	if wantBytes, wantFiles := m.Usage(); err != nil || bytes != wantBytes || files != wantFiles {
		return fmt.Sprintf("%d bytes in %d files, model %d in %d (%v)", bytes, files, wantBytes, wantFiles, err)
	}
	return ""
}

// TestRandom compares the tree with the model on random operations. A failing
// sequence is shrunk and printed; put it into a file and name that in
// METATEST_REPLAY to run it again.
func TestRandom(t *testing.T) {
	if name := os.Getenv("METATEST_REPLAY"); name != "" {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		ops, err := metatest.Parse(string(text))
		if err != nil {
			t.Fatal(err)
		}
		for _, cut := range []int{0, 3} {
			if d := difference(t, ops, cut); d != "" {
				t.Errorf("cut %d: %s", cut, d)
			}
		}
		return
	}
	seeds := uint64(150)
	if testing.Short() || raceBuild {
		seeds = 24
	}
	for seed := range seeds {
		cut := []int{0, 3, 17}[seed%3]
		ops := metatest.Gen(seed, 500, metatest.Config{Names: 3 + int(seed%4)})
		d := difference(t, ops, cut)
		if d == "" {
			continue
		}
		small := metatest.Shrink(ops, func(ops []metatest.Op) bool { return difference(t, ops, cut) != "" })
		t.Fatalf("seed %d, cut %d: %s\nshrunk:\n%s%s", seed, cut, d, metatest.Format(small), difference(t, small, cut))
	}
}
