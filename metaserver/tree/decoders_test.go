package tree

import (
	"testing"

	"agentdrive/internal/wire/wiretest"
)

// Every layout of this package; internal/arch checks that none is missing.
func FuzzDecoders(f *testing.F) {
	wiretest.Fuzz(f, 1,
		new(BlockRec),
		new(count),
		new(counters),
		new(debt),
		new(entry),
		new(extent),
		new(freed),
		new(inode),
		new(orphan),
		new(repair),
		new(totals),
		new(xattrRec),
	)
}
