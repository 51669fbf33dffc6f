// Package state is the replicated state machine of a metadata group: what one
// entry of the Raft log does to the ordered store.
//
// Apply is a pure function of store and entry. It has no clock, randomness or
// memory of its own; the leader stamped time and pins into the entry. Group 0
// keeps the cluster's records (cluster.go), the other groups drives: sessions,
// the two exactly-once channels (session.go), and the namespace, whose rules
// are in metaserver/tree.
package state

import (
	"fmt"

	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/internal/wire"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/tree"
)

// Machine applies entries of one group. It is stateless and safe to share.
type Machine struct {
	Group uint32
}

// Apply executes one command, appended at index in term, and returns the record
// of its Outcomes. An unreadable command changes nothing and yields no
// outcomes: every replica sees the same bytes and does the same. One that was
// meant for another term changes nothing either; its outcomes are
// errs.NotLeader.
func (m *Machine) Apply(tx kv.Tx, index, term uint64, cmd []byte) []byte {
	e, err := DecodeEntry(cmd)
	if err != nil {
		return EncodeOutcomes(nil, &Outcomes{})
	}
	if e.Term != 0 && e.Term != term {
		return EncodeOutcomes(nil, refused(e, term))
	}
	st := tree.Stamp{Index: index, Now: e.Now}
	out := Outcomes{List: make([]meta.Outcome, len(e.Items))}
	for i := range e.Items {
		it := &e.Items[i]
		var res meta.Result
		switch it.kind() {
		case itemInternal:
			res, err = m.applyInternal(tx, st, i, it.Internal)
		case itemLog:
			res, err = m.applyLog(tx, st, it)
		default:
			out.List[i] = m.applyOp(tx, st, it)
			continue
		}
		out.List[i] = outcome(res, err)
	}
	return EncodeOutcomes(nil, &out)
}

// refused answers an entry that came into the log of another term.
func refused(e *Entry, term uint64) *Outcomes {
	out := &Outcomes{List: make([]meta.Outcome, len(e.Items))}
	for i := range out.List {
		out.List[i] = meta.Failed(errs.E("state.apply", errs.NotLeader, fmt.Sprintf("proposed in term %d, appended in term %d", e.Term, term), nil))
	}
	return out
}

func outcome(res meta.Result, err error) meta.Outcome {
	if err != nil {
		return meta.Failed(err)
	}
	return meta.Outcome{Result: res}
}

func (m *Machine) applyInternal(tx kv.Tx, st tree.Stamp, pos int, op Internal) (meta.Result, error) {
	switch op := op.(type) {
	case *OpenSession:
		return m.openSession(tx, st, pos, op)
	case *CloseSession:
		return &meta.EmptyResult{}, m.closeSession(tx, st, op.Session)
	case *InitDrive:
		return &meta.EmptyResult{}, m.initDrive(tx, st, op)
	case *DropDrive:
		return &meta.EmptyResult{}, m.dropDrive(tx, st, op)
	case *ResolveOrphans:
		return &meta.EmptyResult{}, m.resolveOrphans(tx, st, op)
	case *UnpinOrphans:
		return &meta.EmptyResult{}, m.unpinOrphans(tx, st, op)
	case *Reclaim:
		return m.reclaim(tx, st, op)
	case *ForgetFreed:
		return &meta.EmptyResult{}, tree.ForgetFreed(tx, op.Keys)
	case *CopiesDone:
		return &meta.EmptyResult{}, tree.LateAck(tx, op.Copies)
	case *Swept:
		return &meta.EmptyResult{}, swept(tx, op)
	case *AckReplies:
		for _, id := range op.Ops {
			tx.Delete(keyReply(op.Session, id))
		}
		return &meta.EmptyResult{}, nil
	case *AllocGroups:
		return m.allocGroups(tx, op)
	case *SetQuota:
		return &meta.EmptyResult{}, setQuota(tx, op)
	}
	return m.applyCluster(tx, st.Now, op)
}

// DriveState is a drive inside its group.
type DriveState struct {
	ID      meta.DriveID
	Name    string
	Layer   meta.LayerID // writable top layer
	Dropped bool         // being reclaimed
	// The quota: what the drive may take, by the sums of StatFS; 0 = no limit.
	MaxBytes, MaxFiles uint64
}

// Wire codes the fields in order.
func (x *DriveState) Wire(c *wire.Coder) {
	wire.Uint(c, &x.ID)
	c.String(&x.Name)
	wire.Uint(c, &x.Layer)
	c.Bool(&x.Dropped)
	c.U64(&x.MaxBytes)
	c.U64(&x.MaxFiles)
}

// Space is the drive's namespace.
func (x *DriveState) Space() tree.Space { return tree.Space{Drive: x.ID, Layer: x.Layer} }

