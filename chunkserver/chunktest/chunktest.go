// Package chunktest is the conformance suite of chunk.Store. Every
// implementation runs it: in memory, on disk, across the network.
package chunktest

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
)

// Cluster is the cluster that the store under test must belong to.
var Cluster = [16]byte{1, 2, 3, 4}

// Grant carries all rights in Cluster and does not expire.
func Grant() chunk.Grant {
	return chunk.Grant{Cluster: Cluster, Rights: chunk.RightRead | chunk.RightWrite | chunk.RightDelete}
}

// Block makes a block of n bytes; the same arguments give the same block.
func Block(seed uint64, n int) chunk.Block {
	rng := rand.New(rand.NewPCG(seed, 1))
	b := chunk.Block{Owner: chunk.Owner{Group: 1, Drive: 2, Session: seed % 3, Epoch: 1}, Data: make([]byte, n)}
	fill(rng, b.ID[:])
	fill(rng, b.Data)
	b.Sums = chunk.Sums(b.Data)
	return b
}

func fill(rng *rand.Rand, p []byte) {
	var word [8]byte
	for len(p) > 0 {
		binary.BigEndian.PutUint64(word[:], rng.Uint64())
		p = p[copy(p, word[:]):]
	}
}

// Run runs the suite; open gives an empty store for each test and cleans up by
// t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) chunk.Store) {
	tests := []struct {
		name string
		run  func(t *testing.T, s chunk.Store)
	}{
		{"PutGet", testPutGet}, {"Ranges", testRanges}, {"PutAgain", testPutAgain},
		{"PutInvalid", testPutInvalid}, {"Delete", testDelete}, {"Has", testHas},
		{"List", testList}, {"Grants", testGrants}, {"Canceled", testCanceled},
		{"Status", testStatus}, {"Limits", testLimits}, {"Concurrent", testConcurrent},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// MustPut stores a block or ends the test.
func MustPut(t *testing.T, s chunk.Store, b chunk.Block) {
	t.Helper()
	if err := s.Put(t.Context(), Grant(), b); err != nil {
		t.Fatalf("put %s: %v", b.ID, err)
	}
}

// WantBlock checks that the whole block is there.
func WantBlock(t *testing.T, s chunk.Store, b chunk.Block) {
	t.Helper()
	got, err := s.Get(t.Context(), Grant(), b.ID, 0, uint32(len(b.Data)))
	if err != nil {
		t.Errorf("get %s: %v", b.ID, err)
	} else if !bytes.Equal(got, b.Data) {
		t.Errorf("get %s: %d wrong bytes", b.ID, len(got))
	}
}

// WantKind checks an error's kind.
func WantKind(t *testing.T, err error, kind errs.Kind) {
	t.Helper()
	if !errs.Is(err, kind) {
		t.Errorf("error %v of kind %v, want kind %v", err, errs.KindOf(err), kind)
	}
}

func testPutGet(t *testing.T, s chunk.Store) {
	var blocks []chunk.Block
	for i, n := range []int{1, 511, 512, 4096, chunk.SumStride, chunk.SumStride + 1, 1 << 20, chunk.MaxBlock} {
		b := Block(uint64(i), n)
		passed := b
		passed.Data = bytes.Clone(b.Data)
		MustPut(t, s, passed)
		clear(passed.Data) // the store keeps no reference
		blocks = append(blocks, b)
	}
	for _, b := range blocks {
		WantBlock(t, s, b)
		got, err := s.Get(t.Context(), Grant(), b.ID, 0, 1)
		if err != nil || len(got) != 1 {
			t.Fatalf("get: %v", err)
		}
		got[0]++ // the caller owns the result
		WantBlock(t, s, b)
	}
	_, err := s.Get(t.Context(), Grant(), chunk.BlockID{9}, 0, 1)
	WantKind(t, err, errs.NotExist)
}

func testRanges(t *testing.T, s chunk.Store) {
	const n = 3*chunk.SumStride + 100
	b := Block(1, n)
	MustPut(t, s, b)
	for _, r := range [][2]uint32{{0, 1}, {n - 1, 1}, {chunk.SumStride - 1, 2}, {chunk.SumStride, chunk.SumStride},
		{10, 2 * chunk.SumStride}, {3 * chunk.SumStride, 100}, {0, n}} {
		got, err := s.Get(t.Context(), Grant(), b.ID, r[0], r[1])
		if err != nil || !bytes.Equal(got, b.Data[r[0]:r[0]+r[1]]) {
			t.Errorf("get %d bytes at %d: %d bytes, %v", r[1], r[0], len(got), err)
		}
	}
	for _, r := range [][2]uint32{{0, 0}, {0, n + 1}, {n, 1}, {1, n}, {1 << 31, 1 << 31}, {1<<32 - 1, 1<<32 - 1}} {
		_, err := s.Get(t.Context(), Grant(), b.ID, r[0], r[1])
		WantKind(t, err, errs.Invalid)
	}
}

func testPutAgain(t *testing.T, s chunk.Store) {
	b := Block(1, 5000)
	MustPut(t, s, b)
	MustPut(t, s, b)
	other := Block(2, 5000)
	other.ID = b.ID
	WantKind(t, s.Put(t.Context(), Grant(), other), errs.Exist)
	shorter := b
	shorter.Data = b.Data[:100]
	shorter.Sums = chunk.Sums(shorter.Data)
	WantKind(t, s.Put(t.Context(), Grant(), shorter), errs.Exist)
	WantBlock(t, s, b)
	if st, err := s.Status(t.Context()); err != nil || st.Blocks != 1 {
		t.Errorf("status %+v, %v; want 1 block", st, err)
	}
}

func testPutInvalid(t *testing.T, s chunk.Store) {
	cases := []struct {
		name   string
		change func(b *chunk.Block)
		kind   errs.Kind
	}{
		{"id zero", func(b *chunk.Block) { b.ID = chunk.BlockID{} }, errs.Invalid},
		{"empty", func(b *chunk.Block) { b.Data, b.Sums = nil, nil }, errs.Invalid},
		{"too long", func(b *chunk.Block) {
			b.Data = make([]byte, chunk.MaxBlock+1)
			b.Sums = chunk.Sums(b.Data)
		}, errs.Invalid},
		{"sum missing", func(b *chunk.Block) { b.Sums = b.Sums[1:] }, errs.Invalid},
		{"sum too many", func(b *chunk.Block) { b.Sums = append(slices.Clone(b.Sums), 1) }, errs.Invalid},
		{"first sum wrong", func(b *chunk.Block) { b.Sums[0]++ }, errs.Corrupt},
		{"last sum wrong", func(b *chunk.Block) { b.Sums[1]++ }, errs.Corrupt},
		{"data wrong", func(b *chunk.Block) { b.Data[chunk.SumStride] ^= 1 }, errs.Corrupt},
	}
	for i, c := range cases {
		b := Block(uint64(i), chunk.SumStride+10)
		c.change(&b)
		err := s.Put(t.Context(), Grant(), b)
		if !errs.Is(err, c.kind) {
			t.Errorf("%s: %v, want kind %v", c.name, err, c.kind)
		}
		if has, err := s.Has(t.Context(), Grant(), []chunk.BlockID{b.ID}); err != nil || has[0] {
			t.Errorf("%s: stored all the same (%v)", c.name, err)
		}
	}
}

func testDelete(t *testing.T, s chunk.Store) {
	var ids []chunk.BlockID
	for i := range uint64(10) {
		b := Block(i, 1000)
		MustPut(t, s, b)
		ids = append(ids, b.ID)
	}
	gone := append([]chunk.BlockID{{7}, ids[0]}, ids[:5]...) // unknown and repeated ones too
	for range 2 {
		if err := s.Delete(t.Context(), Grant(), gone); err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint64(10) {
		if b := Block(i, 1000); i >= 5 {
			WantBlock(t, s, b)
		} else {
			_, err := s.Get(t.Context(), Grant(), b.ID, 0, 1)
			WantKind(t, err, errs.NotExist)
		}
	}
	if err := s.Delete(t.Context(), Grant(), nil); err != nil {
		t.Errorf("deleting nothing: %v", err)
	}
	again := Block(3, 1000)
	MustPut(t, s, again)
	WantBlock(t, s, again)
}

func testHas(t *testing.T, s chunk.Store) {
	a, b := Block(1, 10), Block(2, 10)
	MustPut(t, s, a)
	got, err := s.Has(t.Context(), Grant(), []chunk.BlockID{b.ID, a.ID, b.ID})
	if err != nil || !slices.Equal(got, []bool{false, true, false}) {
		t.Errorf("has %v, %v", got, err)
	}
	if got, err = s.Has(t.Context(), Grant(), nil); err != nil || len(got) != 0 {
		t.Errorf("has of nothing: %v, %v", got, err)
	}
}

func testList(t *testing.T, s chunk.Store) {
	var all []chunk.Info
	for i := range uint64(25) {
		b := Block(i, int(i)+1)
		MustPut(t, s, b)
		all = append(all, chunk.Info{ID: b.ID, Owner: b.Owner, Len: uint32(i) + 1})
	}
	slices.SortFunc(all, func(a, b chunk.Info) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	for _, owner := range []*chunk.Owner{nil, {Group: 1, Drive: 2, Session: 1, Epoch: 1}, {Group: 99}} {
		var want []chunk.Info
		for _, info := range all {
			if owner == nil || info.Owner == *owner {
				want = append(want, info)
			}
		}
		for _, limit := range []int{1, 4, 25, chunk.MaxPerCall} {
			if got := listAll(t, s, owner, limit); !slices.Equal(got, want) {
				t.Errorf("owner %v, limit %d: %d blocks, want %d", owner, limit, len(got), len(want))
			}
		}
	}
}

func listAll(t *testing.T, s chunk.Store, owner *chunk.Owner, limit int) (all []chunk.Info) {
	var after chunk.BlockID
	for {
		got, err := s.List(t.Context(), Grant(), owner, after, limit)
		if err != nil || len(got) > limit {
			t.Fatalf("list: %d blocks, %v", len(got), err)
		}
		all = append(all, got...)
		if len(got) < limit {
			return all
		}
		after = got[len(got)-1].ID
	}
}

// calls runs each call of the interface that takes a grant.
func calls(ctx context.Context, s chunk.Store, g chunk.Grant, b chunk.Block) map[string]error {
	out := map[string]error{"put": s.Put(ctx, g, b), "delete": s.Delete(ctx, g, []chunk.BlockID{b.ID})}
	_, out["get"] = s.Get(ctx, g, b.ID, 0, 1)
	_, out["has"] = s.Has(ctx, g, []chunk.BlockID{b.ID})
	_, out["list"] = s.List(ctx, g, nil, chunk.BlockID{}, 1)
	return out
}

func testGrants(t *testing.T, s chunk.Store) {
	b := Block(1, 10)
	const r, w, d = chunk.RightRead, chunk.RightWrite, chunk.RightDelete
	needs := map[string]uint8{"put": w, "delete": d, "get": r, "has": r | w, "list": r}
	for _, rights := range []uint8{0, r, w, d, r | w} {
		g := Grant()
		g.Rights = rights
		MustPut(t, s, b)
		for call, err := range calls(t.Context(), s, g, b) {
			if refused, want := errs.Is(err, errs.Refused), needs[call]&rights == 0; refused != want {
				t.Errorf("%s with rights %d: %v", call, rights, err)
			}
		}
	}
	other, late := Grant(), Grant()
	other.Cluster[0]++
	late.Expires = 1
	for _, g := range []chunk.Grant{other, late} {
		for call, err := range calls(t.Context(), s, g, b) {
			if !errs.Is(err, errs.Refused) || errs.HintOf(err) == "" {
				t.Errorf("%s with grant %+v: %v (hint %q)", call, g, err, errs.HintOf(err))
			}
		}
	}
}

func testCanceled(t *testing.T, s chunk.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := Block(1, 10)
	for call, err := range calls(ctx, s, Grant(), b) {
		if !errs.Is(err, errs.Canceled) {
			t.Errorf("%s: %v", call, err)
		}
	}
	if _, err := s.Status(ctx); !errs.Is(err, errs.Canceled) {
		t.Errorf("status: %v", err)
	}
	if has, err := s.Has(t.Context(), Grant(), []chunk.BlockID{b.ID}); err != nil || has[0] {
		t.Errorf("a canceled put was done (%v)", err)
	}
}

func testStatus(t *testing.T, s chunk.Store) {
	MustPut(t, s, Block(1, 1000))
	MustPut(t, s, Block(2, 500))
	if err := s.Delete(t.Context(), Grant(), []chunk.BlockID{Block(1, 1000).ID}); err != nil {
		t.Fatal(err)
	}
	st, err := s.Status(t.Context())
	if err != nil || st.Blocks != 1 || st.Live != 500 || st.Used < 500 || st.Free == 0 || st.ReadOnly {
		t.Errorf("status %+v, %v", st, err)
	}
}

func testLimits(t *testing.T, s chunk.Store) {
	ids := make([]chunk.BlockID, chunk.MaxPerCall+1)
	_, err := s.Has(t.Context(), Grant(), ids)
	WantKind(t, err, errs.Invalid)
	WantKind(t, s.Delete(t.Context(), Grant(), ids), errs.Invalid)
	if err := s.Delete(t.Context(), Grant(), ids[1:]); err != nil {
		t.Errorf("delete of %d ids: %v", chunk.MaxPerCall, err)
	}
	for _, limit := range []int{-1, 0, chunk.MaxPerCall + 1} {
		_, err = s.List(t.Context(), Grant(), nil, chunk.BlockID{}, limit)
		WantKind(t, err, errs.Invalid)
	}
}

// testConcurrent lets writers share blocks: each block is put twice at once,
// read, and half are deleted.
func testConcurrent(t *testing.T, s chunk.Store) {
	const workers, each = 8, 20
	var wg sync.WaitGroup
	for w := range uint64(workers) {
		wg.Go(func() {
			for i := range uint64(each) {
				b := Block(w/2*each+i, 3000)
				if err := s.Put(t.Context(), Grant(), b); err != nil {
					t.Errorf("put: %v", err)
				}
				got, err := s.Get(t.Context(), Grant(), b.ID, 0, 3000)
				if err != nil || !bytes.Equal(got, b.Data) {
					t.Errorf("get after put: %v", err)
				}
			}
		})
	}
	wg.Wait()
	for w := range uint64(workers / 2) {
		wg.Go(func() {
			for i := range uint64(each / 2) {
				if err := s.Delete(t.Context(), Grant(), []chunk.BlockID{Block(w*each+i, 3000).ID}); err != nil {
					t.Errorf("delete: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(listAll(t, s, nil, 7)); n != workers/2*each/2 {
		t.Errorf("%d blocks left, want %d", n, workers/2*each/2)
	}
}
