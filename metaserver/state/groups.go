package state

import (
	"encoding/binary"
	"fmt"

	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/internal/wire"
	"agentdrive/metaserver/meta"
)

// AllocGroups gives a session N fresh locality groups of its drive, 1 to
// tree.MaxGroups: it may choose the numbers of inodes that it makes there.
// Nobody else ever gets them. Proposed twice it gives others; the first ones
// stay unused. errs.Expired: the session has ended. Result: *meta.BytesResult,
// read by FirstGroup.
type AllocGroups struct {
	Session meta.SessionID
	N       uint32
}

func (*AllocGroups) internalKind() uint8 { return kindAllocGroups }

// Wire codes the fields in order.
func (x *AllocGroups) Wire(c *wire.Coder) {
	wire.Uint(c, &x.Session)
	c.U32(&x.N)
}

// FirstGroup reads the result of AllocGroups: the groups are [first, first+N).
func FirstGroup(res meta.Result) (first uint64, err error) {
	b, ok := res.(*meta.BytesResult)
	if !ok || len(b.Data) != 8 {
		return 0, errs.E("state.groups", errs.Corrupt, fmt.Sprintf("not a locality group: %T", res), nil)
	}
	return binary.BigEndian.Uint64(b.Data), nil
}

func (m *Machine) allocGroups(tx kv.Tx, op *AllocGroups) (meta.Result, error) {
	var s Session
	ok, err := load(tx, keySession(op.Session), &s)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, expired(op.Session)
	}
	d, err := LoadDrive(tx, s.Drive)
	if err != nil {
		return nil, err
	}
	first, err := d.Space().AllocGroups(tx, op.N)
	if err != nil {
		return nil, err
	}
	// A run that continues the last one becomes part of it, so that a session
	// that works alone has one.
	start := counter{first}
	before := keyGroupsTo(s.ID, first-1)
	joined, err := load(tx, before, &start)
	if err != nil {
		return nil, err
	}
	if joined {
		tx.Delete(before)
	}
	store(tx, keyGroupsTo(s.ID, first+uint64(op.N)-1), &start)
	return &meta.BytesResult{Data: binary.BigEndian.AppendUint64(nil, first)}, nil
}

// checkOwnGroup refuses an inode number outside the session's locality groups.
func checkOwnGroup(v kv.View, s meta.SessionID, ino meta.Ino) error {
	group := uint64(ino) >> meta.SlotBits
	own := false
	err := scanRange(v, keyGroupsTo(s, group), end(keyGroups(s)), func(first *counter) bool {
		own = first.n <= group
		return false
	})
	if err == nil && !own {
		err = errs.E("session.make", errs.Invalid, fmt.Sprintf("locality group %d of inode %d is not the session's", group, ino), nil)
	}
	return err
}
