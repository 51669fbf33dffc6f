package fuseclient_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"agentdrive/fuseclient"
	"agentdrive/fuseclient/ring"
	"agentdrive/internal/wire"
	"agentdrive/metaserver/meta"
)

// kept reads the ring of a client as a holder would: through its descriptor.
func kept(t *testing.T, c *fuseclient.Client) (list []ring.Record) {
	t.Helper()
	fd, err := unix.FcntlInt(uintptr(c.LogFD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	r, err := ring.Open(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Live(func(x ring.Record) bool {
		x.Op, x.Result = append([]byte(nil), x.Op...), append([]byte(nil), x.Result...)
		list = append(list, x)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

// TestLogIsKept makes files while the servers are away: what was answered
// stands in the ring with its result, in order, until it is durable.
func TestLogIsKept(t *testing.T) {
	c := newCluster(t, 1, 1)
	c.createDrive("d", 1)
	a := c.open("a", "d", "/")
	dir := do[*meta.EntryResult](t, a, &meta.Make{Parent: a.Root().Ino, Name: "dir", Mode: meta.ModeDir | 0o755}).Attr.Ino
	create(t, a, dir, "first") // leases and numbers are there from now on
	if err := a.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list := kept(t, a); len(list) != 0 {
		t.Fatalf("%d records are kept although all is durable", len(list))
	}
	c.stop(0)
	var made []meta.Attr
	for i := range 5 {
		made = append(made, create(t, a, dir, fmt.Sprint("f", i)))
	}
	list := kept(t, a)
	if len(list) != len(made) {
		t.Fatalf("%d records are kept, want %d", len(list), len(made))
	}
	for i, x := range list {
		var rec meta.LogRecord
		if err := wire.Unmarshal(x.Op, meta.FrameVersion, &rec); err != nil {
			t.Fatal(err)
		}
		var out meta.Outcome
		if err := wire.Unmarshal(x.Result, meta.FrameVersion, &out); err != nil {
			t.Fatal(err)
		}
		mk, ok := rec.Op.(*meta.Make)
		res, entry := out.Result.(*meta.EntryResult)
		if !ok || !entry || mk.Name != fmt.Sprint("f", i) || mk.Ino != made[i].Ino || res.Attr != made[i] {
			t.Fatalf("record %d: %+v, result %+v, made %+v", i, rec.Op, out.Result, made[i])
		}
		if i > 0 && x.Seq != list[i-1].Seq+1 {
			t.Fatalf("place %d after %d", x.Seq, list[i-1].Seq)
		}
	}
	c.start(0)
	if err := a.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list := kept(t, a); len(list) != 0 {
		t.Fatalf("%d records are kept although all is durable", len(list))
	}
}
