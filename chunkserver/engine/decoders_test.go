package engine

import (
	"testing"

	"agentdrive/internal/wire/wiretest"
)

// Every layout of this package; internal/arch checks that none is missing.
func FuzzDecoders(f *testing.F) {
	wiretest.Fuzz(f, 1,
		new(footer),
	)
}
