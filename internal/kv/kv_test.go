package kv_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"agentdrive/internal/kv"
)

// model is the dumb second implementation: a Go map, sorted when scanned.
type model map[string]string

func (m model) scan(lo, hi []byte, limit int) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if len(out) < limit && k >= string(lo) && (hi == nil || k < string(hi)) {
			out = append(out, k+"="+m[k])
		}
	}
	return out
}

func scan(t *testing.T, v kv.View, lo, hi []byte, limit int) []string {
	t.Helper()
	var out []string
	if limit == 0 {
		return out
	}
	err := v.Scan(lo, hi, func(key, val []byte) bool {
		out = append(out, string(key)+"="+string(val))
		return len(out) < limit
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// replay interprets ops (3 bytes each: verb, key, value) on a Mem, an Overlay
// over it and the model, comparing after each.
func replay(t *testing.T, ops []byte) {
	m := kv.NewMem()
	want := model{}
	committed := model{}
	tx := m.Begin()
	defer func() { tx.Discard() }()
	var held kv.Snapshot
	var heldWant model
	for i := 0; i+3 <= len(ops); i += 3 {
		key := fmt.Appendf(nil, "k%02x", ops[i+1]%32)
		val := fmt.Appendf(nil, "%d", ops[i+2])
		switch ops[i] % 8 {
		case 0, 1:
			tx.Set(key, val)
			want[string(key)] = string(val)
		case 2:
			tx.Delete(key)
			delete(want, string(key))
		case 3: // commit and go on
			tx.Commit()
			committed = maps.Clone(want)
			tx = m.Begin()
		case 4: // drop
			tx.Discard()
			want = maps.Clone(committed)
			tx = m.Begin()
		case 5: // take a view that must not change
			held, heldWant = m.View(), maps.Clone(committed)
		case 6:
			got, ok, err := tx.Get(key)
			w, wok := want[string(key)]
			if err != nil || ok != wok || (ok && string(got) != w) {
				t.Fatalf("op %d: get %s = %q %v %v, want %q %v", i/3, key, got, ok, err, w, wok)
			}
		case 7:
			lo := key
			hi := fmt.Appendf(nil, "k%02x", ops[i+2]%33)
			if ops[i+2] > 250 {
				hi = nil
			}
			limit := int(ops[i+2]%5) + 1
			if g, w := scan(t, tx, lo, hi, limit), want.scan(lo, hi, limit); !slices.Equal(g, w) {
				t.Fatalf("op %d: scan [%s,%s) limit %d = %v, want %v", i/3, lo, hi, limit, g, w)
			}
		}
	}
	if g, w := scan(t, tx, nil, nil, 1000), want.scan(nil, nil, 1000); !slices.Equal(g, w) {
		t.Fatalf("transaction = %v, want %v", g, w)
	}
	if g, w := scan(t, m.View(), nil, nil, 1000), committed.scan(nil, nil, 1000); !slices.Equal(g, w) {
		t.Fatalf("committed = %v, want %v", g, w)
	}
	if held != nil {
		if g, w := scan(t, held, nil, nil, 1000), heldWant.scan(nil, nil, 1000); !slices.Equal(g, w) {
			t.Fatalf("held view = %v, want %v", g, w)
		}
	}
}

func FuzzOverlay(f *testing.F) {
	f.Add([]byte{0, 1, 1, 3, 0, 0, 2, 1, 0, 7, 0, 255})
	f.Add([]byte{0, 1, 1, 0, 2, 2, 3, 0, 0, 0, 2, 3, 2, 1, 0, 7, 0, 33, 4, 0, 0, 7, 0, 255})
	f.Fuzz(func(t *testing.T, ops []byte) { replay(t, ops[:min(len(ops), 3*500)]) })
}

func TestOverlayAgainstModel(t *testing.T) {
	for seed := uint64(0); seed < 200; seed++ {
		r := rand.New(rand.NewPCG(seed, 1))
		ops := make([]byte, 3*400)
		for i := range ops {
			ops[i] = byte(r.Uint32())
		}
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { replay(t, ops) })
	}
}

func TestOverlayCopiesAndCounts(t *testing.T) {
	o := kv.NewOverlay(kv.NewMem().View())
	key, val := []byte("key"), []byte("value")
	o.Set(key, val)
	key[0], val[0] = 'X', 'X'
	if got, ok, _ := o.Get([]byte("key")); !ok || !bytes.Equal(got, []byte("value")) {
		t.Fatalf("overlay kept a reference: %q %v", got, ok)
	}
	o.Set([]byte("key"), []byte("v"))
	o.Delete([]byte("other"))
	if o.Len() != 2 || o.Bytes() != len("key")+len("v")+len("other") {
		t.Fatalf("len %d bytes %d", o.Len(), o.Bytes())
	}
}

type failing struct{ kv.View }

var errDisk = errors.New("disk")

func (failing) Get([]byte) ([]byte, bool, error) { return nil, false, errDisk }

func TestOverlayErrorSticks(t *testing.T) {
	o := kv.NewOverlay(failing{kv.NewMem().View()})
	if _, _, err := o.Get([]byte("a")); !errors.Is(err, errDisk) {
		t.Fatal(err)
	}
	if err := o.Scan(nil, nil, func(_, _ []byte) bool { return true }); !errors.Is(err, errDisk) {
		t.Fatalf("scan after a failed read: %v", err)
	}
	if !errors.Is(o.Err(), errDisk) {
		t.Fatal("error forgotten")
	}
}
