package kernel

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"testing"
	"time"

	"agentdrive/fuseclient/core"
	"agentdrive/metaserver/meta"
)

func sameIno(node uint64) meta.Ino { return meta.Ino(node) }

// answeredCall is a call of l with a fresh answer.
func answeredCall(l *ledger, op any) *Call {
	c := &Call{led: l}
	c.begin(op)
	c.Answered(&core.Answer{Result: &meta.AttrResult{}}, true)
	return c
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// TestOrders: an invalidation waits for the replies answered before it, in
// whatever order they are written, and for no other.
func TestOrders(t *testing.T) {
	l := newLedger()
	if !isClosed(l.issue(nil).passed) || l.barrier() != nil {
		t.Error("nothing to wait for")
	}
	a, b, read := answeredCall(l, nil), answeredCall(l, nil), &Call{led: l, loose: true}
	read.Answered(&core.Answer{}, true)
	first := l.issue([]core.Inval{{Epoch: true}})
	c := answeredCall(l, nil)
	second := l.barrier()
	l.written(b)
	l.written(c)
	if isClosed(first.passed) || isClosed(second) {
		t.Error("passed a reply that is not written")
	}
	a.begin(nil) // asks once more: what it was told first is not written, ever
	if !isClosed(first.passed) || !isClosed(second) {
		t.Error("waits for a call that is unanswered again")
	}
	a.Answered(&core.Answer{}, true)
	if third := l.barrier(); third == nil || isClosed(third) {
		t.Error("the second answer is not waited for")
	}
	l.written(a)
	l.written(read)
	if l.busy.Load() != 0 || l.first != nil || l.last != nil || len(l.orders) != 0 {
		t.Errorf("left: %+v", l)
	}
}

// liveEntry makes an entry reply with lifetimes of an hour.
func liveEntry(node uint64) []byte {
	b := entryOut(node)
	binary.NativeEndian.PutUint64(b[16:], 3600)
	binary.NativeEndian.PutUint64(b[24:], 3600)
	return b
}

// lives returns the lifetimes of a reply, in seconds: name, attributes, ...
func lives(h header, in, reply []byte) (out []uint64) {
	eachLife(h, in, reply, func(v life) {
		for _, x := range []*valid{v.entry, v.attr} {
			if x != nil {
				out = append(out, binary.NativeEndian.Uint64(x.sec))
			}
		}
	})
	return out
}

func named(at int, name string) []byte { return append(make([]byte, at), name+"\x00more"...) }

// TestCensor: lifetimes leave a reply if an invalidation that came after its
// answer names what they are for (C1).
func TestCensor(t *testing.T) {
	attr := make([]byte, 104)
	binary.NativeEndian.PutUint64(attr, 3600)
	page := append(direntPlus(7, "x"), direntPlus(8, "other")...)
	copy(page, liveEntry(7))
	copy(page[entryOutBytes+entryBytes("x", false):], liveEntry(8))
	const dir, ino = 3, 7
	for _, c := range []struct {
		name string
		op   uint32
		in   []byte
		body []byte
		item core.Inval
		want []uint64
	}{
		{"lookup, name", opLookup, named(40, "x"), liveEntry(ino), core.Inval{Dir: dir, Name: "x"}, []uint64{0, 3600}},
		{"lookup, other name", opLookup, named(40, "x"), liveEntry(ino), core.Inval{Dir: dir, Name: "y"}, []uint64{3600, 3600}},
		{"lookup, other directory", opLookup, named(40, "x"), liveEntry(ino), core.Inval{Dir: 4, Name: "x"}, []uint64{3600, 3600}},
		{"lookup, inode", opLookup, named(40, "x"), liveEntry(ino), core.Inval{Ino: ino}, []uint64{3600, 0}},
		{"lookup, epoch", opLookup, named(40, "x"), liveEntry(ino), core.Inval{Epoch: true}, []uint64{0, 3600}},
		{"absent, name", opLookup, named(40, "x"), liveEntry(0), core.Inval{Dir: dir, Name: "x"}, []uint64{0, 3600}},
		{"create, name", opCreate, named(56, "x"), liveEntry(ino), core.Inval{Dir: dir, Name: "x"}, []uint64{0, 3600}},
		{"link, name", opLink, named(48, "x"), liveEntry(ino), core.Inval{Dir: dir, Name: "x"}, []uint64{0, 3600}},
		{"mkdir, name", opMkdir, named(48, "x"), liveEntry(ino), core.Inval{Dir: dir, Name: "x"}, []uint64{0, 3600}},
		{"attributes", opGetAttr, named(40, ""), attr, core.Inval{Ino: dir, Attr: true}, []uint64{0}},
		{"attributes of another", opSetAttr, named(40, ""), attr, core.Inval{Ino: ino}, []uint64{3600}},
		{"listing, name", opReadDirPlus, nil, page, core.Inval{Dir: dir, Name: "x"}, []uint64{0, 3600, 3600, 3600}},
		{"listing, inode", opReadDirPlus, nil, page, core.Inval{Ino: 8}, []uint64{3600, 3600, 3600, 0}},
	} {
		l := newLedger()
		h := header{op: c.op, node: dir}
		reply := reply(0, bytes.Clone(c.body))
		before := l.issue([]core.Inval{c.item}) // this one the answer knows of
		call := answeredCall(l, nil)
		l.censor(call, h, c.in, reply, sameIno)
		if got := lives(h, c.in, reply); !isClosed(before.passed) || got[0] != 3600 {
			t.Errorf("%s: an invalidation before the answer took %v", c.name, got)
		}
		l.issue([]core.Inval{c.item})
		l.censor(call, h, c.in, reply, sameIno)
		if got := lives(h, c.in, reply); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: lifetimes %v, want %v", c.name, got, c.want)
		}
	}
}

