package mountd

import (
	"math"

	"agentdrive/internal/obs"
)

// Metric is one number of a mount, as `agentdrive stats` shows it. Times are
// seconds.
type Metric struct {
	Name   string            `json:"name"`
	Help   string            `json:"help"`
	Kind   string            `json:"kind"` // counter, gauge or histogram
	Labels map[string]string `json:"labels,omitempty"`
	Value  float64           `json:"value"` // of a histogram: the sum

	// Histograms only; estimates within a bucket.
	Count uint64  `json:"count,omitempty"`
	P50   float64 `json:"p50,omitempty"`
	P99   float64 `json:"p99,omitempty"`
}

// metrics turns samples into what travels to the command line. What is not a
// number counts as 0: JSON knows no other.
func metrics(samples []obs.Sample) []Metric {
	list := make([]Metric, 0, len(samples))
	for _, s := range samples {
		m := Metric{Name: s.Name, Help: s.Help, Kind: s.Kind.String(), Value: finite(s.Value)}
		for _, l := range s.Labels {
			if m.Labels == nil {
				m.Labels = map[string]string{}
			}
			m.Labels[l.Key] = l.Value
		}
		if s.Kind == obs.KindHistogram {
			m.Value, m.Count = finite(s.Sum), s.Count()
			m.P50, m.P99 = finite(s.Quantile(0.5)), finite(s.Quantile(0.99))
		}
		list = append(list, m)
	}
	return list
}

func finite(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return v
}
