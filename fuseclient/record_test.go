package fuseclient_test

import (
	"fmt"
	"testing"
	"time"

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
	// The lease on the directory and numbers for inodes come with time; then an
	// operation is local: it stands in the ring when it is answered.
	for i := 0; ; i++ {
		if create(t, a, dir, fmt.Sprint("first", i)); len(kept(t, a)) > 0 {
			break
		}
	}
	if err := a.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list := kept(t, a); len(list) != 0 {
		t.Fatalf("%d records are kept although all is durable", len(list))
	}
	c.stop(0)
	// However slow this machine is, the first is answered; others may have to
	// wait for the servers when it is half a second old.
	answers := make(chan meta.Attr, 5)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range cap(answers) {
			res, err := a.Exec(&meta.Make{Parent: dir, Name: fmt.Sprint("f", i), Mode: meta.ModeRegular | 0o644, Excl: true})
			if err != nil {
				t.Errorf("create: %v", err)
				return
			}
			answers <- res.(*meta.EntryResult).Attr
		}
	}()
	made := []meta.Attr{<-answers}
	list := kept(t, a)
	for more := true; more; {
		select {
		case attr := <-answers:
			made = append(made, attr)
		case <-time.After(100 * time.Millisecond):
			more = false
		}
		list = kept(t, a)
	}
	if len(list) < len(made) {
		t.Fatalf("%d records are kept, %d were answered", len(list), len(made))
	}
	list = list[:len(made)]
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
	<-done
	if err := a.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list := kept(t, a); len(list) != 0 {
		t.Fatalf("%d records are kept although all is durable", len(list))
	}
}
