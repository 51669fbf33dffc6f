package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"agentdrive/cmd/internal/cluster"
	"agentdrive/internal/errs"
)

// App is one run of the program.
type App struct {
	Deps
	Stdout, Stderr io.Writer
	Env            []string // "K=V"
	Terminal       bool     // Stderr is a terminal: show progress there

	json bool
}

// Run executes args (without the program's name) and returns the exit code.
// ctx ends when the user or the system asks the program to stop.
func (a *App) Run(ctx context.Context, args []string) int {
	a.json = wantsJSON(args, a.Env)
	err := a.run(ctx, args)
	var d degraded
	if errors.As(err, &d) {
		return ExitDegraded
	}
	if err != nil {
		printError(a.Stderr, err, a.json)
	}
	return ExitCode(err)
}

func (a *App) run(ctx context.Context, args []string) error {
	c, rest, err := lookup(args)
	if err != nil {
		return err
	}
	if c == nil {
		return a.noVerb(args)
	}
	in, err := parse(c, rest, a.Env)
	if err != nil {
		return err
	}
	if in.bool("help") {
		return a.print(c.help())
	}
	if err := checkEnv(a.Env); err != nil {
		return err
	}
	a.json = in.bool("json")
	return c.Run(ctx, a, in)
}

// noVerb answers a command line of flags only.
func (a *App) noVerb(args []string) error {
	switch {
	case slices.Contains(args, "--help") || slices.Contains(args, "-h"):
		return a.print(overview())
	case slices.Contains(args, "--version"):
		return a.print(a.Version + "\n")
	case len(args) > 0:
		return usage("%s needs a verb", args[0]).WithHint("see `agentdrive help`")
	}
	fmt.Fprint(a.Stderr, overview())
	return usage("no verb given").WithHint("a good start is `agentdrive up`")
}

// wantsJSON finds out how to report errors before the command line is parsed.
func wantsJSON(args, env []string) bool {
	f := Flag{Name: "json", Type: Bool}
	want := false
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, f.Env()+"="); ok {
			n, err := normalize(f, "", v)
			want = err == nil && n == "true"
		}
	}
	for _, arg := range args {
		if arg == "--" {
			break
		}
		if v, ok := strings.CutPrefix(arg, "--json"); ok {
			n, err := normalize(f, "", strings.TrimPrefix(v, "="))
			want = v == "" || err == nil && n == "true"
		}
	}
	return want
}

func (a *App) print(text string) error {
	if _, err := io.WriteString(a.Stdout, text); err != nil {
		return errs.E("", errs.IO, "standard output", err)
	}
	return nil
}

// result prints v under --json, otherwise text.
func (a *App) result(v any, format string, args ...any) error {
	if !a.json {
		if format == "" {
			return nil
		}
		return a.print(fmt.Sprintf(format, args...) + "\n")
	}
	b, err := json.Marshal(v)
	if err != nil {
		return errs.E("", errs.Other, "result", err)
	}
	return a.print(string(b) + "\n")
}

// note tells the user something on standard error, unless under --json.
func (a *App) note(format string, args ...any) {
	if !a.json {
		fmt.Fprintf(a.Stderr, format+"\n", args...)
	}
}

// dataDir is the absolute path of --data, free of symlinks if it exists.
func dataDir(in *Input) (cluster.Dir, error) {
	abs, err := filepath.Abs(in.text("data"))
	if err != nil {
		return "", errs.E("", errs.Usage, "--data", err)
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	return cluster.Dir(abs), nil
}

// servers are the metaservers' addresses: those of --servers, or of the local
// cluster.
func servers(in *Input) ([]string, error) {
	if list := in.addrs("servers"); list != nil {
		return list, nil
	}
	d, err := dataDir(in)
	if err != nil {
		return nil, err
	}
	c, err := cluster.Load(d)
	if err != nil {
		return nil, err
	}
	return c.Metaservers(), nil
}

// withCluster calls f with a client of the chosen cluster.
func (a *App) withCluster(in *Input, f func(Cluster) error) (err error) {
	list, err := servers(in)
	if err != nil {
		return err
	}
	c, err := a.Connect(list)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := c.Close(); err == nil {
			err = cerr
		}
	}()
	return a.explain(in, f(c))
}

// explain adds a way out to an error of a local cluster that does not run.
func (a *App) explain(in *Input, err error) error {
	if !errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.Timeout) || errs.HintOf(err) != "" {
		return err
	}
	hint := "see `agentdrive status`"
	if in.addrs("servers") == nil {
		hint = "is it running? `agentdrive up` starts it, `agentdrive logs` tells more"
	}
	return errs.E("", errs.Other, "", err).WithHint(hint)
}
