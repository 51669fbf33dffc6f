package invariant

import (
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestMust(t *testing.T) {
	Must(true, "holds")
	before := Broken()
	defer func() {
		if got := recover(); got != "invariant broken: 3 is not 4" {
			t.Errorf("panicked with %v", got)
		}
		if Broken() != before+1 {
			t.Errorf("counted %d", Broken()-before)
		}
	}()
	Must(false, "%d is not %d", 3, 4)
}

func TestCheckHolds(t *testing.T) {
	before := Broken()
	if !Check(true, "holds") || Broken() != before {
		t.Error("an invariant that holds was counted or denied")
	}
}

// TestCheck runs in the mode of this build; the other modes run as child
// processes of TestModes.
func TestCheck(t *testing.T) {
	if Strict() {
		defer func() {
			if recover() == nil {
				t.Error("strict, but no panic")
			}
		}()
		Check(false, "broken")
		return
	}
	var buf bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&buf, nil)))
	defer slog.SetDefault(old)
	before := Broken()
	for i := range 3 {
		if Check(false, "broken %d", i) {
			t.Error("a broken invariant was confirmed")
		}
	}
	if Broken() != before+3 {
		t.Errorf("counted %d of 3", Broken()-before)
	}
	if n := strings.Count(buf.String(), "invariant broken"); n != 1 {
		t.Errorf("logged %d times, want once:\n%s", n, buf.String())
	}
	if !strings.Contains(buf.String(), "invariant_test.go:") {
		t.Errorf("the call site is missing: %s", buf.String())
	}
}

func TestModes(t *testing.T) {
	if os.Getenv("INVARIANT_CHILD") != "" {
		if want := os.Getenv("INVARIANT_CHILD") == "strict" || strictBuild; Strict() != want {
			t.Errorf("strict is %v, want %v", Strict(), want)
		}
		return
	}
	for mode, value := range map[string]string{"strict": "panic", "lenient": ""} {
		cmd := exec.Command(os.Args[0], "-test.run=^(TestModes|TestCheck)$")
		cmd.Env = append(os.Environ(), "INVARIANT_CHILD="+mode, EnvVar+"="+value)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", mode, err, out)
		}
	}
}
