package state

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
)

// names and inodes of drive 1, by key.
func (w *world) namespace(v kv.View) map[string]string {
	m := map[string]string{}
	for _, space := range []byte{'I', 'D'} {
		if err := v.Scan([]byte{space}, []byte{space + 1}, func(k, val []byte) bool {
			m[string(k)] = string(val)
			return true
		}); err != nil {
			w.t.Fatal(err)
		}
	}
	return m
}

// TestTouchesCoversEveryChange runs random operations: each name and inode
// that one changes was announced, but for inodes that it makes.
func TestTouchesCoversEveryChange(t *testing.T) {
	done := map[string]int{}
	for seed := range uint64(6) {
		w := &writer{
			t: t, r: rand.New(rand.NewPCG(seed, 3)), w: newWorld(t, 1), sum: sha256.New(),
			kinds: map[string]int{}, drives: map[meta.SessionID]meta.DriveID{}, lastLog: map[meta.SessionID]uint64{},
			inos: []meta.Ino{meta.RootIno},
		}
		s := w.w.session(1, meta.Capability{Path: "/"})
		for step := range 3000 {
			if n := len(w.inos); n > 8 { // few, so that operations meet
				w.inos = append([]meta.Ino{meta.RootIno}, w.inos[n-7:]...)
			}
			op := w.op()
			v := w.w.view()
			touched, err := Touches(v, 1, op)
			before := w.w.namespace(v)
			v.Release()
			if err != nil {
				t.Fatal(err)
			}
			out := w.run([]Item{{Session: s.Session, Epoch: 1, ID: meta.OpID(step + 1), Op: op}})
			if out[0].Err != nil {
				continue
			}
			v = w.w.view()
			after := w.w.namespace(v)
			v.Release()
			for k := range after {
				if before[k] != after[k] {
					requireTouched(t, touched, k, before[k] == "", op)
					done[reflect.TypeOf(op).String()]++
				}
				delete(before, k)
			}
			for k := range before {
				requireTouched(t, touched, k, false, op)
			}
		}
	}
	for k := meta.KindMake; k <= meta.KindWrite; k++ {
		if done[reflect.TypeOf(meta.NewOp(k)).String()] == 0 {
			t.Errorf("no %T changed anything", meta.NewOp(k))
		}
	}
}

func requireTouched(t *testing.T, touched Touched, k string, fresh bool, op meta.Op) {
	t.Helper()
	id := meta.Ino(binary.BigEndian.Uint64([]byte(k[9:17])))
	if k[0] == 'D' {
		if !slices.Contains(touched.Names, NameKey{id, k[25:]}) || !slices.Contains(touched.Dirs, id) {
			t.Fatalf("%T %+v changed the name %q in %d, announced %+v", op, op, k[25:], id, touched)
		}
		return
	}
	if !fresh && !slices.Contains(touched.Dirs, id) && !slices.Contains(touched.Inos, id) {
		t.Fatalf("%T %+v changed inode %d, announced %+v", op, op, id, touched)
	}
}

func TestTouches(t *testing.T) {
	w := newWorld(t, 1)
	s := w.session(1, meta.Capability{Path: "/"})
	next := meta.OpID(0)
	mk := func(parent meta.Ino, name string, mode uint32) meta.Ino {
		next++
		o := w.op(s, next, &meta.Make{Parent: parent, Name: name, Mode: mode, Excl: true})
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		return o.Result.(*meta.EntryResult).Attr.Ino
	}
	const root = meta.RootIno
	d := mk(root, "d", meta.ModeDir|0o755)
	e := mk(root, "e", meta.ModeDir|0o755)
	f := mk(d, "f", meta.ModeRegular)
	g := mk(d, "g", meta.ModeRegular)
	for _, c := range []struct {
		op   meta.Op
		want Touched
	}{
		{&meta.Make{Parent: d, Name: "new"}, Touched{[]NameKey{{d, "new"}}, []meta.Ino{d}, nil}},
		{&meta.Make{Parent: d, Name: "f"}, Touched{[]NameKey{{d, "f"}}, []meta.Ino{d}, []meta.Ino{f}}},
		{&meta.Unlink{Parent: d, Name: "f"}, Touched{[]NameKey{{d, "f"}}, []meta.Ino{d}, []meta.Ino{f}}},
		{&meta.Unlink{Parent: d, Name: "none"}, Touched{[]NameKey{{d, "none"}}, []meta.Ino{d}, nil}},
		{&meta.Unlink{Parent: 99, Name: "x"}, Touched{[]NameKey{{99, "x"}}, []meta.Ino{99}, nil}},
		{&meta.Rmdir{Parent: root, Name: "e"}, Touched{[]NameKey{{root, "e"}}, []meta.Ino{root}, []meta.Ino{e}}},
		{&meta.Link{Ino: f, Parent: e, Name: "l"}, Touched{[]NameKey{{e, "l"}}, []meta.Ino{e}, []meta.Ino{f}}},
		{&meta.Rename{OldParent: d, OldName: "g", NewParent: d, NewName: "f"}, Touched{[]NameKey{{d, "f"}, {d, "g"}}, []meta.Ino{d}, []meta.Ino{f, g}}},
		{&meta.Rename{OldParent: d, OldName: "g", NewParent: d, NewName: "g"}, Touched{[]NameKey{{d, "g"}}, []meta.Ino{d}, []meta.Ino{g}}},
		{&meta.Rename{OldParent: root, OldName: "e", NewParent: d, NewName: "e"}, Touched{[]NameKey{{root, "e"}, {d, "e"}}, []meta.Ino{root, d}, []meta.Ino{e}}},
		{&meta.SetAttr{Ino: d, Set: meta.SetMode}, Touched{nil, nil, []meta.Ino{d}}},
		{&meta.SetXattr{Ino: f, Name: "user.a"}, Touched{nil, nil, []meta.Ino{f}}},
		{&meta.RemoveXattr{Ino: f, Name: "user.a"}, Touched{nil, nil, []meta.Ino{f}}},
		{&meta.Write{Ino: 99}, Touched{nil, nil, []meta.Ino{99}}},
		{&meta.LateAck{}, Touched{}},
		{&meta.GetAttr{Ino: f}, Touched{}},
	} {
		v := w.view()
		got, err := Touches(v, 1, c.op)
		v.Release()
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%T %+v: %v\ngot  %+v\nwant %+v", c.op, c.op, err, got, c.want)
		}
	}
}
