package tree

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"agentdrive/internal/kv"
	"agentdrive/internal/wire"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/metatest"
)

// helperVar makes the test binary apply a log and print its hash.
const helperVar = "TREE_DETERMINISM_HELPER"

// detSeeds sequences of detLength random operations make the log; with the
// race detector fewer do, there they are slow.
func detSeeds() uint64 {
	if raceBuild {
		return 25
	}
	return 400
}

const detLength = 450

// recorder hashes every result of a backend and counts mutations by kind.
type recorder struct {
	*backend
	hash  []byte
	kinds map[meta.OpKind]int
	count int
}

func (r *recorder) Do(op meta.Op, now int64) (meta.Result, error) {
	res, err := r.backend.Do(op, now)
	out := meta.Outcome{Result: res}
	if err != nil {
		out = meta.Failed(err)
	}
	sum := sha256.Sum256(append(r.hash, wire.Marshal(nil, 1, &out)...))
	r.hash = sum[:]
	if !op.Kind().IsRead() {
		r.kinds[op.Kind()]++
		r.count++
	}
	return res, err
}

// applyLog applies the whole log, and hashes results and final keys.
func applyLog(t testing.TB) (hash string, mutations int) {
	r := &recorder{kinds: map[meta.OpKind]int{}}
	for seed := range detSeeds() {
		r.backend = newBackend(t, []int{0, 5}[seed%2])
		r.client = metatest.NewClient(r, meta.RootIno, seed)
		for _, op := range metatest.Gen(seed, detLength, metatest.Config{Root: seed%3 == 0, MaxFile: 64 << 10}) {
			r.client.Do(op)
		}
		if seed%5 == 0 {
			r.tx(birth, func(tx kv.Tx, st Stamp) error { return LateAck(tx, missingCopies(t, tx)) })
		}
		if seed%7 == 0 {
			r.tx(birth, func(tx kv.Tx, st Stamp) error { return r.space.Drop(tx, st) })
			r.tx(birth, func(tx kv.Tx, st Stamp) error { _, err := r.space.ReclaimStep(tx, st, 100); return err })
		}
		v := r.store.View()
		h := sha256.New()
		h.Write(r.hash)
		if err := v.Scan(nil, nil, func(k, val []byte) bool {
			fmt.Fprintf(h, "%x=%x\n", k, val)
			return true
		}); err != nil {
			t.Fatal(err)
		}
		v.Release()
		r.hash = h.Sum(nil)
	}
	for k := meta.KindMake; k <= meta.KindWrite; k++ {
		if r.kinds[k] < 100 {
			t.Errorf("only %d operations of kind %d", r.kinds[k], k)
		}
	}
	return hex.EncodeToString(r.hash), r.count
}

func missingCopies(t testing.TB, v kv.View) []meta.BlockCopy {
	list, err := RepairList(v, 3, [16]byte{}, 10)
	if err != nil {
		t.Fatal(err)
	}
	var copies []meta.BlockCopy
	for _, x := range list {
		copies = append(copies, meta.BlockCopy{ID: x.Block, Server: 3})
	}
	return copies
}

// TestDeterminism applies one log in two processes that differ in everything
// a process can see of its surroundings, and compares all keys and results.
func TestDeterminism(t *testing.T) {
	if os.Getenv(helperVar) != "" {
		hash, n := applyLog(t)
		fmt.Printf("hash=%s mutations=%d\n", hash, n)
		return
	}
	if testing.Short() {
		t.Skip("applies a long log twice")
	}
	var lines []string
	for _, env := range [][]string{
		{"GOMAXPROCS=1", "TZ=America/New_York", "LANG=C", "GOGC=20"},
		{"GOMAXPROCS=4", "TZ=Asia/Tokyo", "LANG=de_DE.UTF-8", "HOME=/nowhere"},
	} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestDeterminism$")
		cmd.Env = append(append(os.Environ(), env...), helperVar+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		line, _, _ := strings.Cut(string(out), "\n")
		lines = append(lines, line)
	}
	var hash string
	var n int
	if _, err := fmt.Sscanf(lines[0], "hash=%s mutations=%d", &hash, &n); err != nil || n < minMutations && !raceBuild {
		t.Errorf("%q: want at least %d mutations", lines[0], minMutations)
	}
	if lines[0] != lines[1] {
		t.Fatalf("the processes disagree:\n%s\n%s", lines[0], lines[1])
	}
	t.Log(lines[0])
}

// minMutations is how many mutations the log must hold at least. Operations
// whose path leads nowhere never reach the log.
const minMutations = 100_000
