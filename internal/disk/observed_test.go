package disk_test

import (
	"os"
	"slices"
	"testing"
	"time"

	"agentdrive/internal/disk"
)

func TestObserved(t *testing.T) {
	var calls []disk.Call
	var bytes int
	fs := disk.Observed(disk.OS{}, func(c disk.Call, n int, took time.Duration) {
		if took < 0 {
			t.Error("negative time")
		}
		calls = append(calls, c)
		bytes += n
	})
	dir := t.TempDir()
	f, err := fs.OpenFile(dir+"/a", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	_, werr := f.WriteAt([]byte("hello"), 0)
	_, rerr := f.ReadAt(make([]byte, 3), 1)
	for _, err := range []error{werr, rerr, f.Sync(), f.Close(), fs.SyncDir(dir)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []disk.Call{disk.CallWrite, disk.CallRead, disk.CallSync, disk.CallSyncDir}
	if !slices.Equal(calls, want) || bytes != 8 {
		t.Fatalf("%v, %d bytes", calls, bytes)
	}
}
