package server

import (
	"os"
	"path/filepath"
	"testing"

	"agentdrive/internal/errs"
)

func TestGroupsAreNotLeftBehind(t *testing.T) {
	dir := t.TempDir()
	if err := checkGroups(filepath.Join(dir, "none"), 3); err != nil {
		t.Fatalf("a directory that is not there: %v", err)
	}
	if err := checkGroups(dir, 3); err != nil {
		t.Fatalf("an empty directory: %v", err)
	}
	for id := range uint32(3) {
		if err := os.Mkdir(filepath.Join(dir, groupDir(id)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []uint32{2, 3} { // 3: a first start that was cut short
		if err := checkGroups(dir, n); err != nil {
			t.Fatalf("%d groups on a directory of 2: %v", n, err)
		}
	}
	if err := checkGroups(dir, 1); !errs.Is(err, errs.Refused) || errs.HintOf(err) == "" {
		t.Errorf("1 group on a directory of 2: %v", err)
	}
}
