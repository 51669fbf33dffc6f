package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"agentdrive/internal/errs"
)

func TestConfigIsKept(t *testing.T) {
	d := Dir(t.TempDir())
	_, err := Load(d)
	if !errs.Is(err, errs.NotExist) || errs.HintOf(err) == "" {
		t.Fatal(err)
	}
	made, err := loadOrCreate(d, 3, 2)
	if err != nil {
		t.Fatal(err)
	}
	if len(made.Of(Metaserver)) != 3 || len(made.Metaservers()) != 3 || made.ClusterID() == [16]byte{} {
		t.Fatalf("%+v", made)
	}
	ports := map[string]bool{}
	for _, e := range made.Servers {
		ports[e.Address] = true
	}
	if len(ports) != 6 {
		t.Fatalf("addresses %v", ports)
	}
	again, err := loadOrCreate(d, 0, 0)
	if err != nil || fmt.Sprint(again) != fmt.Sprint(made) {
		t.Fatalf("%+v, %v", again, err)
	}
	if again.Groups != 2 {
		t.Errorf("%d groups", again.Groups)
	}
	if _, err := loadOrCreate(d, 3, 4); !errs.Is(err, errs.Refused) {
		t.Errorf("another number of groups: %v", err)
	}
	if _, err := loadOrCreate(d, 5, 0); !errs.Is(err, errs.Refused) || !strings.Contains(errs.HintOf(err), "--nodes 3") {
		t.Fatal(err)
	}
}

func TestBadConfigIsRefused(t *testing.T) {
	const id = "000102030405060708090a0b0c0d0e0f"
	server := func(role string, id int, dir, addr string) string {
		return fmt.Sprintf(`{"role":%q,"id":%d,"dir":%q,"address":%q}`, role, id, dir, addr)
	}
	ms, cs := server("metaserver", 1, "m", "h:1"), server("chunkserver", 1, "c", "h:2")
	file := func(version int, id string, nodes int, servers ...string) string {
		return fmt.Sprintf(`{"version":%d,"cluster":%q,"nodes":%d,"servers":[%s]}`, version, id, nodes, strings.Join(servers, ","))
	}
	for _, c := range []struct {
		name, text string
		kind       errs.Kind
	}{
		{"good", file(1, id, 1, ms, cs), errs.Other},
		{"empty", "", errs.Corrupt},
		{"cut", file(1, id, 1, ms, cs)[:40], errs.Corrupt},
		{"newer", file(2, id, 1, ms, cs), errs.Version},
		{"no version", file(0, id, 1, ms, cs), errs.Corrupt},
		{"short id", file(1, id[2:], 1, ms, cs), errs.Corrupt},
		{"missing server", file(1, id, 1, ms), errs.Corrupt},
		{"twice", file(1, id, 1, ms, ms), errs.Corrupt},
		{"role", file(1, id, 1, ms, server("other", 1, "c", "h:2")), errs.Corrupt},
		{"outside", file(1, id, 1, ms, server("chunkserver", 1, "../c", "h:2")), errs.Corrupt},
		{"address", file(1, id, 1, ms, server("chunkserver", 1, "c", "h")), errs.Corrupt},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := Dir(t.TempDir())
			if err := os.WriteFile(d.ConfigFile(), []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Load(d)
			if c.name == "good" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errs.Is(err, c.kind) || !strings.Contains(err.Error(), d.ConfigFile()) {
				t.Fatalf("%v (%v)", err, errs.KindOf(err))
			}
		})
	}
}

func TestLogRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	l, err := OpenLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.limit = 10
	for i := range 6 {
		if _, err := fmt.Fprintf(l, "line %d\n", i); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{path: "line 5\n", path + ".1": "line 4\n", path + ".3": "line 2\n"} {
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := os.Stat(path + ".4"); !os.IsNotExist(err) {
		t.Error("too many files kept")
	}
}

func TestLogReaderFollowsRotation(t *testing.T) {
	d := Dir(t.TempDir())
	if err := d.Make(); err != nil {
		t.Fatal(err)
	}
	l, err := OpenLog(d.LogOf("metaserver-1"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.limit = 30
	for i := range 3 {
		fmt.Fprintf(l, "%d\n", i)
	}
	files, err := LogFiles(d, "metaserver")
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if _, err := LogFiles(d, "chunkserver"); !errs.Is(err, errs.NotExist) || !strings.Contains(errs.HintOf(err), "metaserver-1") {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var got []string
	r := LogReader{Lines: 2, Emit: func(_, line string) error {
		got = append(got, line)
		switch line {
		case "2": // the last old line: what follows is new
			fmt.Fprint(l, "a long line that rotates\n")
			fmt.Fprint(l, "end\n")
		case "end":
			cancel()
		}
		return nil
	}}
	if err := r.Print(ctx, files, true); err != nil {
		t.Fatal(err)
	}
	if want := "[1 2 a long line that rotates end]"; fmt.Sprint(got) != want {
		t.Fatalf("got %v, want %v", got, want)
	}
}