// TestCensorTwoAnswers: of a request that asked twice any invalidation since
// its first answer takes everything.
func TestCensorTwoAnswers(t *testing.T) {
	l := newLedger()
	call := answeredCall(l, nil)
	call.begin(nil)
	l.issue([]core.Inval{{Ino: 99}})
	call.Answered(&core.Answer{}, true)
	h, r := header{op: opCreate, node: 3}, reply(0, liveEntry(7))
	l.censor(call, h, named(56, "x"), r, sameIno)
	if got := lives(h, named(56, "x"), r); got[0] != 0 || got[1] != 0 {
		t.Errorf("lifetimes %v", got)
	}
}

// TestCensorPendingPages: attributes are not believed while pages of the inode
// are about to go, for a read would pass without asking.
func TestCensorPendingPages(t *testing.T) {
	l := newLedger()
	d := l.promise(7, span{0, 4096})
	call := answeredCall(l, nil)
	h, r := header{op: opLookup, node: 3}, reply(0, liveEntry(7))
	l.censor(call, h, named(40, "x"), r, sameIno)
	if got := lives(h, named(40, "x"), r); got[0] != 3600 || got[1] != 0 {
		t.Errorf("lifetimes %v", got)
	}
	l.dropped([]*drop{d})
}

// TestLateReply: what a reply grants counts from the answer.
func TestLateReply(t *testing.T) {
	l := newLedger()
	call := answeredCall(l, nil)
	call.at = call.at.Add(-600 * time.Second)
	h, r := header{op: opLookup, node: 3}, reply(0, liveEntry(7))
	l.censor(call, h, named(40, "x"), r, sameIno)
	for _, got := range lives(h, named(40, "x"), r) {
		if got < 2900 || got > 3000 {
			t.Errorf("lifetime %d after 600 of 3600 s", got)
		}
	}
	call.at = call.at.Add(-4000 * time.Second)
	l.censor(call, h, named(40, "x"), r, sameIno)
	if got := lives(h, named(40, "x"), r); got[0] != 0 || got[1] != 0 {
		t.Errorf("lifetimes %v after they ended", got)
	}
}

func TestSpans(t *testing.T) {
	if got := pages(5000, 1); got != (span{4096, 8192}) {
		t.Errorf("%v", got)
	}
	if got := pages(0, ^uint64(0)); got.end != endless {
		t.Errorf("%v", got)
	}
	got := union([]span{{40, 50}, {0, 10}, {10, 20}, {5, 8}})
	if !reflect.DeepEqual(got, []span{{0, 20}, {40, 50}}) {
		t.Errorf("union %v", got)
	}
	got = minus([]span{{0, endless}}, span{10, 20})
	got = minus(got, span{15, 30})
	if !reflect.DeepEqual(got, []span{{0, 10}, {30, endless}}) {
		t.Errorf("minus %v", got)
	}
}

// TestNotificationMessages: names are dropped plainly: flags are 0.
func TestNotificationMessages(t *testing.T) {
	e := binary.NativeEndian
	m := invalEntryMessage(3, "nm")
	if e.Uint32(m) != uint32(len(m)) || int32(e.Uint32(m[4:])) != 3 || e.Uint64(m[8:]) != 0 ||
		e.Uint64(m[16:]) != 3 || e.Uint32(m[24:]) != 2 || e.Uint32(m[28:]) != 0 || string(m[32:]) != "nm\x00" {
		t.Errorf("% x", m)
	}
	for _, c := range []struct {
		pages  *span
		off, n int64
	}{{nil, -1, 0}, {&span{0, endless}, 0, 0}, {&span{4096, 12288}, 4096, 8192}} {
		m := invalInodeMessage(9, c.pages)
		if len(m) != 40 || e.Uint32(m[4:]) != 2 || e.Uint64(m[16:]) != 9 || int64(e.Uint64(m[24:])) != c.off || int64(e.Uint64(m[32:])) != c.n {
			t.Errorf("%v: % x", c, m)
		}
	}
}

func TestNewEnough(t *testing.T) {
	for release, want := range map[string]bool{
		"6.16.0": true, "6.18.44-generic": true, "7.0": true, "10.1.2": true, "6.15.9": false, "6.1.0-13-amd64": false,
		"5.19": false, "6": false, "": false, "x.y": false,
	} {
		if newEnough(release) != want {
			t.Errorf("%q", release)
		}
	}
}

func FuzzEachLife(f *testing.F) {
	f.Add(uint32(opReadDirPlus), []byte{}, reply(0, append(direntPlus(7, "name"), direntPlus(8, "")...)))
	f.Add(uint32(opCreate), named(56, "x"), reply(0, liveEntry(1)))
	f.Add(uint32(opStatx), []byte{}, reply(0, make([]byte, 300)))
	f.Fuzz(func(t *testing.T, op uint32, in, b []byte) {
		h := header{op: op, node: 3}
		eachLife(h, in, b, func(v life) {
			v.entry.clear()
			v.attr.shorten(time.Second)
		})
		for _, x := range lives(h, in, b) {
			_ = x
		}
	})
}
