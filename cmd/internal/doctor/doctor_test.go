package doctor

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"
)

// healthy is a host with everything.
func healthy() Host {
	return Host{
		Release: "6.18.4-test", Root: true, UserConf: "#x\nuser_allow_other\n",
		Sys: fstest.MapFS{
			"proc/sys/fs/fuse/max_pages_limit":        {Data: []byte("256\n")},
			"sys/module/fuse/parameters/enable_uring": {Data: []byte("Y\n")},
		},
		OpenFUSE: func() error { return nil },
		Find:     func(string) (string, bool) { return "/usr/bin/fusermount3", true },
		Free:     func() (uint64, uint64, error) { return 100 << 30, 200 << 30, nil },
	}
}

func TestHealthyHost(t *testing.T) {
	r := Examine(healthy())
	for _, f := range r.Findings {
		if f.State != OK || f.Todo != "" {
			t.Errorf("%+v", f)
		}
	}
	for _, f := range r.Features {
		if !f.Here {
			t.Errorf("%+v", f)
		}
	}
}

func TestFindings(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(*Host)
		finding string
		state   string
		missing int
	}{
		{"old kernel", func(h *Host) { h.Release = "4.19.0-27-amd64" }, "kernel", Missing, 1},
		{"no fuse", func(h *Host) { h.OpenFUSE = func() error { return errors.New("no such device") } }, "/dev/fuse", Missing, 1},
		{"root without fusermount", func(h *Host) { h.Find = none }, "fusermount3", Note, 0},
		{"user without fusermount", func(h *Host) { h.Find, h.Root = none, false }, "fusermount3", Missing, 1},
		{"user may not allow others", func(h *Host) { h.Root, h.UserConf = false, "# user_allow_other" }, "allow-other", Note, 0},
		{"small requests", func(h *Host) {
			h.Sys = fstest.MapFS{"proc/sys/fs/fuse/max_pages_limit": {Data: []byte("32")}}
		}, "request size", Warn, 0},
		{"no limit file", func(h *Host) { h.Sys = fstest.MapFS{} }, "request size", Note, 0},
		{"little space", func(h *Host) { h.Free = func() (uint64, uint64, error) { return 2 << 30, 9 << 30, nil } }, "free disk", Warn, 0},
		{"no space", func(h *Host) { h.Free = func() (uint64, uint64, error) { return 1 << 20, 9 << 30, nil } }, "free disk", Missing, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := healthy()
			c.change(&h)
			r := Examine(h)
			if r.Missing() != c.missing {
				t.Errorf("%d missing, want %d", r.Missing(), c.missing)
			}
			for _, f := range r.Findings {
				if f.Name == c.finding {
					if f.State != c.state || f.Detail == "" {
						t.Errorf("%+v, want state %s", f, c.state)
					}
					return
				}
			}
			t.Errorf("no finding %q in %+v", c.finding, r.Findings)
		})
	}
}

func none(string) (string, bool) { return "", false }

func TestFeaturesByKernel(t *testing.T) {
	for release, want := range map[string]string{
		"6.1.0-30-amd64": "", "6.9.1": "RESEND", "6.12": "RESEND,EROFS from files,FUSE idmapping",
		"6.16.0": "RESEND,EROFS from files,FUSE idmapping,FUSE over io_uring,INC_EPOCH", "7.0-rc1": "RESEND,EROFS from files,FUSE idmapping,FUSE over io_uring,INC_EPOCH",
		"strange": "",
	} {
		h := healthy()
		h.Release = release
		var got []string
		for _, f := range Examine(h).Features {
			if f.Here {
				got = append(got, f.Name)
			}
		}
		if strings.Join(got, ",") != want {
			t.Errorf("%s: %v, want %s", release, got, want)
		}
	}
	h := healthy()
	h.Sys = fstest.MapFS{"sys/module/fuse/parameters/enable_uring": {Data: []byte("N\n")}}
	for _, f := range Examine(h).Features {
		if f.Name == "FUSE over io_uring" && (f.Here || !strings.Contains(f.For, "echo Y")) {
			t.Errorf("%+v", f)
		}
	}
}

func TestFreeOfMissingDirectory(t *testing.T) {
	free, total, err := freeAt(t.TempDir() + "/not/there/yet")
	if err != nil || total == 0 || free > total {
		t.Fatal(free, total, err)
	}
}
