package server

import (
	"os"
	"path/filepath"
	"testing"

	"agentdrive/internal/errs"
)

func TestFormatIsChecked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	for range 2 {
		if err := checkFormat(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, groupDir(0)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := checkFormat(dir); err != nil {
		t.Fatalf("its own directory: %v", err)
	}
	name := filepath.Join(dir, formatFile)
	for content, want := range map[string]errs.Kind{"3\n": errs.Version, "1\n": errs.Version, "": errs.Corrupt, "two": errs.Corrupt} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := checkFormat(dir); !errs.Is(err, want) {
			t.Errorf("%q: %v, want %v", content, err, want)
		}
	}
	// A directory of the time before there was a format.
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := checkFormat(dir); !errs.Is(err, errs.Version) || errs.HintOf(err) == "" {
		t.Errorf("a directory without a format: %v", err)
	}
	if _, err := os.Stat(name); !os.IsNotExist(err) {
		t.Errorf("the check marked a foreign directory: %v", err)
	}
}
