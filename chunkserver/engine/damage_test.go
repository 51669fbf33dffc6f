package engine

import (
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"agentdrive/chunkserver/chunk"
	"agentdrive/chunkserver/chunktest"
	"agentdrive/internal/disk"
	"agentdrive/internal/errs"
)

// filled is a closed store of ten blocks in one segment, the first put of
// which is block 0 at dataStart.
func filled(t *testing.T, seal bool) (*disk.Mem, []chunk.Block) {
	t.Helper()
	fs := disk.NewMem()
	s := mustOpenOnce(t, smallConfig(fs))
	var blocks []chunk.Block
	for i := range uint64(10) {
		b := chunktest.Block(i, 3000+int(i))
		chunktest.MustPut(t, s, b)
		blocks = append(blocks, b)
	}
	if !seal {
		crashed := fs.CrashClone(rand.New(rand.NewPCG(1, 1)))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return crashed, blocks
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return fs, blocks
}

// Ten records of one page each follow dataStart.
func blockAt(i int) int64 { return dataStart + int64(i)*page }

// A damaged record costs its own block only, in a sealed and in an unsealed
// segment, and is reported with file and offset.
func TestDamagedRecord(t *testing.T) {
	const hit = 4
	for _, tc := range []struct {
		name   string
		seal   bool
		off    int64 // in the record
		lost   bool  // the id cannot be known
		atOpen bool
	}{
		{"sealed, data", true, sector + 100, false, false},
		{"sealed, header", true, 40, false, false},
		{"unsealed, data", false, sector + 100, false, true},
		{"unsealed, header", false, 40, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fs, blocks := filled(t, tc.seal)
			if err := fs.Corrupt("/store/seg-00000001", blockAt(hit)+tc.off, 1, rand.New(rand.NewPCG(1, 1))); err != nil {
				t.Fatal(err)
			}
			s := mustOpen(t, smallConfig(fs))
			if got := len(s.Damage()) > 0; got != tc.atOpen {
				t.Errorf("damage found at open: %v", s.Damage())
			}
			for i, b := range blocks {
				if i != hit {
					chunktest.WantBlock(t, s, b)
				}
			}
			_, err := s.Get(t.Context(), chunktest.Grant(), blocks[hit].ID, 0, 10)
			chunktest.WantKind(t, err, errs.Corrupt)
			if err == nil || !strings.Contains(err.Error(), "seg-00000001") || !strings.Contains(err.Error(), "offset 24576") {
				t.Errorf("%v does not name file and offset", err)
			}
			d := s.Damage()
			if len(d) != 1 || d[0].File != "seg-00000001" || d[0].Offset != blockAt(hit) || d[0].Lost != tc.lost {
				t.Fatalf("damage %+v", d)
			}
			_, err = s.Get(t.Context(), chunktest.Grant(), chunk.BlockID{1}, 0, 1)
			if tc.lost {
				chunktest.WantKind(t, err, errs.Corrupt) // absence cannot be promised
			} else {
				chunktest.WantKind(t, err, errs.NotExist)
			}
			chunktest.MustPut(t, s, blocks[hit]) // repair
			chunktest.WantBlock(t, s, blocks[hit])
			s = mustOpen(t, reopenConfig(t, s))
			chunktest.WantBlock(t, s, blocks[hit])
		})
	}
}

func reopenConfig(t *testing.T, s *Store) Config {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return s.cfg
}

