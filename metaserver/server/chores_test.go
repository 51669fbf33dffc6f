package server

import (
	"strings"
	"testing"
	"time"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
	"agentdrive/metaserver/tree"
)

func (w *world) want(what string, id chunk.BlockID, servers string) {
	w.t.Helper()
	if got := w.has(id); got != servers {
		w.t.Errorf("%s: block %s is on servers %q, want %q", what, id, got, servers)
	}
}

// counts gives the closed sessions and freed blocks that are not done with.
func (w *world) counts() (closed, freed int) {
	w.t.Helper()
	err := w.chores.withView(func(v kv.View) error {
		c, err := state.Closed(v, 0, 1000)
		if err != nil {
			return err
		}
		f, err := tree.FreedBlocks(v, tree.FreedKey{}, 1<<62, 1000)
		closed, freed = len(c), len(f)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return closed, freed
}

func TestRepairBringsMissingCopies(t *testing.T) {
	w := newWorld(t)
	se := w.open(w.drive("demo"))
	ino := se.file("f")
	id := chunk.BlockID{1}
	se.publish(ino, id, 1, 2)
	if r := w.group().Repair; r.Blocks != 1 {
		t.Fatalf("repair list %+v", r)
	}
	w.pass(w.chores)
	w.want("a late third write reports itself", id, "12")
	w.pass(w.chores)
	w.want("second pass", id, "123")
	if r := w.group().Repair; r.Blocks != 0 || r.Bytes != 0 {
		t.Errorf("repair list %+v", r)
	}
}

// Whichever source is tried first: one lacks the block although it should have
// it, then one is off the network.
func TestRepairTriesEverySource(t *testing.T) {
	w := newWorld(t)
	se := w.open(w.drive("demo"))
	for i := byte(1); i <= 8; i++ {
		id := chunk.BlockID{i}
		se.publish(se.file(id.String()), id, 1, 2)
		w.lose(id, 1+chunk.ServerID(i%2))
	}
	w.pass(w.chores)
	w.pass(w.chores)
	for i := byte(1); i <= 8; i++ {
		if got := w.has(chunk.BlockID{i}); !strings.HasSuffix(got, "3") {
			t.Errorf("block %d is on %q", i, got)
		}
	}
	w.down(1, true)
	for i := byte(11); i <= 18; i++ {
		se.publish(se.file(chunk.BlockID{i}.String()), chunk.BlockID{i}, 1, 2)
	}
	w.pass(w.chores)
	w.pass(w.chores)
	for i := byte(11); i <= 18; i++ {
		w.want("one source is away", chunk.BlockID{i}, "123")
	}
}

func TestRepairWaitsForTheTarget(t *testing.T) {
	w := newWorld(t)
	se := w.open(w.drive("demo"))
	id := chunk.BlockID{1}
	w.down(3, true)
	se.publish(se.file("f"), id, 1, 2)
	for range 3 {
		w.pass(w.chores)
	}
	w.want("target away", id, "12")
	w.down(3, false)
	w.passUntil("repair after the return", func() bool { return w.has(id) == "123" })
}

func TestFreedBlocksAreDeletedAfterGrace(t *testing.T) {
	w := newWorld(t)
	se := w.open(w.drive("demo"))
	ino := se.file("f")
	nb := se.publish(ino, chunk.BlockID{1}, 1, 2, 3)
	kept := se.publish(se.file("g"), chunk.BlockID{2}, 1, 2, 3)
	se.free(ino, nb)
	w.pass(w.chores)
	w.want("within grace", nb.ID, "123")

	w.clock.SetWall(w.clock.Now().Add(freeGrace + time.Second))
	w.down(2, true)
	w.pass(w.chores)
	w.want("one member away", nb.ID, "2")
	if _, freed := w.counts(); freed != 1 {
		t.Errorf("%d freed blocks known, want 1: a copy is left", freed)
	}
	w.down(2, false)
	w.passUntil("deletion after the return", func() bool { return w.has(nb.ID) == "" })
	if _, freed := w.counts(); freed != 0 {
		t.Errorf("%d freed blocks known, want 0", freed)
	}
	w.want("still referred to", kept.ID, "123")
}

// A block of an epoch that never was is looked for everywhere, not forgotten.
func TestFreedBlockOfNoEpoch(t *testing.T) {
	w := newWorld(t)
	se := w.open(w.drive("demo"))
	ino := se.file("f")
	id := chunk.BlockID{1}
	se.put(id, 1, 3)
	nb := meta.NewBlock{ID: id, Epoch: 1 << 40, Len: 8, Acked: []chunk.ServerID{1}}
	se.write(ino, nb)
	se.free(ino, nb)
	w.clock.SetWall(w.clock.Now().Add(freeGrace + time.Second))
	w.pass(w.chores)
	w.want("after grace", id, "")
}

// The copy of the map that a leader starts from may lack the newest server:
// deletion asks for the map after it has read what to delete.
func TestDeletionKnowsTheNewestServers(t *testing.T) {
	w := newWorld(t)
	se := w.open(w.drive("demo"))
	w.chores.view = meta.MapReply{}
	ino := se.file("f")
	nb := se.publish(ino, chunk.BlockID{1}, 1, 2, 3)
	se.put(chunk.BlockID{2}, 3)
	se.free(ino, nb)
	se.send(&meta.Close{})
	recv[*meta.Evicted](se)
	w.clock.SetWall(w.clock.Now().Add(freeGrace + time.Second))
	w.pass(w.chores)
	w.want("freed", nb.ID, "")
	w.want("unpublished", chunk.BlockID{2}, "")
	if closed, freed := w.counts(); closed != 0 || freed != 0 {
		t.Errorf("%d sessions and %d blocks not done with", closed, freed)
	}
}

func TestSweepOfADeadSession(t *testing.T) {
	w := newWorld(t)
	d := w.drive("demo")
	alive, dead := w.open(d), w.open(d)
	published := dead.publish(dead.file("f"), chunk.BlockID{1}, 1, 2, 3)
	dead.put(chunk.BlockID{2}, 1, 2)
	alive.put(chunk.BlockID{3}, 1, 2)
	w.pass(w.chores)
	w.want("the session lives", chunk.BlockID{2}, "12")
	if s := w.group().Sessions; len(s) != 2 {
		t.Fatalf("%d sessions listed", len(s))
	}

	w.call(1, meta.CallEndSession, &meta.EndSessionCall{Group: 1, Session: dead.welcome.Session}, &meta.Empty{})
	if s := w.group().Sessions; len(s) != 1 || s[0].ID != alive.welcome.Session {
		t.Errorf("sessions listed: %+v", s)
	}
	w.down(2, true)
	w.pass(w.chores)
	w.want("one server away", chunk.BlockID{2}, "2")
	if closed, _ := w.counts(); closed != 1 {
		t.Errorf("%d closed sessions known, want 1: a server is not swept", closed)
	}
	w.down(2, false)
	w.passUntil("sweep after the return", func() bool { return w.has(chunk.BlockID{2}) == "" })
	if closed, _ := w.counts(); closed != 0 {
		t.Errorf("%d closed sessions known, want 0", closed)
	}
	w.want("published", published.ID, "123")
	w.want("of another session", chunk.BlockID{3}, "12")
}

// One server that is away for long must not keep the others from being swept
// of the sessions behind the first batch, nor of more blocks.
func TestAnAbsentServerHoldsUpNothing(t *testing.T) {
	w := newWorld(t)
	d := w.drive("demo")
	w.down(2, true)
	var last chunk.BlockID
	for i := range byte(sweepBatch + 2) {
		se := w.open(d)
		last = chunk.BlockID{i + 1}
		se.put(last, 1, 2)
		se.send(&meta.Close{})
		recv[*meta.Evicted](se)
	}
	w.pass(w.chores)
	w.pass(w.chores)
	w.want("behind the first batch", last, "2")
}

func TestDriveCreationAndDeletionResume(t *testing.T) {
	w := newWorld(t)
	h := w.srv.hosts[0]
	cluster := newMaintainer(w.srv, h)
	// Creation stopped after the name was taken.
	res, err := h.submit(w.ctx, &state.CreateDrive{Name: "half", Group: 1})
	if err != nil {
		t.Fatal(err)
	}
	d, err := decodeDrive(res)
	if err != nil {
		t.Fatal(err)
	}
	w.pass(cluster)
	se := w.open(driveInfo(d))

	// Deletion stopped after the mark: refused while mounted, done after.
	if _, err := h.submit(w.ctx, &state.MarkDrive{Name: "half", Deleting: true}); err != nil {
		t.Fatal(err)
	}
	w.pass(cluster)
	if g := w.group(); len(g.Drives) != 1 || g.Drives[0].Dropping {
		t.Fatalf("a mounted drive was dropped: %+v", g.Drives)
	}
	se.send(&meta.Close{})
	recv[*meta.Evicted](se)
	w.pass(cluster)
	var r meta.DrivesReply
	w.call(0, meta.CallDrives, &meta.Empty{}, &r)
	if len(r.Drives) != 0 {
		t.Errorf("drives left: %+v", r.Drives)
	}
	if err := w.mc.Leader(w.ctx, 0, meta.CallFindDrive, &meta.DriveCall{Name: "half"}, new(meta.DriveInfo)); !errs.Is(err, errs.NotExist) {
		t.Errorf("find after deletion: %v", err)
	}
}

// Blocks stay where they are when a server comes back under another host name.
func TestAServerThatMovesTakesNoBlocksAlong(t *testing.T) {
	w := newWorld(t)
	before, err := w.mc.Map(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	w.register(2, "elsewhere")
	w.register(3, "elsewhere")
	after, err := w.mc.Map(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	old := uint64(len(before.Placements))
	if n := uint64(len(after.Placements)); n != old+2 {
		t.Errorf("%d epochs, want %d", n, old+2)
	}
	before.Copies, after.Copies = 2, 2
	moved := false
	for pg := range before.PGs {
		was := before.Members(pg, old)
		if is := after.Members(pg, old); len(is) != 2 || is[0] != was[0] || is[1] != was[1] {
			t.Fatalf("group %d, epoch %d: on %v, were on %v", pg, old, is, was)
		}
		now := after.Members(pg, old+2)
		moved = moved || now[0] != was[0] || now[1] != was[1]
	}
	if !moved {
		t.Error("the new epoch ignores the new domains")
	}
}
