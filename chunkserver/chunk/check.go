package chunk

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"agentdrive/internal/errs"
)

// Check tells whether the grant is of this cluster, not expired at now, and
// carries one of the rights (their bits or-ed); kind errs.Refused, with a
// hint.
func (g *Grant) Check(op string, cluster [16]byte, rights uint8, now time.Time) error {
	switch {
	case g.Cluster != cluster:
		return errs.E(op, errs.Refused, fmt.Sprintf("grant of cluster %x, this is cluster %x", g.Cluster, cluster), nil).
			WithHint("check the addresses of the chunk servers: this one belongs to another cluster")
	case g.Expires != 0 && now.Unix() >= g.Expires:
		return errs.E(op, errs.Refused, fmt.Sprintf("grant expired at %s", time.Unix(g.Expires, 0).UTC().Format(time.RFC3339)), nil).
			WithHint("ask the metadata server for a fresh grant")
	case g.Rights&rights == 0:
		return errs.E(op, errs.Refused, fmt.Sprintf("grant carries rights %#x, needed is one of %#x", g.Rights, rights), nil).
			WithHint("use a token whose mode allows the operation")
	}
	return nil
}

// Check tells whether the block may be stored: errs.Invalid for its id, length
// or number of checksums, errs.Corrupt when the data fails them.
func (b *Block) Check(op string) error {
	if b.ID == (BlockID{}) {
		return errs.E(op, errs.Invalid, "block id zero", nil)
	}
	if n := len(b.Data); n == 0 || n > MaxBlock {
		return errs.E(op, errs.Invalid, fmt.Sprintf("block %s has %d bytes, allowed are 1 to %d", b.ID, n, MaxBlock), nil)
	}
	if want := Strides(uint32(len(b.Data))); len(b.Sums) != want {
		return errs.E(op, errs.Invalid, fmt.Sprintf("block %s of %d bytes comes with %d checksums, needed are %d", b.ID, len(b.Data), len(b.Sums), want), nil)
	}
	if i := BadStride(b.Data, b.Sums); i >= 0 {
		return errs.E(op, errs.Corrupt, fmt.Sprintf("block %s: bytes from %d on fail the sender's checksum", b.ID, i*SumStride), nil)
	}
	return nil
}

// Strides is the number of checksums of length bytes.
func Strides(length uint32) int { return (int(length) + SumStride - 1) / SumStride }

// BadStride returns the index of the first stride of data that fails its
// checksum, or -1. data starts at a stride boundary; sums has one entry for
// each of its strides.
func BadStride(data []byte, sums []uint32) int {
	for i, sum := range sums {
		lo := i * SumStride
		if crc32.Checksum(data[lo:min(lo+SumStride, len(data))], castagnoli) != sum {
			return i
		}
	}
	return -1
}

// CheckRange tells whether off and length name a range inside a block of size
// bytes; kind errs.Invalid. An empty range is none.
func CheckRange(op string, id BlockID, off, length, size uint32) error {
	if length == 0 || uint64(off)+uint64(length) > uint64(size) {
		return errs.E(op, errs.Invalid, fmt.Sprintf("block %s has %d bytes, asked were %d from %d on", id, size, length, off), nil)
	}
	return nil
}

// CheckCount tells whether a call names at most MaxPerCall ids; kind
// errs.Invalid.
func CheckCount(op string, n int) error {
	if n > MaxPerCall {
		return errs.E(op, errs.Invalid, fmt.Sprintf("%d ids in one call, allowed are %d", n, MaxPerCall), nil)
	}
	return nil
}

// PullResult is the outcome of a repair pull for one block: nil when the block
// is now stored durably.
type PullResult struct {
	ID  BlockID
	Err error
}

// CheckLimit tells whether limit is from 1 to MaxPerCall; kind errs.Invalid.
func CheckLimit(op string, limit int) error {
	if limit < 1 || limit > MaxPerCall {
		return errs.E(op, errs.Invalid, fmt.Sprintf("limit %d, allowed are 1 to %d", limit, MaxPerCall), nil)
	}
	return nil
}

// Ended turns the end of ctx, if it has ended, into errs.Canceled or
// errs.Timeout.
func Ended(op string, ctx context.Context) error {
	switch err := ctx.Err(); {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return errs.E(op, errs.Timeout, "", err)
	default:
		return errs.E(op, errs.Canceled, "", err)
	}
}
