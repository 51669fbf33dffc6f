package obs

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"agentdrive/internal/errs"
)

func TestNewLogger(t *testing.T) {
	var buf bytes.Buffer
	log, err := NewLogger(&buf, FormatJSON, "WARN")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("unseen")
	if buf.Len() != 0 {
		t.Fatalf("info was written at level warn: %s", buf.String())
	}
	log.Warn("seen", "err", errs.E("op", errs.Busy, "taken", errors.New("cause")).WithHint("wait"))
	var got struct {
		Msg string
		Err struct{ Msg, Kind, Hint string }
	}
	if err := json.Unmarshal(buf.Bytes(), &got); err != nil {
		t.Fatalf("%v in %s", err, buf.String())
	}
	if got.Msg != "seen" || got.Err.Msg != "op: taken: cause" || got.Err.Kind != "busy" || got.Err.Hint != "wait" {
		t.Errorf("record is %+v", got)
	}
	buf.Reset()
	log, err = NewLogger(&buf, FormatText, "debug")
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("x", "n", 1)
	if !strings.Contains(buf.String(), "level=DEBUG") || !strings.Contains(buf.String(), "n=1") {
		t.Errorf("text record is %q", buf.String())
	}
	for _, c := range [][2]string{{"xml", "info"}, {"text", "loud"}, {"text", ""}} {
		if _, err := NewLogger(&buf, c[0], c[1]); !errs.Is(err, errs.Usage) || errs.HintOf(err) == "" {
			t.Errorf("NewLogger(%q, %q): %v", c[0], c[1], err)
		}
	}
}

func TestWritePrometheus(t *testing.T) {
	r := NewRegistry()
	ops := r.Counter("ad_ops_total", "operations", Label{"op", "mk\"dir\n"}, Label{"a", `\`})
	r.Counter("ad_ops_total", "operations", Label{"op", "link"}) // zero from the start
	g := r.Gauge("ad_sessions", `back\slash`)
	r.GaugeFunc("ad_load", "load", func() float64 { return 0.5 })
	h := r.Histogram("ad_seconds", "time", []float64{0.1, 1}, Label{"op", "x"})
	ops.Inc()
	ops.Add(2)
	g.Set(5)
	g.Add(-7)
	h.ObserveDuration(100 * time.Millisecond) // on the bound: belongs to it
	h.Observe(0.5)
	h.Observe(2)
	h.Observe(math.NaN())
	var buf bytes.Buffer
	if err := r.WritePrometheus(&buf); err != nil {
		t.Fatal(err)
	}
	want := `# HELP ad_load load
# TYPE ad_load gauge
ad_load 0.5
# HELP ad_ops_total operations
# TYPE ad_ops_total counter
ad_ops_total{a="\\",op="mk\"dir\n"} 3
ad_ops_total{op="link"} 0
# HELP ad_seconds time
# TYPE ad_seconds histogram
ad_seconds_bucket{op="x",le="0.1"} 1
ad_seconds_bucket{op="x",le="1"} 2
ad_seconds_bucket{op="x",le="+Inf"} 3
ad_seconds_sum{op="x"} 2.6
ad_seconds_count{op="x"} 3
# HELP ad_sessions back\\slash
# TYPE ad_sessions gauge
ad_sessions -2
`
	if buf.String() != want {
		t.Errorf("got\n%s\nwant\n%s", buf.String(), want)
	}
	if err := r.WritePrometheus(failingWriter{}); err == nil {
		t.Error("a failed write was not reported")
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("gone") }

func TestRegisterAgain(t *testing.T) {
	r := NewRegistry()
	a := r.Counter("c_total", "h", Label{"x", "1"}, Label{"y", "2"})
	if b := r.Counter("c_total", "h", Label{"y", "2"}, Label{"x", "1"}); a != b {
		t.Error("the same labels in another order made another counter")
	}
	if b := r.Counter("c_total", "h", Label{"x", "2"}); a == b {
		t.Error("other labels gave the same counter")
	}
	r.GaugeFunc("f", "h", func() float64 { return 1 })
	r.Histogram("h", "h", []float64{1})
	for name, f := range map[string]func(){
		"other kind":      func() { r.Gauge("c_total", "h") },
		"other help":      func() { r.Counter("c_total", "other") },
		"other bounds":    func() { r.Histogram("h", "h", []float64{2}) },
		"no bounds":       func() { r.Histogram("h2", "h", nil) },
		"unsorted bounds": func() { r.Histogram("h3", "h", []float64{2, 1}) },
		"bad name":        func() { r.Counter("a b", "h") },
		"bad label":       func() { r.Counter("d_total", "h", Label{"1", ""}) },
		"reserved label":  func() { r.Histogram("h4", "h", []float64{1}, Label{"le", "1"}) },
		"function":        func() { r.Gauge("f", "h") },
	} {
		if !panics(f) {
			t.Errorf("%s: no panic", name)
		}
	}
}

func panics(f func()) (yes bool) {
	defer func() { yes = recover() != nil }()
	f()
	return false
}

func TestConcurrent(t *testing.T) {
	r := NewRegistry()
	const workers, rounds = 8, 1000
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range rounds {
				r.Counter("n_total", "h").Inc()
				r.Histogram("s", "h", LatencyBounds()).Observe(0.001)
			}
		})
	}
	for range 50 {
		r.Snapshot()
	}
	wg.Wait()
	for _, s := range r.Snapshot() {
		switch s.Name {
		case "n_total":
			if s.Value != workers*rounds {
				t.Errorf("counter is %v", s.Value)
			}
		case "s":
			if s.Count() != workers*rounds || math.Abs(s.Sum-workers*rounds*0.001) > 1e-6 {
				t.Errorf("histogram has %d, sum %v", s.Count(), s.Sum)
			}
		}
	}
}

func TestQuantile(t *testing.T) {
	s := Sample{Kind: KindHistogram, Bounds: []float64{1, 2, 4}, Counts: []uint64{10, 10, 0, 1}}
	for _, c := range []struct{ q, want float64 }{{0, 0}, {5.0 / 21, 0.5}, {10.0 / 21, 1}, {15.0 / 21, 1.5}, {1, 4}} {
		if got := s.Quantile(c.q); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("quantile %v is %v, want %v", c.q, got, c.want)
		}
	}
	if !math.IsNaN((Sample{Bounds: []float64{1}, Counts: []uint64{0, 0}}).Quantile(0.5)) {
		t.Error("the quantile of nothing is a number")
	}
}

func TestBounds(t *testing.T) {
	lat := LatencyBounds()
	if lat[0] != 1e-5 || math.Abs(lat[len(lat)-1]-20) > 1e-6 {
		t.Errorf("latency bounds run from %v to %v", lat[0], lat[len(lat)-1])
	}
	size := SizeBounds()
	if size[0] != 512 || size[len(size)-1] != 8<<20 {
		t.Errorf("size bounds run from %v to %v", size[0], size[len(size)-1])
	}
}
