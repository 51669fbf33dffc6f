package disk_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"testing"

	"agentdrive/internal/disk"
	"agentdrive/internal/errs"
)

func rng(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

func create(t *testing.T, fs disk.FS, name string) disk.File {
	t.Helper()
	f, err := fs.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	ok(t, err)
	return f
}

// What was synced survives every crash; what was not is lost in some crashes,
// kept in some, and torn in some, at sector granularity.
func TestCrashContent(t *testing.T) {
	m := disk.NewMem()
	f := create(t, m, "f")
	old, young := bytes.Repeat([]byte{1}, 4*disk.Sector), bytes.Repeat([]byte{2}, 4*disk.Sector)
	_, err := f.WriteAt(old, 0)
	ok(t, err)
	ok(t, f.Sync())
	ok(t, m.SyncDir("/"))
	_, err = f.WriteAt(young, 0)
	ok(t, err)
	seen := map[string]int{}
	for seed := range uint64(100) {
		got := []byte(read(t, m.CrashClone(rng(seed)), "f"))
		if len(got) != len(old) {
			t.Fatalf("seed %d: size %d", seed, len(got))
		}
		for i := 0; i < len(got); i += disk.Sector {
			s := got[i : i+disk.Sector]
			if !bytes.Equal(s, old[:disk.Sector]) && !bytes.Equal(s, young[:disk.Sector]) {
				t.Fatalf("seed %d: sector %d is neither old nor new", seed, i/disk.Sector)
			}
		}
		switch {
		case bytes.Equal(got, old):
			seen["lost"]++
		case bytes.Equal(got, young):
			seen["kept"]++
		case got[0] == 1 && got[len(got)-1] == 2:
			seen["reordered"]++
		default:
			seen["torn"]++
		}
	}
	for _, k := range []string{"lost", "kept", "torn", "reordered"} {
		if seen[k] == 0 {
			t.Errorf("in 100 crashes no write was %s: %v", k, seen)
		}
	}
}

// Sync of a file does not make its name durable; SyncDir does not make
// content durable.
func TestCrashNames(t *testing.T) {
	m := disk.NewMem()
	synced := create(t, m, "content")
	_, err := synced.WriteAt([]byte("x"), 0)
	ok(t, err)
	ok(t, synced.Sync())
	lost, kept := 0, 0
	for seed := range uint64(60) {
		_, err := m.CrashClone(rng(seed)).Stat("content")
		if errs.Is(err, errs.NotExist) {
			lost++
		} else if err == nil {
			kept++
		}
	}
	if lost == 0 || kept == 0 {
		t.Errorf("unsynced name: lost %d, kept %d", lost, kept)
	}
	ok(t, m.SyncDir("/"))
	ok(t, m.Rename("content", "renamed"))
	before, after := 0, 0
	for seed := range uint64(60) {
		names, err := m.CrashClone(rng(seed)).ReadDir("/")
		ok(t, err)
		if len(names) != 1 {
			t.Fatalf("seed %d: a rename inside a directory is not atomic: %v", seed, names)
		}
		if names[0] == "content" {
			before++
		} else {
			after++
		}
	}
	if before == 0 || after == 0 {
		t.Errorf("unsynced rename: undone %d, kept %d", before, after)
	}
	ok(t, m.SyncDir("/"))
	ok(t, m.Remove("renamed"))
	ok(t, m.SyncDir("/"))
	for seed := range uint64(20) {
		if names, _ := m.CrashClone(rng(seed)).ReadDir("/"); len(names) != 0 {
			t.Fatalf("seed %d: a synced removal came back: %v", seed, names)
		}
	}
}

func TestCrashIsReplayable(t *testing.T) {
	m := disk.NewMem()
	f := create(t, m, "f")
	r := rng(7)
	for range 50 {
		b := make([]byte, r.IntN(3000))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		_, err := f.WriteAt(b, r.Int64N(20000))
		ok(t, err)
		if r.IntN(10) == 0 {
			ok(t, f.Sync())
		}
	}
	ok(t, m.SyncDir("/"))
	for seed := range uint64(10) {
		once, again := m.CrashClone(rng(seed)), m.CrashClone(rng(seed))
		if read(t, once, "f") != read(t, again, "f") {
			t.Fatalf("seed %d gives two results", seed)
		}
	}
}

func TestHook(t *testing.T) {
	m := disk.NewMem()
	f := create(t, m, "f")
	boom := errors.New("boom")
	var got []disk.Op
	m.SetHook(func(op disk.Op, name string) error {
		got = append(got, op)
		if op == disk.OpSync {
			return boom
		}
		return nil
	})
	_, err := f.WriteAt([]byte("x"), 0)
	ok(t, err)
	if err := f.Sync(); !errors.Is(err, boom) || !errs.Is(err, errs.IO) {
		t.Errorf("Sync: %v", err)
	}
	m.SetHook(nil)
	if len(got) != 2 || got[0] != disk.OpWrite || got[1] != disk.OpSync {
		t.Errorf("hook saw %v", got)
	}
	ok(t, f.Sync())
}

func TestCapacity(t *testing.T) {
	m := disk.NewMem()
	m.SetCapacity(1000)
	f := create(t, m, "f")
	_, err := f.WriteAt(make([]byte, 900), 0)
	ok(t, err)
	_, err = f.WriteAt(make([]byte, 900), 101)
	wantKind(t, err, errs.NoSpace)
	wantKind(t, f.Truncate(2000), errs.NoSpace)
	u, err := m.Usage("/")
	if err != nil || u.Total != 1000 || u.Free != 100 {
		t.Errorf("Usage %+v, %v", u, err)
	}
	ok(t, m.Remove("f"))
	if u, _ = m.Usage("/"); u.Free != 100 {
		t.Errorf("a removed file that is open gave back its space: %+v", u)
	}
	ok(t, f.Close())
	if u, _ = m.Usage("/"); u.Free != 1000 {
		t.Errorf("a removed and closed file keeps its space: %+v", u)
	}
}

func TestCorrupt(t *testing.T) {
	m := disk.NewMem()
	write(t, m, "f", "hello")
	ok(t, m.Corrupt("f", 1, 2, rng(1)))
	got := read(t, m, "f")
	if got[0] != 'h' || got[1] == 'e' || got[2] == 'l' || got[3:] != "lo" {
		t.Errorf("%q", got)
	}
	wantKind(t, m.Corrupt("f", 4, 2, rng(1)), errs.Range)
}
