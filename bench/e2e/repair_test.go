package e2e

import (
	"crypto/md5"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"agentdrive/bench/cluster"
)

// With one of three chunk servers gone, writes and reads go on at once. When
// it returns it receives exactly what it missed: afterwards it alone serves
// everything, with the two others gone.
func TestChunkServerMissesWrites(t *testing.T) {
	fit(t)
	c := cluster.Start(t, cluster.Options{Bin: binary, Nodes: 3, NoRespawn: true})
	c.Do("drive", "create", "demo")
	a := c.Mount("demo", "a")
	rnd := rand.NewChaCha8([32]byte{1})
	sums := map[string][md5.Size]byte{}
	put := func(name string, size int) {
		t.Helper()
		b := make([]byte, size)
		rnd.Read(b)
		if err := os.WriteFile(filepath.Join(a, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
		sums[name] = md5.Sum(b)
	}
	check := func(mount string) { // a new mount has nothing cached
		t.Helper()
		dir := c.Mount("demo", mount)
		for name, want := range sums {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if md5.Sum(b) != want {
				t.Errorf("%s, %d bytes read through mount %s, differs", name, len(b), mount)
			}
		}
	}

	put("before", 6<<20+13)
	put("overwritten", 5<<20)
	c.Do("sync", a)
	again := c.Kill(c.Server(cluster.Chunk, 2))

	put("during", 13<<20+7) // several blocks
	put("overwritten", 5<<20+1)
	for i := range 20 {
		put("small"+string(rune('a'+i)), 1+i*700)
	}
	c.Do("sync", a)
	check("during")
	st := c.Status()
	if st.Healthy || !st.Serving || st.Repair.Blocks == 0 || st.Repair.Bytes == 0 {
		t.Errorf("after writes that a server missed: healthy %v, serving %v, repair list %+v", st.Healthy, st.Serving, st.Repair)
	}

	again()
	if st = c.WaitFor("healthy"); st.Repair != (cluster.Repair{}) {
		t.Errorf("healthy with repair list %+v", st.Repair)
	}
	for _, id := range []uint32{1, 3} {
		c.Kill(c.Server(cluster.Chunk, id))
		check("without" + string(rune('0'+id)))
	}
}
