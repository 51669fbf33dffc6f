package engine

import (
	"fmt"
	"sync/atomic"
	"testing"

	"agentdrive/chunkserver/chunk"
	"agentdrive/chunkserver/chunktest"
	"agentdrive/internal/disk"
)

func benchStore(b *testing.B) *Store {
	b.Helper()
	cfg := testConfig(disk.OS{}, b.TempDir())
	cfg.SegmentBytes = defaultSegment
	s, err := Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	if err := s.Put(b.Context(), chunktest.Grant(), chunktest.Block(1<<40, 10)); err != nil { // the first segment
		b.Fatal(err)
	}
	return s
}

// BenchmarkPut measures durable puts on the real disk.
func BenchmarkPut(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		for _, writers := range []int{1, 16} {
			b.Run(fmt.Sprintf("%dKiB/%dwriters", size>>10, writers), func(b *testing.B) {
				s := benchStore(b)
				blk := chunktest.Block(1, size)
				var n atomic.Uint64
				b.SetBytes(int64(size))
				b.SetParallelism(writers)
				b.ResetTimer()
				put := func() error {
					c := blk
					k := n.Add(1)
					c.ID = chunk.BlockID{1, byte(k >> 24), byte(k >> 16), byte(k >> 8), byte(k)}
					return s.Put(b.Context(), chunktest.Grant(), c)
				}
				if writers == 1 {
					for b.Loop() {
						if err := put(); err != nil {
							b.Fatal(err)
						}
					}
					return
				}
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if err := put(); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}

// BenchmarkGet measures verified reads from the page cache.
func BenchmarkGet(b *testing.B) {
	s := benchStore(b)
	blk := chunktest.Block(1, chunk.MaxBlock)
	if err := s.Put(b.Context(), chunktest.Grant(), blk); err != nil {
		b.Fatal(err)
	}
	for _, size := range []uint32{4 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := s.Get(b.Context(), chunktest.Grant(), blk.ID, 128<<10, size); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
