package e2e

import (
	"testing"

	"agentdrive/bench/cluster"
)

// fault checks how a verb run with --json failed. Any kind will do if kind is
// empty.
func fault(t *testing.T, r cluster.Result, code int, kind string) cluster.Fault {
	t.Helper()
	f, err := r.Fault()
	switch {
	case r.Code != code:
		t.Errorf("exit %d, want %d: %v", r.Code, code, r)
	case err != nil:
		t.Errorf("standard error is not JSON: %v\n%v", err, r)
	case f.Error == "" || f.Kind == "" || kind != "" && f.Kind != kind:
		t.Errorf("%+v, want kind %q: %v", f, kind, r)
	}
	return f
}
