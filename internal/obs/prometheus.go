package obs

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// ContentType is what an HTTP answer made by WritePrometheus declares.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// WritePrometheus writes all metrics in Prometheus' text format.
func (r *Registry) WritePrometheus(w io.Writer) error {
	b := bufio.NewWriter(w)
	last := ""
	for _, s := range r.Snapshot() {
		if s.Name != last {
			help := strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(s.Help)
			fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", s.Name, help, s.Name, s.Kind)
			last = s.Name
		}
		labels := renderLabels(s.Labels)
		if s.Kind != KindHistogram {
			fmt.Fprintf(b, "%s%s %s\n", s.Name, braced(labels), number(s.Value))
			continue
		}
		writeHistogram(b, s, labels)
	}
	return b.Flush() // bufio keeps the first error of the writes above
}

func writeHistogram(b *bufio.Writer, s Sample, labels string) {
	sep := ""
	if labels != "" {
		sep = ","
	}
	var total uint64
	for i, c := range s.Counts {
		total += c
		bound := math.Inf(1)
		if i < len(s.Bounds) {
			bound = s.Bounds[i]
		}
		fmt.Fprintf(b, "%s_bucket{%s%sle=\"%s\"} %d\n", s.Name, labels, sep, number(bound), total)
	}
	fmt.Fprintf(b, "%s_sum%s %s\n", s.Name, braced(labels), number(s.Sum))
	fmt.Fprintf(b, "%s_count%s %d\n", s.Name, braced(labels), total)
}

func braced(labels string) string {
	if labels == "" {
		return ""
	}
	return "{" + labels + "}"
}

func number(v float64) string {
	if math.IsInf(v, 1) {
		return "+Inf"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}
