package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"agentdrive/bench/cluster"
)

// A drive's limits as programs meet them: statfs, EDQUOT from create, and from
// write, fsync or close; room again after a deletion.
func TestQuota(t *testing.T) {
	fit(t)
	c := start(t, 1)
	a := c.Mount("demo", "a")
	const limit = 1 << 20
	c.Do("drive", "set", "demo", "--max-bytes", "1M", "--max-files", "6")
	var st syscall.Statfs_t
	if err := syscall.Statfs(a, &st); err != nil {
		t.Fatal(err)
	}
	if total := st.Blocks * uint64(st.Bsize); total != limit || st.Files != 6 || st.Ffree >= 6 {
		t.Errorf("statfs: %d bytes, want %d; %d files, %d free, want 6", total, limit, st.Files, st.Ffree)
	}
	for i := range 5 {
		if err := os.Mkdir(fmt.Sprintf("%s/%d", a, i), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(a+"/6", 0o755); !errors.Is(err, syscall.EDQUOT) {
		t.Errorf("the seventh file: %v", err)
	}
	if err := os.Remove(a + "/4"); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(a + "/f")
	if err != nil {
		t.Fatal(err)
	}
	if err := writeAll(f, limit*3/4); err != nil {
		t.Fatal(err)
	}
	g, err := os.Create(a + "/0/g")
	if !errors.Is(err, syscall.EDQUOT) {
		t.Errorf("another file: %v, %v", g, err)
	}
	c.Do("drive", "set", "demo", "--max-files", "none")
	if g, err = os.Create(a + "/0/g"); err != nil {
		t.Fatal(err)
	}
	if err := writeAll(g, limit*3/4); !errors.Is(err, syscall.EDQUOT) {
		t.Errorf("more bytes than the drive may have: %v", err)
	}
	if f, err = os.OpenFile(a+"/f", os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	}
	if err := writeAll(f, limit*3/4); err != nil { // over what is there
		t.Errorf("an overwrite: %v", err)
	}
	var d cluster.Drive
	if err := json.Unmarshal([]byte(c.Do("drive", "get", "demo", "--json")), &d); err != nil || d.Bytes > limit || d.Bytes < limit*3/4 {
		t.Errorf("drive get: %+v, %v", d, err)
	}
	if err := os.Remove(a + "/f"); err != nil {
		t.Fatal(err)
	}
	if g, err = os.Create(filepath.Join(a, "0", "g")); err != nil {
		t.Fatal(err)
	}
	if err := writeAll(g, limit*3/4); err != nil {
		t.Errorf("after the deletion: %v", err)
	}
}

// writeAll writes n bytes and closes; the first error of write, fsync, close.
func writeAll(f *os.File, n int) error {
	_, err := f.Write(make([]byte, n))
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
