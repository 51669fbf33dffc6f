package ctl_test

import (
	"encoding/json"
	"os"
	"testing"

	"agentdrive/cmd/internal/ctl"
	"agentdrive/internal/errs"
)

func mkdirAll(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

// Whatever another process sends as a failure becomes an error of a kind that
// this program knows.
func FuzzFailure(f *testing.F) {
	f.Add([]byte(`{"error":"x","kind":15,"hint":"h"}`))
	f.Add([]byte(`{"kind":255}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var v ctl.Failure
		if json.Unmarshal(b, &v) != nil {
			return
		}
		err := v.Err()
		if err == nil || !errs.KindOf(err).Known() || errs.HintOf(err) != v.Hint {
			t.Fatalf("%+v became %v", v, err)
		}
	})
}
