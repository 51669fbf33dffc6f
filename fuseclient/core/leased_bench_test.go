package core

import (
	"fmt"
	"testing"

	"agentdrive/chunkserver/chunk"
	"agentdrive/metaserver/meta"
)

// BenchmarkSmallFile is the life of a file of 4 or 8 KiB under leases: made,
// opened, written, closed, published, read twice; the servers answer at once.
func BenchmarkSmallFile(b *testing.B) {
	for _, size := range []int{4096, 8192} {
		b.Run(fmt.Sprint(size), func(b *testing.B) { smallFiles(b, size) })
	}
}

func smallFiles(b *testing.B, size int) {
	c := ownHand(b)
	id, now := ReqID(10), Time(2)
	var puts []PutBlock
	step := func(ev Event) (result any) {
		now += 10000
		for _, e := range c.Step(now, ev) {
			switch e := e.(type) {
			case Answer:
				result = e.Result
			case PutBlock:
				puts = append(puts, e)
			}
		}
		return result
	}
	do := func(op any) any {
		id++
		r := step(Request{ID: id, Op: op})
		if r == nil {
			b.Fatalf("%T waits", op)
		}
		return r
	}
	data := make([]byte, size)
	b.ReportAllocs()
	blocks := 0
	for i := 0; b.Loop(); i++ {
		ino := do(&meta.Make{Parent: 1, Name: fmt.Sprint(i), Mode: meta.ModeRegular, Excl: true}).(*meta.EntryResult).Attr.Ino
		step(OpenFile{Ino: ino})
		do(WriteFile{Ino: ino, Data: data})
		do(Flush{Ino: ino})
		step(CloseFile{Ino: ino})
		for range 2 {
			if p := do(ReadFile{Ino: ino, Len: uint32(size)}).(*FilePlan); len(p.Pieces) != 1 {
				b.Fatalf("%+v", p)
			}
		}
		for _, p := range puts {
			blocks++
			step(BlockStored{Token: p.Token, Acked: []chunk.ServerID{1}})
		}
		puts = puts[:0]
		if c.log.sent > c.log.acked {
			step(FrameIn{Stream: 1, Frame: &meta.LogAck{Seq: c.log.sent}})
		}
	}
	b.ReportMetric(float64(blocks)/float64(b.N), "blocks/op")
}
