package core

import (
	"fmt"
	"testing"

	"agentdrive/metaserver/meta"
)

// ownHand is a session that owns the root and has credit.
func ownHand(b *testing.B) *Client {
	c := New(Config{Group: 1, Open: meta.Open{Nonce: [16]byte{9}}, NewBlockID: testIDs(), IncEpoch: true})
	c.Step(1, Tick{})
	c.Step(1, StreamUp{Stream: 1})
	c.Step(1, FrameIn{Stream: 1, Frame: &meta.Welcome{Session: 1, Epoch: 1, Root: dirAttr(1), TTLMillis: 15000, Now: 1e18}})
	c.Step(1, Request{ID: 1, Op: &meta.Acquire{}})
	c.Step(1, Request{ID: 2, Op: &meta.GetAttr{Ino: 1}})
	c.Step(1, FrameIn{Stream: 1, Frame: &meta.Reply{ID: 1, Outcome: done(&meta.AttrResult{Attr: dirAttr(1)}), Grants: write(1)}})
	c.Step(1, Request{ID: 3, Op: &meta.ReadDir{Dir: 1, Limit: 10}})
	c.Step(1, FrameIn{Stream: 1, Frame: &meta.Reply{ID: 2, Outcome: done(&meta.DirResult{EOF: true}), Grants: write(1)}})
	c.Step(1, FrameIn{Stream: 1, Frame: &meta.Credited{FirstGroup: 100, Groups: 1 << 20, Unlimited: true}})
	if n := c.nodeOf(1); n == nil || !n.attrOK || n.dir.listed != listedAll {
		b.Fatal("nothing owned")
	}
	return c
}

func BenchmarkLocal(b *testing.B) {
	const files = 10000
	names := make([]string, files)
	for i := range names {
		names[i] = fmt.Sprint("file-", i)
	}
	id, now := ReqID(10), Time(2)
	do := func(c *Client, op any) any {
		id++
		now += 1000
		for _, e := range c.Step(now, Request{ID: id, Op: op}) {
			if a, ok := e.(Answer); ok {
				return a.Result
			}
		}
		b.Fatalf("%T waits", op)
		return nil
	}
	ack := func(c *Client) {
		now += 1000
		c.Step(now, FrameIn{Stream: 1, Frame: &meta.LogAck{Seq: c.log.last}})
	}
	b.Run("make+unlink", func(b *testing.B) {
		c := ownHand(b)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			do(c, &meta.Make{Parent: 1, Name: names[i%files], Mode: meta.ModeRegular, Excl: true})
			do(c, &meta.Unlink{Parent: 1, Name: names[i%files]})
			if i%100 == 0 {
				ack(c)
			}
		}
	})
	c := ownHand(b)
	var inos []meta.Ino
	for i, n := range names {
		inos = append(inos, do(c, &meta.Make{Parent: 1, Name: n, Mode: meta.ModeRegular, Excl: true}).(*meta.EntryResult).Attr.Ino)
		if i%100 == 0 {
			ack(c)
		}
	}
	b.Run("lookup", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			do(c, &meta.Lookup{Parent: 1, Name: names[i%files]})
		}
	})
	b.Run("getattr", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			do(c, &meta.GetAttr{Ino: inos[i%files]})
		}
	})
	b.Run("readdirplus-100", func(b *testing.B) {
		b.ReportAllocs()
		cookie := uint64(0)
		for b.Loop() {
			r := do(c, &meta.ReadDir{Dir: 1, Cookie: cookie, Limit: 100, Plus: true}).(*meta.DirResult)
			cookie = 0
			if !r.EOF {
				cookie = r.Entries[len(r.Entries)-1].Cookie
			}
		}
	})
}
