package server

import (
	"testing"

	"agentdrive/chunkserver/chunk/memstore"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// The limits of a drive and the space on disks, as StatFS and the admin's
// calls tell them.
func TestQuotaAndSpace(t *testing.T) {
	w := newWorld(t)
	d := w.drive("d")
	se := w.open(d)
	statfs := func() *meta.StatFSResult { return se.do(&meta.StatFS{}).(*meta.StatFSResult) }
	if st := statfs(); st.FreeBytes != meta.MaxSize || st.MaxBytes != 0 || st.MaxFiles != 0 {
		t.Errorf("before anything is known: %+v", st)
	}
	w.pass(w.chores)
	if st := statfs(); st.FreeBytes != memstore.Capacity {
		t.Errorf("three servers with three copies: %+v", st)
	}
	w.down(3, true)
	for range spacePasses {
		w.pass(w.chores)
	}
	if st := statfs(); st.FreeBytes != memstore.Capacity/3*2 {
		t.Errorf("two servers with three copies: %+v", st)
	}
	bytes, files := uint64(1000), uint64(2)
	w.call(d.Group, meta.CallSetQuota, &meta.QuotaCall{Group: d.Group, Drive: d.ID, MaxBytes: &bytes}, &meta.Empty{})
	w.call(d.Group, meta.CallSetQuota, &meta.QuotaCall{Group: d.Group, Drive: d.ID, MaxFiles: &files}, &meta.Empty{})
	if st := statfs(); st.MaxBytes != bytes || st.MaxFiles != files {
		t.Errorf("limits: %+v", st)
	}
	if u := w.group().Drives[0]; u.MaxBytes != bytes || u.MaxFiles != files {
		t.Errorf("use of the drive: %+v", u)
	}
	se.file("a")
	se.lastOp++
	se.send(&meta.OpFrame{ID: se.lastOp, Op: &meta.Make{Parent: meta.RootIno, Name: "b", Mode: meta.ModeRegular}})
	if r := recv[*meta.Reply](se); r.Outcome.Err == nil || r.Outcome.Err.Kind != errs.Quota {
		t.Errorf("a file too many: %+v", r.Outcome)
	}
	err := w.mc.At(w.ctx, metaAddr, meta.CallSetQuota, &meta.QuotaCall{Group: d.Group, Drive: 99}, &meta.Empty{})
	if !errs.Is(err, errs.NotExist) {
		t.Errorf("a drive that is not there: %v", err)
	}
}
