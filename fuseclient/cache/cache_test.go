package cache

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
)

// origin serves blocks and counts what is fetched.
type origin struct {
	data map[chunk.BlockID][]byte

	mu      sync.Mutex // guards the fields below
	fetches map[pageKey]int
	fail    error
}

func (o *origin) fetch(_ context.Context, id chunk.BlockID, off, length uint32) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fail != nil {
		return nil, o.fail
	}
	o.fetches[pageKey{id, off / PageSize}]++
	return bytes.Clone(o.data[id][off : off+length]), nil
}

func newOrigin(r *rand.Rand, sizes ...int) (*origin, []chunk.BlockID) {
	o := &origin{data: map[chunk.BlockID][]byte{}, fetches: map[pageKey]int{}}
	var ids []chunk.BlockID
	for i, n := range sizes {
		id := chunk.BlockID{byte(i + 1)}
		b := make([]byte, n)
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		o.data[id] = b
		ids = append(ids, id)
	}
	return o, ids
}

func TestReadsEqualTheOrigin(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	o, ids := newOrigin(r, 1, PageSize-1, PageSize, PageSize+1, 3*PageSize+17)
	c := New(2 * PageSize) // smaller than what is read: pages come and go
	for range 500 {
		id := ids[r.IntN(len(ids))]
		b := o.data[id]
		off := r.IntN(len(b))
		dst := make([]byte, r.IntN(len(b)-off)+1)
		if err := c.Read(t.Context(), id, uint32(len(b)), uint32(off), dst, o.fetch); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(dst, b[off:off+len(dst)]) {
			t.Fatalf("block of %d bytes differs at %d+%d", len(b), off, len(dst))
		}
		if c.Bytes() > 2*PageSize {
			t.Fatalf("%d bytes are held", c.Bytes())
		}
	}
}

func TestPagesAreFetchedOnce(t *testing.T) {
	o, ids := newOrigin(rand.New(rand.NewPCG(1, 2)), 4*PageSize)
	c := New(1 << 30)
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			dst := make([]byte, 4*PageSize)
			if err := c.Read(t.Context(), ids[0], 4*PageSize, 0, dst, o.fetch); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	for k, n := range o.fetches {
		if n != 1 {
			t.Errorf("page %d was fetched %d times", k.index, n)
		}
	}
}

func TestFailuresAreNotKept(t *testing.T) {
	o, ids := newOrigin(rand.New(rand.NewPCG(1, 3)), PageSize)
	c := New(1 << 30)
	o.fail = errors.New("away")
	dst := make([]byte, 10)
	if err := c.Read(t.Context(), ids[0], PageSize, 0, dst, o.fetch); !errors.Is(err, o.fail) {
		t.Fatalf("error %v", err)
	}
	o.fail = nil
	if err := c.Read(t.Context(), ids[0], PageSize, 0, dst, o.fetch); err != nil {
		t.Fatal(err)
	}
}

// A map of a file that reaches beyond its block is told, not read as garbage.
func TestBeyondTheBlock(t *testing.T) {
	o, ids := newOrigin(rand.New(rand.NewPCG(1, 4)), PageSize+100)
	c := New(1 << 30)
	for _, r := range []struct{ off, n uint32 }{{0, PageSize + 101}, {PageSize + 99, 2}, {PageSize + 100, 1}, {2 * PageSize, 1}, {1<<32 - 1, 10}} {
		if err := c.Read(t.Context(), ids[0], PageSize+100, r.off, make([]byte, r.n), o.fetch); !errs.Is(err, errs.Corrupt) {
			t.Errorf("%d bytes from %d on: %v", r.n, r.off, err)
		}
	}
	if err := c.Read(t.Context(), ids[0], PageSize+100, PageSize+99, make([]byte, 1), o.fetch); err != nil {
		t.Errorf("the last byte: %v", err)
	}
}

// Who waits for another's fetch and is interrupted hears of that.
func TestWaiterIsInterrupted(t *testing.T) {
	c := New(1 << 30)
	began, end := make(chan bool), make(chan bool)
	slow := func(context.Context, chunk.BlockID, uint32, uint32) ([]byte, error) {
		close(began)
		<-end
		return make([]byte, 10), nil
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.Read(context.Background(), chunk.BlockID{1}, 10, 0, make([]byte, 10), slow); err != nil {
			t.Error(err)
		}
	})
	<-began
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Read(ctx, chunk.BlockID{1}, 10, 0, make([]byte, 10), slow); !errs.Is(err, errs.Canceled) {
		t.Errorf("got %v", err)
	}
	close(end)
	wg.Wait()
}
