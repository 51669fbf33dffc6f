package model

import (
	"testing"

	"agentdrive/metaserver/metatest"
)

// local runs ops on a local directory beside the model.
func local(t *testing.T, ops []metatest.Op) string {
	disk := metatest.NewOS(t.TempDir())
	defer disk.Close()
	m := New(0o755, 0)
	// The directory may belong to anyone; make the roots alike.
	for _, f := range []metatest.Target{disk, m} {
		f.Do(metatest.Op{Kind: metatest.Chmod, Mode: 0o755})
	}
	return metatest.Run(disk, m, ops, metatest.Compare{})
}

// TestAgainstDisk compares the model with a local filesystem on random
// operations: the oracle must be right itself.
func TestAgainstDisk(t *testing.T) {
	disk := metatest.NewOS(t.TempDir())
	probe := disk.Do(metatest.Op{Kind: metatest.Mknod, Path: "dev", Mode: 0o020644, Rdev: 5})
	disk.Close()
	if probe.Errno != 0 {
		t.Skipf("devices cannot be made here: %v; this needs root", probe.Errno)
	}
	for seed := range uint64(60) {
		ops := metatest.Gen(seed, 400, metatest.Config{Root: true, Local: true, Names: 3 + int(seed%4)})
		d := local(t, ops)
		if d == "" {
			continue
		}
		small := metatest.Shrink(ops, func(ops []metatest.Op) bool { return local(t, ops) != "" })
		t.Fatalf("seed %d: %s\nshrunk:\n%s%s", seed, d, metatest.Format(small), local(t, small))
	}
}
