package tree

import (
	"math"

	"agentdrive/internal/errs"
)

// Room is what a drive may take at most, by the sums of Space.Stats.
type Room struct{ Bytes, Files uint64 }

// Unlimited is the room of a drive without a quota.
var Unlimited = Room{math.MaxUint64, math.MaxUint64}

// checkRoom refuses an operation that made the drive grow beyond its room;
// before are the counters without it.
func (u *unit) checkRoom(before counters, room Room) error {
	if u.count.Files > before.Files && u.count.Files > room.Files {
		return fail("tree.quota", errs.Quota, "the drive may hold %d more files", room.Files-min(room.Files, before.Files))
	}
	if u.count.Bytes <= before.Bytes+u.replaced || u.count.Bytes <= room.Bytes {
		return nil
	}
	trims, err := u.trimsWait()
	if err != nil {
		return err
	}
	if trims {
		return fail("tree.quota", errs.Again, "the drive is full, trims are pending")
	}
	return fail("tree.quota", errs.Quota, "the drive may hold %d more bytes", room.Bytes-min(room.Bytes, before.Bytes))
}

// trimsWait reports whether files hold bytes that nobody can read any more.
// Contents that were given up whole do not count already.
func (u *unit) trimsWait() (wait bool, err error) {
	err = u.tx.Scan(u.debtKey(debtTrim, 0), u.debtKey(debtTrim+1, 0), func(_, _ []byte) bool {
		wait = true
		return false
	})
	return wait, err
}