// Without a footer the records are found by reading; the segment is sealed
// again.
func TestDamagedFooter(t *testing.T) {
	for name, off := range map[string]int64{
		"body": blockAt(10) + 5, "trailer": minSegment - page + 20} {
		t.Run(name, func(t *testing.T) {
			fs, blocks := filled(t, true)
			if err := fs.Corrupt("/store/seg-00000001", off, 1, rand.New(rand.NewPCG(1, 1))); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				s := mustOpenOnce(t, smallConfig(fs))
				for _, b := range blocks {
					chunktest.WantBlock(t, s, b)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// Losing one copy of the header is harmless, losing both is damage.
func TestDamagedHeader(t *testing.T) {
	fs, blocks := filled(t, true)
	rng := rand.New(rand.NewPCG(1, 1))
	if err := fs.Corrupt("/store/seg-00000001", 10, 1, rng); err != nil {
		t.Fatal(err)
	}
	s := mustOpenOnce(t, smallConfig(fs))
	chunktest.WantBlock(t, s, blocks[0])
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := fs.Corrupt("/store/seg-00000001", page+10, 1, rng); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, smallConfig(fs))
	_, err := s.Get(t.Context(), chunktest.Grant(), blocks[0].ID, 0, 1)
	chunktest.WantKind(t, err, errs.Corrupt)
	if _, err := fs.Stat("/store/seg-00000001"); err != nil {
		t.Errorf("the damaged segment is gone: %v", err)
	}
}

// What was cut from a torn tail never comes back, not even when the footer
// written over it is lost later.
func TestCutStaysCut(t *testing.T) {
	fs := disk.NewMem()
	s := mustOpenOnce(t, smallConfig(fs))
	chunktest.MustPut(t, s, chunktest.Block(0, 100))
	lost, ghost := chunktest.Block(1, 2*page), chunktest.Block(2, 100) // the footer will not cover the ghost
	pushed := []*request{putReq(lost), putReq(ghost)}
	pushTogether(s, pushed)
	for _, r := range pushed {
		if err := <-r.done; err != nil {
			t.Fatal(err)
		}
	}
	at, _ := s.find(lost.ID)
	torn := fs.CrashClone(rand.New(rand.NewPCG(1, 1)))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := torn.OpenFile("/store/seg-00000001", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	// As if the first of the two records had not reached the disk.
	if _, err := f.WriteAt(make([]byte, recordSize(2*page)), int64(at.at.off)*sector); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpenOnce(t, smallConfig(torn))
	if n := s.index.Len(); n != 1 {
		t.Fatalf("%d blocks after the cut, want 1", n)
	}
	chunktest.MustPut(t, s, chunktest.Block(3, 100)) // a second segment: the first was sealed
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := torn.Corrupt("/store/seg-00000001", minSegment-page+20, 1, rand.New(rand.NewPCG(1, 1))); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, smallConfig(torn))
	if n := s.index.Len(); n != 2 {
		t.Errorf("%d blocks after the footer was lost, want 2", n)
	}
}

// A segment that is not the last was sealed, so whatever fails in it is damage
// and no torn tail, even in its last batch.
func TestDamageBeforeLastSegment(t *testing.T) {
	fs, blocks := filled(t, true)
	s := mustOpenOnce(t, smallConfig(fs))
	chunktest.MustPut(t, s, chunktest.Block(100, 10))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for _, off := range []int64{minSegment - page + 20, blockAt(9) + sector + 5} {
		if err := fs.Corrupt("/store/seg-00000001", off, 1, rng); err != nil {
			t.Fatal(err)
		}
	}
	s = mustOpen(t, smallConfig(fs))
	_, err := s.Get(t.Context(), chunktest.Grant(), blocks[9].ID, 0, 10)
	chunktest.WantKind(t, err, errs.Corrupt)
	chunktest.WantBlock(t, s, blocks[8])
	if d := s.Damage(); len(d) != 1 || d[0].ID != blocks[9].ID {
		t.Errorf("damage %+v", d)
	}
}

// A write that the disk sent to the wrong place does not pass for the block
// that should be there, though its checksums are right.
func TestMisdirectedWrite(t *testing.T) {
	fs, blocks := filled(t, true)
	f, err := fs.OpenFile("/store/seg-00000001", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, page)
	if err := readFull(f, b, blockAt(5)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, blockAt(4)); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, smallConfig(fs))
	_, err = s.Get(t.Context(), chunktest.Grant(), blocks[4].ID, 0, 10)
	chunktest.WantKind(t, err, errs.Corrupt)
	chunktest.WantBlock(t, s, blocks[5])
}

// A store of a newer format is refused, whatever part tells.
func TestNewerFormat(t *testing.T) {
	for name, change := range map[string]func(f disk.File) error{
		"header": func(f disk.File) error { return bumpVersion(f, 0) },
		"record": func(f disk.File) error { return bumpVersion(f, blockAt(3)) },
	} {
		t.Run(name, func(t *testing.T) {
			fs, _ := filled(t, false)
			f, err := fs.OpenFile("/store/seg-00000001", os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := change(f); err != nil {
				t.Fatal(err)
			}
			_, err = Open(smallConfig(fs))
			wantHint(t, err, errs.Version)
		})
	}
	fs, _ := filled(t, true)
	b := identity{chunktest.Cluster, testServer}
	enc := b.encode()
	enc[len(identityMagic)+4] = formatVersion + 1
	body := enc[len(identityMagic)+4:]
	copy(enc[len(identityMagic):], be32(crc(body)))
	f, err := fs.OpenFile("/store/STORE", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(enc, 0); err != nil {
		t.Fatal(err)
	}
	_, err = Open(smallConfig(fs))
	wantHint(t, err, errs.Version)
}

func be32(v uint32) []byte { return []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)} }

// bumpVersion rewrites the sector at off as a newer format would.
func bumpVersion(f disk.File, off int64) error {
	b := make([]byte, sector)
	if err := readFull(f, b, off); err != nil {
		return err
	}
	b[4] = formatVersion + 1
	copy(b[recCRC:], be32(crc(b[:recCRC])))
	_, err := f.WriteAt(b, off)
	return err
}

// Scrub finds what nobody reads, in bounded steps, and comes round.
func TestScrub(t *testing.T) {
	fs, blocks := filled(t, true)
	s := mustOpen(t, smallConfig(fs))
	pass := func() (bad []Damage, calls int) {
		for {
			r, err := s.Scrub(t.Context(), 8000)
			if err != nil {
				t.Fatal(err)
			}
			if r.Checked > 8000+recordSize(4000) {
				t.Errorf("one call verified %d bytes", r.Checked)
			}
			bad = append(bad, r.Bad...)
			if calls++; r.Wrapped || calls > 20 {
				return bad, calls
			}
		}
	}
	if bad, calls := pass(); len(bad) != 0 || calls < 4 {
		t.Errorf("clean store: %v in %d calls", bad, calls)
	}
	if err := fs.Corrupt("/store/seg-00000001", blockAt(7)+sector+1, 1, rand.New(rand.NewPCG(1, 1))); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		bad, _ := pass()
		if len(bad) != 1 || bad[0].ID != blocks[7].ID || bad[0].Offset != blockAt(7) {
			t.Errorf("bad %+v", bad)
		}
	}
	if d := s.Damage(); len(d) != 1 {
		t.Errorf("damage %+v", d)
	}
}
