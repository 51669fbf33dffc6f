// Package cache keeps parts of blocks in memory.
//
// Blocks never change, so a cached page is right as long as it exists; nothing
// has to be invalidated. Pages have a fixed size; reads of one page at a time
// share one fetch. The least recently used pages go first.
package cache

import (
	"container/list"
	"context"
	"fmt"
	"sync"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
)

// PageSize is the unit of caching in bytes.
const PageSize = 256 << 10

// Fetch reads length bytes at off of a block from where it is stored.
type Fetch func(ctx context.Context, id chunk.BlockID, off, length uint32) ([]byte, error)

type pageKey struct {
	id    chunk.BlockID
	index uint32
}

type page struct {
	key  pageKey
	data []byte
}

// flight is a fetch under way.
type flight struct {
	done chan struct{} // closed when data and err are set
	data []byte
	err  error
}

// Cache is a bounded set of pages. Safe for concurrent use.
type Cache struct {
	max int64

	mu      sync.Mutex // guards the fields below; leaf: no fetch under it
	bytes   int64
	pages   map[pageKey]*list.Element // of *page
	lru     list.List                 // most recent first
	flights map[pageKey]*flight
}

// New makes a cache of at most max bytes.
func New(max int64) *Cache {
	return &Cache{max: max, pages: map[pageKey]*list.Element{}, flights: map[pageKey]*flight{}}
}

// Read fills dst with the bytes at off of a block of blockLen bytes;
// errs.Corrupt if they do not all lie inside it, since then the map of the file
// is wrong. Pages that are missing are fetched at once. Other errors are those
// of fetch, errs.Canceled or errs.Timeout.
func (c *Cache) Read(ctx context.Context, id chunk.BlockID, blockLen, off uint32, dst []byte, fetch Fetch) error {
	if len(dst) == 0 {
		return nil
	}
	if uint64(off)+uint64(len(dst)) > uint64(blockLen) {
		return errs.E("cache.read", errs.Corrupt, fmt.Sprintf("block %s has %d bytes, asked were %d from %d on", id, blockLen, len(dst), off), nil)
	}
	var wg sync.WaitGroup
	var once sync.Once
	var failed error
	for len(dst) > 0 {
		index := off / PageSize
		at := off - index*PageSize
		n := min(len(dst), int(PageSize-at))
		part := dst[:n]
		read := func() {
			data, err := c.page(ctx, pageKey{id, index}, min(PageSize, blockLen-index*PageSize), fetch)
			if err != nil {
				once.Do(func() { failed = err })
				return
			}
			copy(part, data[at:])
		}
		dst, off = dst[n:], off+uint32(n)
		if len(dst) == 0 {
			read() // the last one needs no goroutine of its own
			break
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			read()
		}()
	}
	wg.Wait()
	return failed
}

// page returns a page, read-only.
func (c *Cache) page(ctx context.Context, k pageKey, length uint32, fetch Fetch) ([]byte, error) {
	for {
		c.mu.Lock()
		if e := c.pages[k]; e != nil {
			c.lru.MoveToFront(e)
			c.mu.Unlock()
			return e.Value.(*page).data, nil
		}
		f := c.flights[k]
		if f == nil {
			f = &flight{done: make(chan struct{})}
			c.flights[k] = f
			c.mu.Unlock()
			f.data, f.err = fetch(ctx, k.id, k.index*PageSize, length)
			c.landed(k, f)
			return f.data, f.err
		}
		c.mu.Unlock()
		select {
		case <-f.done:
			if f.err == nil {
				return f.data, nil
			}
			// The fetch failed or its owner gave up; try on our own behalf.
			if ctx.Err() != nil {
				return nil, f.err
			}
		case <-ctx.Done():
			return nil, chunk.Ended("cache.read", ctx)
		}
	}
}

func (c *Cache) landed(k pageKey, f *flight) {
	c.mu.Lock()
	delete(c.flights, k)
	if f.err == nil {
		c.pages[k] = c.lru.PushFront(&page{k, f.data})
		c.bytes += int64(len(f.data))
		for c.bytes > c.max {
			e := c.lru.Back()
			p := e.Value.(*page)
			c.lru.Remove(e)
			delete(c.pages, p.key)
			c.bytes -= int64(len(p.data))
		}
	}
	c.mu.Unlock()
	close(f.done)
}

// Bytes returns the bytes held.
func (c *Cache) Bytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}
