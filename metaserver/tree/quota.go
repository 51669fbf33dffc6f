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
	files := u.count.Files > before.Files && u.count.Files > room.Files
	bytes := u.count.Bytes > before.Bytes+u.replaced && u.count.Bytes > room.Bytes
	if !files && !bytes {
		return nil
	}
	orphans, err := u.any(u.unresolvedKey(0), key(prefixUnresolved, uint64(u.Layer)+1))
	if err != nil {
		return err
	}
	if orphans {
		return fail("tree.quota", errs.Again, "the drive is full, removed files are pending")
	}
	if files {
		return fail("tree.quota", errs.Quota, "the drive may hold %d more files", room.Files-min(room.Files, before.Files))
	}
	// Files hold bytes that nobody can read any more. Contents that were given
	// up whole do not count already.
	trims, err := u.any(u.debtKey(debtTrim, 0), u.debtKey(debtTrim+1, 0))
	if err != nil {
		return err
	}
	if trims {
		return fail("tree.quota", errs.Again, "the drive is full, trims are pending")
	}
	return fail("tree.quota", errs.Quota, "the drive may hold %d more bytes", room.Bytes-min(room.Bytes, before.Bytes))
}

// any reports whether there is a key in [from, to).
func (u *unit) any(from, to []byte) (found bool, err error) {
	err = u.tx.Scan(from, to, func(_, _ []byte) bool {
		found = true
		return false
	})
	return found, err
}
