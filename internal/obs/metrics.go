package obs

import (
	"fmt"
	"math"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Label is one dimension of a metric. Values come from small fixed sets, not
// from users: every combination lives as long as the process.
type Label struct{ Key, Value string }

// Kind tells metrics apart.
type Kind uint8

// The kinds.
const (
	KindCounter Kind = iota
	KindGauge
	KindHistogram
)

// String is the Prometheus name of the kind.
func (k Kind) String() string {
	return [...]string{KindCounter: "counter", KindGauge: "gauge", KindHistogram: "histogram"}[k]
}

// Registry holds the metrics of a process. Safe for concurrent use.
//
// Registering a name again with the same labels returns the instrument that
// exists; with another kind, help text or bounds, or with a bad name, it is a
// programming error and panics.
type Registry struct {
	mu       sync.Mutex // guards families and their series; leaf
	families map[string]*family
}

type family struct {
	name, help string
	kind       Kind
	bounds     []float64
	series     map[string]*series // by rendered labels
}

type series struct {
	labels []Label
	metric any            // *Counter, *Gauge, *Histogram
	read   func() float64 // of a GaugeFunc or CounterFunc
}

// NewRegistry makes an empty registry.
func NewRegistry() *Registry { return &Registry{families: map[string]*family{}} }

// Counter only grows.
type Counter struct{ v atomic.Uint64 }

// Inc adds one.
func (c *Counter) Inc() { c.v.Add(1) }

// Add adds n.
func (c *Counter) Add(n uint64) { c.v.Add(n) }

// Value is the count so far.
func (c *Counter) Value() uint64 { return c.v.Load() }

// Gauge goes up and down.
type Gauge struct{ v atomic.Int64 }

// Set replaces the value.
func (g *Gauge) Set(v int64) { g.v.Store(v) }

// Add changes the value by n.
func (g *Gauge) Add(n int64) { g.v.Add(n) }

// Value is the current value.
func (g *Gauge) Value() int64 { return g.v.Load() }

// Histogram counts observations in buckets of fixed upper bounds.
type Histogram struct {
	bounds []float64
	counts []atomic.Uint64 // one more than bounds: the last has no bound
	sum    atomic.Uint64   // bits of a float64
}

// Observe counts v. NaN is not counted.
func (h *Histogram) Observe(v float64) {
	if math.IsNaN(v) {
		return
	}
	h.counts[sort.SearchFloat64s(h.bounds, v)].Add(1)
	for {
		old := h.sum.Load()
		if h.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

// ObserveDuration counts d in seconds.
func (h *Histogram) ObserveDuration(d time.Duration) { h.Observe(d.Seconds()) }

// LatencyBounds are bucket bounds from 10 microseconds to 20 seconds, in
// steps of about 2: a local upcall and a dead disk both fall inside.
func LatencyBounds() []float64 {
	var out []float64
	for base := 1e-5; base < 20; base *= 10 {
		out = append(out, base, 2*base, 5*base)
	}
	return out[:len(out)-1]
}

// SizeBounds are bucket bounds from 512 bytes to 8 MiB, in steps of 4.
func SizeBounds() []float64 {
	var out []float64
	for v := 512.0; v <= 8<<20; v *= 4 {
		out = append(out, v)
	}
	return out
}

// Counter registers a counter.
func (r *Registry) Counter(name, help string, labels ...Label) *Counter {
	s := r.register(&family{name: name, help: help, kind: KindCounter}, labels, func() any { return new(Counter) })
	c, ok := s.metric.(*Counter)
	if !ok {
		panic(fmt.Sprintf("obs: %s is registered as a function", name))
	}
	return c
}

// Gauge registers a gauge.
func (r *Registry) Gauge(name, help string, labels ...Label) *Gauge {
	s := r.register(&family{name: name, help: help, kind: KindGauge}, labels, func() any { return new(Gauge) })
	g, ok := s.metric.(*Gauge)
	if !ok {
		panic(fmt.Sprintf("obs: %s is registered as a function", name))
	}
	return g
}

// GaugeFunc registers a gauge whose value read tells. read runs at each
// snapshot, under no lock of the registry, and must be quick and safe for
// concurrent use. A second one of the same name and labels replaces the
// first.
func (r *Registry) GaugeFunc(name, help string, read func() float64, labels ...Label) {
	r.function(KindGauge, name, help, read, labels)
}

// CounterFunc is GaugeFunc for a value that only grows.
func (r *Registry) CounterFunc(name, help string, read func() float64, labels ...Label) {
	r.function(KindCounter, name, help, read, labels)
}

func (r *Registry) function(kind Kind, name, help string, read func() float64, labels []Label) {
	s := r.register(&family{name: name, help: help, kind: kind}, labels, func() any { return nil })
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.metric != nil {
		panic(fmt.Sprintf("obs: %s is registered as a plain "+kind.String(), name))
	}
	s.read = read
}

// Histogram registers a histogram with ascending upper bounds; values above
// the last go to an unbounded bucket.
func (r *Registry) Histogram(name, help string, bounds []float64, labels ...Label) *Histogram {
	if len(bounds) == 0 || !sort.Float64sAreSorted(bounds) {
		panic(fmt.Sprintf("obs: bounds of %s are empty or not ascending", name))
	}
	f := &family{name: name, help: help, kind: KindHistogram, bounds: append([]float64(nil), bounds...)}
	s := r.register(f, labels, func() any {
		return &Histogram{bounds: f.bounds, counts: make([]atomic.Uint64, len(f.bounds)+1)}
	})
	return s.metric.(*Histogram)
}

// validName reports whether s is a name in Prometheus' sense, without colons.
func validName(s string) bool {
	for i, c := range []byte(s) {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

func (r *Registry) register(f *family, labels []Label, make func() any) *series {
	if !validName(f.name) {
		panic(fmt.Sprintf("obs: bad metric name %q", f.name))
	}
	for _, l := range labels {
		if !validName(l.Key) || l.Key == "le" {
			panic(fmt.Sprintf("obs: %s: bad label name %q", f.name, l.Key))
		}
	}
	labels = append([]Label(nil), labels...)
	sort.Slice(labels, func(i, j int) bool { return labels[i].Key < labels[j].Key })
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.families[f.name]
	if known == nil {
		f.series = map[string]*series{}
		r.families[f.name] = f
		known = f
	}
	if known.kind != f.kind || known.help != f.help || fmt.Sprint(known.bounds) != fmt.Sprint(f.bounds) {
		panic(fmt.Sprintf("obs: %s registered twice with different kind, help or bounds", f.name))
	}
	key := renderLabels(labels)
	s := known.series[key]
	if s == nil {
		s = &series{labels: labels, metric: make()}
		known.series[key] = s
	}
	return s
}

// Sample is one metric at one moment.
type Sample struct {
	Name   string
	Help   string
	Kind   Kind
	Labels []Label // by key
	Value  float64 // of a counter or gauge

	// Of a histogram: Counts[i] observations were at most Bounds[i] and above
	// Bounds[i-1]; the last count has no bound.
	Bounds []float64
	Counts []uint64
	Sum    float64
}

// Count is the number of observations of a histogram.
func (s Sample) Count() uint64 {
	var n uint64
	for _, c := range s.Counts {
		n += c
	}
	return n
}

// Quantile estimates the q-quantile (0 to 1) of a histogram, evenly within a
// bucket; values beyond the last bound count as that bound. NaN when nothing
// was observed.
func (s Sample) Quantile(q float64) float64 {
	total := s.Count()
	if total == 0 {
		return math.NaN()
	}
	rank := q * float64(total)
	var below float64
	for i, c := range s.Counts {
		if i == len(s.Bounds) {
			break
		}
		if here := float64(c); here > 0 && below+here >= rank {
			low := 0.0
			if i > 0 {
				low = s.Bounds[i-1]
			}
			return low + (s.Bounds[i]-low)*(rank-below)/here
		}
		below += float64(c)
	}
	return s.Bounds[len(s.Bounds)-1]
}

// Snapshot reads all metrics, ordered by name and labels. Each value is read
// atomically; together they are not one moment.
func (r *Registry) Snapshot() []Sample {
	type item struct {
		sample Sample
		key    string
		s      *series
		read   func() float64
	}
	var items []item
	r.mu.Lock()
	for _, f := range r.families {
		for key, s := range f.series {
			items = append(items, item{Sample{Name: f.name, Help: f.help, Kind: f.kind, Labels: s.labels, Bounds: f.bounds}, key, s, s.read})
		}
	}
	r.mu.Unlock()
	sort.Slice(items, func(i, j int) bool {
		if items[i].sample.Name != items[j].sample.Name {
			return items[i].sample.Name < items[j].sample.Name
		}
		return items[i].key < items[j].key
	})
	out := make([]Sample, len(items))
	for i, it := range items {
		out[i] = it.sample
		switch m := it.s.metric.(type) {
		case *Counter:
			out[i].Value = float64(m.Value())
		case *Gauge:
			out[i].Value = float64(m.Value())
		case *Histogram:
			out[i].Counts = make([]uint64, len(m.counts))
			for b := range m.counts {
				out[i].Counts[b] = m.counts[b].Load()
			}
			out[i].Sum = math.Float64frombits(m.sum.Load())
		case nil:
			if it.read != nil { // nil for a moment while it is registered
				out[i].Value = it.read()
			}
		}
	}
	return out
}

func renderLabels(labels []Label) string {
	var b strings.Builder
	for i, l := range labels {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `%s="%s"`, l.Key, escape.Replace(l.Value))
	}
	return b.String()
}

// escape is how label values are quoted in the text format.
var escape = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
