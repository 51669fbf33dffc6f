package cli

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"agentdrive/cmd/internal/cluster"
	"agentdrive/cmd/internal/mountd"
	"agentdrive/internal/errs"
)

const (
	statusLimit = 10 * time.Second       // for one look at the cluster
	lookEvery   = 200 * time.Millisecond // while waiting for a state
)

func runStatus(ctx context.Context, a *App, in *Input) error {
	if in.bool("wait") {
		return a.waitStatus(ctx, in)
	}
	if in.given["for"] || in.given["timeout"] {
		return usage("--for and --timeout go with --wait").WithHint("add --wait")
	}
	st, err := a.look(ctx, in)
	if st == nil {
		return err
	}
	if perr := a.printStatus(st); perr != nil {
		return perr
	}
	if err == nil && !st.Healthy {
		return degraded{}
	}
	return err
}

// waitStatus looks until the wanted state is there.
func (a *App) waitStatus(ctx context.Context, in *Input) error {
	wctx, cancel := context.WithTimeout(ctx, in.duration("timeout"))
	defer cancel()
	want := in.text("for")
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var last *Status
	var lastErr error
	for {
		st, err := a.look(wctx, in)
		if err != nil && wctx.Err() != nil && last != nil {
			st, err = last, lastErr // the end of the wait cut this look off: it tells nothing
		}
		last, lastErr = st, err
		if err == nil && reached(st, want) {
			return a.printStatus(st)
		}
		if errs.Is(err, errs.Usage) || errs.Is(err, errs.Corrupt) || errs.Is(err, errs.Version) || errs.Is(err, errs.Mismatch) {
			return err // waiting changes nothing
		}
		select {
		case <-tick.C:
			continue
		case <-wctx.Done():
		}
		msg := fmt.Sprintf("not %s after %v", want, in.duration("timeout"))
		if ctx.Err() != nil {
			return errs.E("status", errs.Interrupted, "", ctx.Err())
		}
		if st != nil && len(st.Degraded) > 0 {
			msg += ": " + strings.Join(st.Degraded, "; ")
		}
		return errs.E("status", errs.Timeout, msg, err).WithHint("`agentdrive status` shows the servers, `agentdrive logs` what they say")
	}
}

func reached(st *Status, want string) bool {
	if want == "serving" {
		return st.Serving
	}
	return st.Healthy
}

// look asks the servers and adds what this host knows. With an error there
// may still be a Status: of a local cluster that does not answer.
func (a *App) look(ctx context.Context, in *Input) (*Status, error) {
	d, err := dataDir(in)
	if err != nil {
		return nil, err
	}
	lctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	var st Status
	err = a.withCluster(in, func(c Cluster) error {
		st, err = c.Status(lctx)
		return err
	})
	if err != nil && !errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.Timeout) {
		return nil, err
	}
	if in.addrs("servers") == nil {
		config, cerr := cluster.Load(d)
		if cerr != nil {
			return nil, cerr
		}
		addServers(&st, d, config)
	} else if err != nil {
		return nil, err
	}
	if err != nil {
		st.Version, st.Healthy, st.Serving = a.Version, false, false
		st.Degraded = append(st.Degraded, "no metaserver answers")
	}
	if merr := addMounts(ctx, &st, mountd.Registry(d.Mounts())); merr != nil {
		return nil, merr
	}
	st.Degraded, st.Servers, st.Drives, st.Mounts = list(st.Degraded), list(st.Servers), list(st.Drives), list(st.Mounts)
	return &st, err
}

// addServers adds pids, and the servers that the cluster does not know of
// because they never spoke to it.
func addServers(st *Status, d cluster.Dir, config cluster.Config) {
	if st.Cluster == "" {
		st.Cluster = config.Cluster
	}
	for _, e := range config.Servers {
		i := slices.IndexFunc(st.Servers, func(s Server) bool { return s.Role == e.Role && s.ID == e.ID })
		if i < 0 {
			i = len(st.Servers)
			st.Servers = append(st.Servers, Server{Role: e.Role, ID: e.ID, Address: e.Address, State: StateDown})
		}
		if st.Servers[i].Pid == 0 {
			st.Servers[i].Pid = d.Pid(e)
		}
	}
	sort.SliceStable(st.Servers, func(i, j int) bool {
		x, y := st.Servers[i], st.Servers[j]
		if x.Role != y.Role {
			return x.Role > y.Role // metaservers first
		}
		return x.ID < y.ID
	})
	for i := range st.Servers {
		st.Servers[i].Groups = list(st.Servers[i].Groups)
	}
}

// addMounts merges this host's registry into the sessions that the servers
// know.
func addMounts(ctx context.Context, st *Status, r mountd.Registry) error {
	local, err := r.List(ctx)
	if err != nil {
		return err
	}
	for _, m := range local {
		mine := Mount{Drive: m.Drive, Path: m.Path, Dir: m.Dir, Pid: m.Pid, Session: m.Session, Mode: mode(m.ReadOnly), State: m.State, Why: m.Why}
		i := slices.IndexFunc(st.Mounts, func(o Mount) bool { return m.Session != 0 && o.Session == m.Session && o.Drive == m.Drive })
		if i < 0 {
			st.Mounts = append(st.Mounts, mine)
		} else {
			st.Mounts[i] = mine
		}
	}
	return nil
}

func mode(readOnly bool) string { return mountd.Config{ReadOnly: readOnly}.Mode() }

func (a *App) printStatus(st *Status) error {
	if a.json {
		return a.result(st, "")
	}
	var b strings.Builder
	switch {
	case st.Healthy:
		b.WriteString("healthy\n")
	case st.Serving:
		b.WriteString("DEGRADED, serving\n")
	default:
		b.WriteString("NOT SERVING\n")
	}
	for _, why := range st.Degraded {
		fmt.Fprintf(&b, "  - %s\n", why)
	}
	if st.Repair.Blocks > 0 {
		fmt.Fprintf(&b, "  repair list: %d blocks, %s\n", st.Repair.Blocks, size(st.Repair.Bytes))
	}
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprint(w, "\nSERVER\tSTATE\tPID\tADDRESS\tLEADS\n")
	for _, s := range st.Servers {
		fmt.Fprintf(w, "%s-%d\t%s\t%s\t%s\t%s\n", s.Role, s.ID, s.State, dash(s.Pid), s.Address, leads(s.Groups))
	}
	w.Flush()
	if len(st.Drives) > 0 {
		fmt.Fprint(w, "\nDRIVE\tFILES\tSIZE\tGROUP\n")
		for _, d := range st.Drives {
			fmt.Fprintf(w, "%s\t%d\t%s\t%d\n", d.Name, d.Files, size(d.Bytes), d.Group)
		}
		w.Flush()
	}
	if len(st.Mounts) > 0 {
		fmt.Fprint(w, "\nMOUNT\tDRIVE\tPATH\tMODE\tSTATE\tPID\n")
		for _, m := range st.Mounts {
			state := m.State
			if m.Why != "" {
				state += " (" + m.Why + ")"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", m.Dir, m.Drive, m.Path, m.Mode, state, dash(m.Pid))
		}
		w.Flush()
	}
	return a.print(b.String())
}

func dash(pid int) string {
	if pid == 0 {
		return "-"
	}
	return fmt.Sprint(pid)
}

func leads(groups []Group) string {
	var out []string
	for _, g := range groups {
		if g.Leader {
			out = append(out, fmt.Sprintf("group %d", g.ID))
		}
	}
	return strings.Join(out, ", ")
}
