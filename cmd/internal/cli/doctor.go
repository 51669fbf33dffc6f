package cli

import (
	"context"
	"fmt"
	"runtime"
	"strings"

	"agentdrive/cmd/internal/cluster"
	"agentdrive/cmd/internal/doctor"
	"agentdrive/internal/errs"
)

func runVersion(_ context.Context, a *App, _ *Input) error {
	return a.result(map[string]string{
		"version": a.Version, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH,
	}, "agentdrive %s (%s, %s/%s)", a.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func runDoctor(ctx context.Context, a *App, in *Input) error {
	d, err := dataDir(in)
	if err != nil {
		return err
	}
	report := doctor.Examine(doctor.ThisHost(string(d)))
	report.Findings = append(report.Findings, examineData(ctx, d))
	if a.json {
		err = a.result(report, "")
	} else {
		err = a.print(reportText(report))
	}
	if err == nil && report.Missing() > 0 {
		err = errs.E("doctor", errs.Other, fmt.Sprintf("%d required things are missing", report.Missing()), nil).
			WithHint("the report says what to do about each")
	}
	return err
}

// examineData looks at the data directory.
func examineData(ctx context.Context, d cluster.Dir) doctor.Finding {
	f := doctor.Finding{Name: "data directory", State: doctor.OK}
	c, err := cluster.Load(d)
	switch {
	case errs.Is(err, errs.NotExist):
		f.Detail, f.Todo = fmt.Sprintf("%s holds no cluster", d), "`agentdrive up` makes one"
		f.State = doctor.Note
	case err != nil:
		f.State, f.Detail, f.Todo = doctor.Warn, err.Error(), errs.HintOf(err)
	default:
		f.Detail = fmt.Sprintf("%s: cluster of %d nodes", d, c.Nodes)
		if st, err := cluster.Ask(ctx, d); err == nil {
			f.Detail += fmt.Sprintf(", running as process %d", st.Pid)
		} else {
			f.Detail += ", not running"
			f.State, f.Todo = doctor.Note, "`agentdrive up` starts it"
		}
	}
	return f
}

func reportText(r doctor.Report) string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%-8s %s: %s\n", f.State, f.Name, f.Detail)
		if f.Todo != "" {
			fmt.Fprintf(&b, "         -> %s\n", f.Todo)
		}
	}
	fmt.Fprintf(&b, "\nKernel features (this is %s):\n", r.Kernel)
	for _, k := range r.Features {
		mark := "no "
		if k.Here {
			mark = "yes"
		}
		fmt.Fprintf(&b, "  %s  %-22s since %-5s %s\n", mark, k.Name, k.Since, k.For)
	}
	return b.String()
}
