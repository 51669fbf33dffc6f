package engine

import (
	"testing"

	"agentdrive/chunkserver/chunk"
	"agentdrive/chunkserver/chunktest"
	"agentdrive/internal/disk"
	"agentdrive/internal/errs"
)

const testServer = 7

func testConfig(fs disk.FS, dir string) Config {
	return Config{FS: fs, Dir: dir, Cluster: chunktest.Cluster, Server: testServer, SegmentBytes: 8 << 20, Reserve: -1}
}

// smallConfig has segments of the least size and no background work.
func smallConfig(fs disk.FS) Config {
	c := testConfig(fs, "/store")
	c.SegmentBytes, c.manual = minSegment, true
	return c
}

func mustOpen(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func reopen(t *testing.T, s *Store, fs disk.FS) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := s.cfg
	cfg.FS = fs
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	t.Run("mem", func(t *testing.T) {
		chunktest.Run(t, func(t *testing.T) chunk.Store {
			cfg := testConfig(disk.NewMem(), "/store")
			cfg.manual = true // filling segments ahead would be most of the test's time
			return mustOpen(t, cfg)
		})
	})
	t.Run("os", func(t *testing.T) {
		chunktest.Run(t, func(t *testing.T) chunk.Store { return mustOpen(t, testConfig(disk.OS{}, t.TempDir())) })
	})
}

func TestIdentity(t *testing.T) {
	fs := disk.NewMem()
	s := mustOpen(t, testConfig(fs, "/a/b"))
	chunktest.MustPut(t, s, chunktest.Block(1, 10))
	_, err := Open(testConfig(fs, "/a/b"))
	wantHint(t, err, errs.Locked)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name   string
		change func(c *Config)
		kind   errs.Kind
	}{
		{"other cluster", func(c *Config) { c.Cluster[3]++ }, errs.Mismatch},
		{"other server", func(c *Config) { c.Server++ }, errs.Mismatch},
	}
	for _, c := range cases {
		cfg := testConfig(fs, "/a/b")
		c.change(&cfg)
		_, err := Open(cfg)
		t.Run(c.name, func(t *testing.T) { wantHint(t, err, c.kind) })
	}
	if err := fs.Remove("/a/b/STORE"); err != nil {
		t.Fatal(err)
	}
	_, err = Open(testConfig(fs, "/a/b"))
	wantHint(t, err, errs.Corrupt)
}

func wantHint(t *testing.T, err error, kind errs.Kind) {
	t.Helper()
	if !errs.Is(err, kind) || errs.HintOf(err) == "" {
		t.Errorf("error %v of kind %v with hint %q, want kind %v with a hint", err, errs.KindOf(err), errs.HintOf(err), kind)
	}
}

func TestConfigInvalid(t *testing.T) {
	for name, change := range map[string]func(c *Config){
		"no fs":         func(c *Config) { c.FS = nil },
		"no dir":        func(c *Config) { c.Dir = "" },
		"no cluster":    func(c *Config) { c.Cluster = [16]byte{} },
		"no server":     func(c *Config) { c.Server = 0 },
		"small segment": func(c *Config) { c.SegmentBytes = minSegment - page },
		"odd segment":   func(c *Config) { c.SegmentBytes = minSegment + 1 },
		"negative rate": func(c *Config) { c.CompactRate = -1 },
	} {
		cfg := testConfig(disk.NewMem(), "/store")
		change(&cfg)
		if _, err := Open(cfg); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClosed(t *testing.T) {
	s := reopen(t, mustOpenOnce(t, smallConfig(disk.NewMem())), disk.NewMem())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	chunktest.WantKind(t, s.Put(t.Context(), chunktest.Grant(), chunktest.Block(1, 10)), errs.Unavailable)
	_, err := s.Get(t.Context(), chunktest.Grant(), chunk.BlockID{1}, 0, 1)
	chunktest.WantKind(t, err, errs.Unavailable)
}

// mustOpenOnce opens a store that the test closes itself.
func mustOpenOnce(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
