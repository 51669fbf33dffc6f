package core

import (
	"testing"

	"agentdrive/metaserver/meta"
)

// TestPagesWantALease: a read that fills pages of the kernel, and whose answer
// no lease covers, asks for one and reads again; not for ever, and not when it
// goes around the pages.
func TestPagesWantALease(t *testing.T) {
	h := leasedData(t)
	m := mapOf(regular(10, 100, 3), pattern(0, 100))
	read := meta.Grant{Ino: 10, Kind: meta.LeaseRead}
	next := func(k meta.OpKind, res meta.Result, grants ...meta.Grant) {
		t.Helper()
		o := h.op()
		if o.Op.Kind() != k {
			t.Fatalf("sent %T", o.Op)
		}
		h.frame(&meta.Reply{ID: o.ID, Outcome: done(res), Grants: grants})
	}
	acquired := &meta.AcquireResult{Attrs: []meta.Attr{m.Attr}}
	id := h.request(ReadFile{Ino: 10, Len: 10000})
	next(meta.KindReadMap, m)
	next(meta.KindAcquire, acquired, read)
	next(meta.KindReadMap, m, read)
	if p := h.answered(id).(*FilePlan); !p.Keep {
		t.Fatal("not kept under the lease that was asked for")
	}
	h = leasedData(t)
	id = h.request(ReadFile{Ino: 10, Len: 10000})
	next(meta.KindReadMap, m)
	for range leaseTries {
		next(meta.KindAcquire, acquired)
		next(meta.KindReadMap, m)
	}
	if p := h.answered(id).(*FilePlan); p.Keep {
		t.Fatal("kept without a lease")
	}
	id = h.request(ReadFile{Ino: 10, Len: 10000, Direct: true})
	next(meta.KindReadMap, m)
	if p := h.answered(id).(*FilePlan); p.Keep {
		t.Fatal("kept without a lease")
	}
}
