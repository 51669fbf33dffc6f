package server

import (
	"strings"
	"testing"

	"agentdrive/internal/obs"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/metaclient"
)

// take receives until an F comes; batches may hold several frames.
type frames struct {
	*session
	got []meta.Frame
}

func take[F meta.Frame](fs *frames) F {
	fs.w.t.Helper()
	for {
		for i, f := range fs.got {
			if x, ok := f.(F); ok {
				fs.got = append(fs.got[:i:i], fs.got[i+1:]...)
				return x
			}
		}
		list, err := fs.s.Recv()
		if err != nil {
			fs.w.t.Fatal(err)
		}
		fs.got = append(fs.got, list...)
	}
}

func (w *world) openLeased(d meta.DriveInfo) *frames {
	w.t.Helper()
	s, err := w.mc.OpenStream(w.ctx, testCluster, d.Group, "")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(s.Close)
	w.lastID++
	fs := &frames{session: &session{w: w, s: (*metaclient.Stream)(s), drive: d.ID}}
	fs.send(&meta.Open{Nonce: [16]byte{w.lastID}, Capability: meta.Capability{Drive: d.ID, Path: "/"}, Leases: true})
	fs.welcome = take[*meta.Welcome](fs)
	return fs
}

func (fs *frames) op(id meta.OpID, op meta.Op) { fs.send(&meta.OpFrame{ID: id, Op: op}) }

// A local create of one session, recalled and seen by another: through Raft,
// store, network and clock.
func TestLeasesBetweenTwoSessions(t *testing.T) {
	w := newWorld(t)
	d := w.drive("demo")
	a, b := w.openLeased(d), w.openLeased(d)
	if a.welcome.Now == 0 {
		t.Error("Welcome does not tell the time")
	}
	a.send(&meta.Credit{Groups: 1})
	cr := take[*meta.Credited](a)
	if cr.Groups != 1 || !cr.Unlimited {
		t.Fatalf("credited %+v", cr)
	}
	a.op(1, &meta.Acquire{Wants: []meta.Grant{{Ino: 1, Kind: meta.LeaseWrite}}})
	if r := take[*meta.Reply](a); len(r.Grants) != 1 || r.Grants[0] != (meta.Grant{Ino: 1, Kind: meta.LeaseWrite}) {
		t.Fatalf("%+v", r)
	}
	ino := meta.Ino(cr.FirstGroup << meta.SlotBits)
	b.op(1, &meta.Lookup{Parent: 1, Name: "x"})
	rec := take[*meta.Recall](a)
	a.send(&meta.Log{First: 1, Records: []meta.LogRecord{{Now: 1e18, Op: &meta.Make{
		Ino: ino, Parent: 1, Name: "x", Mode: meta.ModeRegular | 0o644, Excl: true,
	}}}})
	a.send(&meta.Ack{Recall: rec.ID, LogSeq: 1})
	if ack := take[*meta.LogAck](a); ack.Refused || ack.Seq != 1 {
		t.Fatalf("%+v", ack)
	}
	rec = take[*meta.Recall](a)
	if len(rec.Items) != 1 || rec.Items[0].Ino != ino {
		t.Fatalf("%+v", rec)
	}
	a.send(&meta.Ack{Recall: rec.ID, LogSeq: 1})
	r := take[*meta.Reply](b)
	if e, ok := r.Outcome.Result.(*meta.EntryResult); !ok || e.Attr.Ino != ino || e.Attr.Mtime != 1e18 {
		t.Fatalf("%+v", r.Outcome)
	}
	b.op(2, &meta.Unlink{Parent: 1, Name: "x"})
	rec = take[*meta.Recall](a)
	if len(rec.Items) != 2 {
		t.Fatalf("%+v", rec)
	}
	a.send(&meta.Ack{Recall: rec.ID, LogSeq: 1})
	if r := take[*meta.Reply](b); r.Outcome.Err != nil {
		t.Fatal(r.Outcome.Err)
	}
	a.send(&meta.Renew{Seq: 9})
	if re := take[*meta.Renewed](a); re.Now < a.welcome.Now {
		t.Errorf("the clock goes back from %d to %d", a.welcome.Now, re.Now)
	}
}

func TestMetricsOfLeases(t *testing.T) {
	reg := obs.NewRegistry()
	m := newMetrics(reg, 1)
	m.handedOver(3e6)
	var out strings.Builder
	if err := reg.WritePrometheus(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`agentdrive_meta_grants_total{group="1",kind="write"} 0`, `agentdrive_meta_recalls_total{group="1",mode="query"} 0`,
		`agentdrive_meta_handover_seconds_count{group="1"} 1`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in\n%s", want, out.String())
		}
	}
	newMetrics(nil, 1).handedOver(1)
	newMetrics(nil, 1).publish(nil, 1)
}