// LoadDrive reads a drive of this group; errs.NotExist when it has none of
// that id.
func LoadDrive(v kv.View, id meta.DriveID) (DriveState, error) {
	var d DriveState
	ok, err := load(v, keyDrive(id), &d)
	if err == nil && !ok {
		err = errs.E("drive", errs.NotExist, fmt.Sprintf("no drive with id %d in this group", id), nil)
	}
	return d, err
}

// GroupDrives lists the drives of this group, those being dropped included.
func GroupDrives(v kv.View) ([]DriveState, error) {
	var list []DriveState
	err := scanRecords(v, prefix(spaceDrive), func(d *DriveState) bool {
		list = append(list, *d)
		return true
	})
	return list, err
}

func (m *Machine) initDrive(tx kv.Tx, st tree.Stamp, op *InitDrive) error {
	if _, err := LoadDrive(tx, op.Drive); !errs.Is(err, errs.NotExist) {
		return err // there already, or unreadable
	}
	last, err := loadCounter(tx, keyLastLayer())
	if err != nil {
		return err
	}
	d := DriveState{ID: op.Drive, Name: op.Name, Layer: meta.LayerID(last + 1)}
	if err := d.Space().Init(tx, st, meta.ModeDir|0o755, 0, 0); err != nil {
		return err
	}
	storeCounter(tx, keyLastLayer(), last+1)
	store(tx, keyDrive(d.ID), &d)
	return nil
}

func (m *Machine) dropDrive(tx kv.Tx, st tree.Stamp, op *DropDrive) error {
	d, err := LoadDrive(tx, op.Drive)
	if errs.Is(err, errs.NotExist) {
		return nil
	}
	if err != nil || d.Dropped {
		return err
	}
	open, err := sessionsOf(tx, d.ID)
	if err != nil {
		return err
	}
	if len(open) > 0 && !op.Force {
		return errs.E("drive.delete", errs.Busy, fmt.Sprintf("drive %q is mounted %d times", d.Name, len(open)), nil).
			WithHint("unmount it first, or use --force to end its mounts")
	}
	for _, s := range open {
		if err := m.closeSession(tx, st, s); err != nil {
			return err
		}
	}
	if err := d.Space().Drop(tx, st); err != nil {
		return err
	}
	d.Dropped = true
	store(tx, keyDrive(d.ID), &d)
	return nil
}

func (m *Machine) resolveOrphans(tx kv.Tx, st tree.Stamp, op *ResolveOrphans) error {
	d, err := LoadDrive(tx, op.Drive)
	if errs.Is(err, errs.NotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, o := range op.Orphans {
		// A session that ended since the leader looked pins nothing.
		live := o.Pins[:0:0]
		for _, s := range o.Pins {
			ok, err := load(tx, keySession(s), new(Session))
			if err != nil {
				return err
			}
			if ok {
				live = append(live, s)
			}
		}
		if err := d.Space().ResolveOrphan(tx, st, o.Ino, live); err != nil {
			return err
		}
	}
	return nil
}

func (m *Machine) unpinOrphans(tx kv.Tx, st tree.Stamp, op *UnpinOrphans) error {
	var s Session
	ok, err := load(tx, keySession(op.Session), &s)
	if err != nil || !ok || len(op.Inos) == 0 {
		return err
	}
	d, err := LoadDrive(tx, s.Drive)
	if err != nil {
		return err
	}
	return d.Space().UnpinOrphans(tx, st, s.ID, op.Inos)
}

// reclaim works off the queues of this group's drives in order of their ids.
func (m *Machine) reclaim(tx kv.Tx, st tree.Stamp, op *Reclaim) (meta.Result, error) {
	drives, err := GroupDrives(tx)
	if err != nil {
		return nil, err
	}
	for i := range drives {
		d := &drives[i]
		done, err := d.Space().ReclaimStep(tx, st, int(op.Budget))
		if err != nil {
			return nil, err
		}
		if !done {
			return &meta.BytesResult{Data: []byte{0}}, nil
		}
		if d.Dropped {
			tx.Delete(keyDrive(d.ID))
			return &meta.BytesResult{Data: []byte{0}}, nil
		}
	}
	return &meta.BytesResult{Data: []byte{1}}, nil
}

// Read executes a read operation on behalf of a session's drive.
func Read(v kv.View, drive meta.DriveID, op meta.Op) (meta.Result, error) {
	d, err := LoadDrive(v, drive)
	if err != nil {
		return nil, err
	}
	if d.Dropped {
		return nil, errs.E("drive", errs.Stale, fmt.Sprintf("drive %q was deleted", d.Name), nil)
	}
	res, err := d.Space().Read(v, op)
	if st, ok := res.(*meta.StatFSResult); ok && err == nil {
		st.MaxBytes, st.MaxFiles = d.MaxBytes, d.MaxFiles
	}
	return res, err
}
