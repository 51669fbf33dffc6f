package cli

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"agentdrive/internal/errs"
)

func TestParse(t *testing.T) {
	c := find("mount")
	for _, tc := range []struct {
		args, env string
		want      string // selected values and arguments
	}{
		{"demo /m", "", "[demo /m] path=/ ro=false timeout=1m0s"},
		{"demo --path /x /m --read-only", "", "[demo /m] path=/x ro=true timeout=1m0s"},
		{"--path=/x --read-only=false demo /m", "AGENTDRIVE_READ_ONLY=1", "[demo /m] path=/x ro=false timeout=1m0s"},
		{"demo /m", "AGENTDRIVE_READ_ONLY=yes AGENTDRIVE_TIMEOUT=5s HOME=/", "[demo /m] path=/ ro=true timeout=5s"},
		{"--timeout 2m -- demo --path", "", "[demo --path] path=/ ro=false timeout=2m0s"},
		{"demo -", "", "[demo -] path=/ ro=false timeout=1m0s"},
	} {
		in, err := parse(c, strings.Fields(tc.args), strings.Fields(tc.env))
		if err != nil {
			t.Errorf("%s: %v", tc.args, err)
			continue
		}
		got := fmt.Sprintf("%v path=%s ro=%v timeout=%v", in.Args, in.text("path"), in.bool("read-only"), in.duration("timeout"))
		if got != tc.want {
			t.Errorf("%s: %s, want %s", tc.args, got, tc.want)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for _, tc := range []struct {
		args, env string
		wants     []string // in error or hint
	}{
		{"", "", []string{"no verb", "agentdrive up"}},
		{"--jsn", "", []string{"needs a verb"}},
		{"stauts", "", []string{`"stauts"`, "did you mean `agentdrive status`"}},
		{"frobnicate", "", []string{"agentdrive help"}},
		{"drive", "", []string{"create, list, get, set, delete"}},
		{"drive crate x", "", []string{"did you mean `agentdrive drive create`"}},
		{"drive zzz", "", []string{"create, list, get, set, delete"}},
		{"drive set demo", "", []string{"--max-bytes or --max-files", "drive set --help"}},
		{"drive set demo --max-bytes 10X", "", []string{`"10X"`, "a size like"}},
		{"drive set demo --max-files 1K", "", []string{`"1K"`, "a number"}},
		{"drive create", "", []string{"needs NAME", "agentdrive drive create NAME"}},
		{"drive create a b", "", []string{`no argument "b"`}},
		{"up --detch", "", []string{"--detch", "did you mean `--detach`"}},
		{"up --nodes", "", []string{"needs a value"}},
		{"up --nodes x", "", []string{`"x"`, "a number"}},
		{"up --nodes -1", "", []string{"a number"}},
		{"up --nodes 2", "", []string{"--nodes 3"}},
		{"up --nodes 1 --nodes 3", "", []string{"twice"}},
		{"status --wait --for helthy", "", []string{"did you mean `healthy`"}},
		{"status --for serving", "", []string{"--wait"}},
		{"status --timeout 5", "", []string{"duration"}},
		{"status --servers localhost", "", []string{"HOST:PORT"}},
		{"status --json=maybe", "", []string{"true or false"}},
		{"version", "AGENTDRIVE_SERVRES=x", []string{"AGENTDRIVE_SERVRES", "did you mean `AGENTDRIVE_SERVERS`"}},
		{"up", "AGENTDRIVE_NODES=many", []string{"AGENTDRIVE_NODES", "a number"}},
		{"mount demo /m --path sub", "", []string{"must begin with /"}},
		{"mount demo /m --path /a/../b", "", []string{".."}},
		{"umount /m --lazy --force", "", []string{"exclude"}},
		{"metaserver", "", []string{"--listen"}},
		{"metaserver --listen a:1", "", []string{"--id"}},
		{"metaserver --listen a:1 --id 1", "", []string{"--peers"}},
		{"metaserver --listen a:1 --id 1 --peers a:1", "", []string{"ID=HOST:PORT"}},
		{"metaserver --listen a:1 --id 1 --peers 2=a:1", "", []string{"does not name this server"}},
		{"metaserver --listen a:1 --id 1 --peers 1=a:1,1=b:1", "", []string{"twice"}},
		{"metaserver --listen a:1 --id 1 --peers 1=a:1 --cluster xy", "", []string{"--cluster", "hex"}},
		{"metaserver --listen a:1 --id 1 --peers 1=a:1 --copies 2", "", []string{"--copies"}},
		{"chunkserver --listen a:1 --id 1", "", []string{"--peers"}},
		{"help statsu", "", []string{"did you mean `agentdrive status`"}},
	} {
		r := runApp(fakeDeps(), strings.Fields(tc.env), strings.Fields(tc.args)...)
		if r.code != ExitUsage || r.out != "" {
			t.Errorf("%s %s: %v", tc.env, tc.args, r)
		}
		for _, want := range tc.wants {
			if !strings.Contains(r.err, want) {
				t.Errorf("%s %s: stderr does not say %q: %s", tc.env, tc.args, want, r.err)
			}
		}
	}
}

// With --json, in any place or from the environment, even usage errors are
// JSON.
func TestErrorsAsJSON(t *testing.T) {
	for _, tc := range []struct{ args, env string }{
		{"up --json --detch", ""}, {"--json up --detch", ""}, {"up --detch", "AGENTDRIVE_JSON=1"}, {"--json", ""},
	} {
		r := runApp(fakeDeps(), strings.Fields(tc.env), strings.Fields(tc.args)...)
		var e errorJSON
		(result{out: r.err}).decode(t, &e)
		if e.Kind != "usage" || e.Error == "" || e.Hint == "" || r.code != ExitUsage {
			t.Errorf("%s: %v", tc.args, r)
		}
	}
}

func TestHelp(t *testing.T) {
	for _, c := range Commands() {
		for _, args := range [][]string{append(strings.Fields(c.Name), "--help"), append([]string{"-h"}, strings.Fields(c.Name)...)} {
			r := runApp(fakeDeps(), nil, args...)
			if r.code != ExitDone || !strings.Contains(r.out, c.usageLine()) {
				t.Errorf("%v: %v", args, r)
			}
		}
	}
	for args, want := range map[string]string{
		"--help": "Verbs:", "help": "Verbs:", "help drive": "drive delete NAME", "help mount": "--read-only",
		"help environment": "AGENTDRIVE_DATA", "help drive create": "--if-not-exists",
	} {
		if r := runApp(fakeDeps(), nil, strings.Fields(args)...); r.code != ExitDone || !strings.Contains(r.out, want) {
			t.Errorf("%s: %v", args, r)
		}
	}
}

// What the parser and the documentation take for granted about the table.
func TestTable(t *testing.T) {
	types := map[string]Type{}
	names := map[string]bool{}
	for _, c := range Commands() {
		if c.Summary == "" || c.Run == nil || names[c.Name] {
			t.Errorf("%s: no summary, no Run, or twice", c.Name)
		}
		names[c.Name] = true
		seen := map[string]bool{}
		for _, f := range c.allFlags() {
			if seen[f.Name] || f.Short != "" && seen[f.Short] {
				t.Errorf("%s: --%s twice", c.Name, f.Name)
			}
			seen[f.Name], seen[f.Short] = true, f.Short != ""
			if (f.Type != Bool) != (f.Value != "") || (f.Type == Choice) != (len(f.Choices) > 0) || f.Help == "" != f.Hidden {
				t.Errorf("%s: --%s: placeholder, choices or help do not fit its type", c.Name, f.Name)
			}
			// Flags before the verb are skipped by name, see lookup.
			valued, before := types[f.Name]
			if before && (valued == Bool) != (f.Type == Bool) {
				t.Errorf("%s: --%s takes a value here but not elsewhere", c.Name, f.Name)
			}
			types[f.Name] = f.Type
			if f.Default != "" {
				if v, err := normalize(f, f.Name, f.Default); err != nil || v != f.Default {
					t.Errorf("%s: default of --%s: %q, %v", c.Name, f.Name, v, err)
				}
			}
		}
		if seen["force"] {
			if _, err := parse(c, []string{"x"}, []string{"AGENTDRIVE_FORCE=1"}); err == nil && c.Name == "umount" {
				if in, _ := parse(c, []string{"x"}, []string{"AGENTDRIVE_FORCE=1"}); in.bool("force") {
					t.Errorf("%s: the environment can force it", c.Name)
				}
			}
		}
	}
}

func TestExitCodes(t *testing.T) {
	for n := range 256 {
		k := errs.Kind(n)
		if _, ok := exitCodes[k]; ok != k.Known() {
			t.Errorf("kind %d (%v): in the table: %v", n, k, ok)
		}
	}
	for k, want := range map[errs.Kind]int{
		errs.Usage: 2, errs.NotExist: 3, errs.Exist: 4, errs.Busy: 4, errs.Unavailable: 5, errs.Timeout: 5, errs.Refused: 6, errs.IO: 1,
	} {
		if got := ExitCode(errs.E("x", k, "", nil)); got != want {
			t.Errorf("%v: %d, want %d", k, got, want)
		}
	}
	if ExitCode(nil) != 0 || ExitCode(os.ErrClosed) != 1 {
		t.Error("nil or unclassified error")
	}
}

func TestReferenceIsCurrent(t *testing.T) {
	b, err := os.ReadFile("../../../docs/CLI.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != Markdown() {
		t.Error("docs/CLI.md is stale: run `make generate`")
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"stauts", "status", 1}, {"detch", "detach", 1}, {"kitten", "sitting", 3}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%s, %s: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

// No command line makes the parser panic, and what it accepts has as many
// arguments as the verb takes.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"up --nodes 3", "mount a b --path=/x", "drive create --", "-h", "--json=", "logs -n -f", "x -- --"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		c, rest, err := lookup(strings.Fields(line))
		if err != nil || c == nil {
			return
		}
		in, err := parse(c, rest, nil)
		if err == nil && len(in.Args) > len(c.Args) && !in.bool("help") {
			t.Fatalf("%q: %d arguments", line, len(in.Args))
		}
		if err != nil && !errs.Is(err, errs.Usage) {
			t.Fatalf("%q: %v is no usage error", line, err)
		}
	})
}

func TestParseSize(t *testing.T) {
	for _, tc := range []struct {
		v    string
		want uint64
		ok   bool
	}{
		{"0", 0, true}, {"none", 0, true}, {"123", 123, true}, {"5B", 5, true},
		{"1K", 1024, true}, {"1k", 1024, true}, {"2KiB", 2048, true}, {"2kB", 2000, true}, {"3MB", 3e6, true}, {"3M", 3 << 20, true},
		{"10GiB", 10 << 30, true}, {"2TB", 2e12, true}, {"15E", 15 << 60, true}, {"16E", 0, false}, {"18446744073709551615", 1<<64 - 1, true},
		{"", 0, false}, {"K", 0, false}, {"-1", 0, false}, {"1.5G", 0, false}, {"1KK", 0, false}, {"1iB", 0, false}, {"1Ki", 0, false}, {"1BB", 0, false}, {"1 K", 0, false},
	} {
		n, ok := parseSize(tc.v, true)
		if ok != tc.ok || ok && n != tc.want {
			t.Errorf("%q: %d, %v; want %d, %v", tc.v, n, ok, tc.want, tc.ok)
		}
	}
}
