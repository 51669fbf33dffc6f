package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"agentdrive/cmd/internal/mountd"
)

func statsCommand() *Command {
	return &Command{
		Name: "stats", Run: runStats, Summary: "show what a mount has done: requests, leases, recalls, times",
		Help: `Asks the mount's daemon. Counters count since it was mounted; what is zero is left out unless --all. Histograms show how many, and the median and the 99th percentile.

Prometheus reads the same numbers from a mount started with --metrics; every server answers GET /metrics on its own port.`,
		Args: []Arg{{Name: "DIR", Help: "the mount point"}},
		Flags: []Flag{
			dataFlag,
			{Name: "all", NoEnv: true, Help: "show zeros, too"},
			timeoutFlag("the daemon must answer by then"),
		},
		Examples: []Example{
			{"agentdrive stats /mnt/demo", ""},
			{"agentdrive stats /mnt/demo --json", "for machines"},
		},
	}
}

// stats is the answer of `stats --json`.
type stats struct {
	Dir     string          `json:"dir"`
	Waits   uint64          `json:"waits"` // replies of servers that calls of applications waited for
	Metrics []mountd.Metric `json:"metrics"`
}

func runStats(ctx context.Context, a *App, in *Input) error {
	r, dir, err := mountPoint(in)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, in.duration("timeout"))
	defer cancel()
	list, err := r.Stats(ctx, dir)
	if err != nil {
		return err
	}
	if a.json {
		out := stats{Dir: dir, Metrics: list}
		for _, m := range list {
			if m.Name == "agentdrive_client_waits_total" {
				out.Waits = uint64(m.Value)
			}
		}
		return a.result(out, "")
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "METRIC\tVALUE\t")
	for _, m := range list {
		if m.Value == 0 && m.Count == 0 && !in.bool("all") {
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t\n", metricName(&m), metricValue(&m))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return a.print(b.String())
}

// metricName is the name without what all names share, and its labels.
func metricName(m *mountd.Metric) string {
	name := strings.TrimPrefix(m.Name, "agentdrive_")
	if len(m.Labels) == 0 {
		return name
	}
	var labels []string
	for k, v := range m.Labels {
		labels = append(labels, k+"="+v)
	}
	slices.Sort(labels)
	return name + " " + strings.Join(labels, " ")
}

func metricValue(m *mountd.Metric) string {
	seconds := strings.Contains(m.Name, "_seconds")
	if m.Kind != "histogram" {
		if seconds {
			return time.Duration(m.Value * 1e9).Round(time.Microsecond).String()
		}
		return strconv.FormatFloat(m.Value, 'f', -1, 64)
	}
	if seconds {
		d := func(v float64) time.Duration { return time.Duration(v * 1e9).Round(time.Microsecond) }
		return fmt.Sprintf("%d, p50 %v, p99 %v", m.Count, d(m.P50), d(m.P99))
	}
	return fmt.Sprintf("%d, p50 %.0f, p99 %.0f", m.Count, m.P50, m.P99)
}
