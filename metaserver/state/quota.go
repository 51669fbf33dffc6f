package state

import (
	"math"

	"agentdrive/internal/kv"
	"agentdrive/internal/wire"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/tree"
)

// SetQuota limits a drive of this group. A limit below what the drive takes
// only stops its growth. errs.NotExist: the group has no such drive. Result:
// *meta.EmptyResult.
type SetQuota struct {
	Drive    meta.DriveID
	SetBytes bool   // otherwise the limit stays as it is
	MaxBytes uint64 // 0 = no limit
	SetFiles bool
	MaxFiles uint64
}

func (*SetQuota) internalKind() uint8 { return kindSetQuota }

// Wire codes the fields in order.
func (x *SetQuota) Wire(c *wire.Coder) {
	wire.Uint(c, &x.Drive)
	c.Bool(&x.SetBytes)
	c.U64(&x.MaxBytes)
	c.Bool(&x.SetFiles)
	c.U64(&x.MaxFiles)
}

func setQuota(tx kv.Tx, op *SetQuota) error {
	d, err := LoadDrive(tx, op.Drive)
	if err != nil {
		return err
	}
	if op.SetBytes {
		d.MaxBytes = op.MaxBytes
	}
	if op.SetFiles {
		d.MaxFiles = op.MaxFiles
	}
	store(tx, keyDrive(d.ID), &d)
	return nil
}

// room is what the drive may take while others have a claim on res.
func (x *DriveState) room(res Reserved) tree.Room {
	return tree.Room{Bytes: room(x.MaxBytes, res.Bytes), Files: room(x.MaxFiles, res.Files)}
}

func room(limit, reserved uint64) uint64 {
	if limit == 0 {
		return math.MaxUint64
	}
	return limit - min(limit, reserved)
}
