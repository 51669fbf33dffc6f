package cluster

import (
	"os"
	"testing"
)

// NeedsLeases skips a test of what mounts give each other only with leases.
// With BENCH_LEASES set it runs all the same.
func NeedsLeases(t testing.TB) {
	t.Helper()
	if os.Getenv("BENCH_LEASES") == "" {
		t.Skip("needs leases (issue 4); BENCH_LEASES=1 runs it all the same")
	}
}
