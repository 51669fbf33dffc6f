package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"agentdrive/cmd/internal/background"
	"agentdrive/cmd/internal/cluster"
	"agentdrive/cmd/internal/lockfile"
	"agentdrive/cmd/internal/mountd"
	"agentdrive/internal/errs"
)

// settle is how long `up` waits, once the cluster serves, for its last
// servers: a cluster that starts whole is reported ready whole, one that lost
// a server is ready all the same.
const settle = 10 * time.Second

func checkNodes(n int) error {
	switch {
	case n == 2:
		return usage("--nodes 2 survives no loss that --nodes 1 does not: a majority of two is two").WithHint("use --nodes 3")
	case n > cluster.MaxNodes:
		return usage("--nodes %d is too many for one machine, the limit is %d", n, cluster.MaxNodes)
	}
	return nil
}

func runUp(ctx context.Context, a *App, in *Input) error {
	nodes := in.number("nodes")
	if err := checkNodes(nodes); err != nil {
		return err
	}
	if n := in.number("groups"); n > cluster.MaxGroups {
		return usage("--groups %d is too many, the limit is %d", n, cluster.MaxGroups)
	}
	d, err := dataDir(in)
	if err != nil {
		return err
	}
	notify := background.NewNotifier(in.number("ready-fd"))
	if in.bool("detach") {
		return a.detach(ctx, in, d, nodes)
	}
	err = a.supervise(ctx, in, d, notify)
	if err != nil {
		notify.Fail(err)
	}
	return err
}

// supervise runs the cluster in this process.
func (a *App) supervise(ctx context.Context, in *Input, d cluster.Dir, notify *background.Notifier) error {
	s, err := cluster.Open(ctx, cluster.Options{
		Data: string(d), Nodes: in.number("nodes"), Groups: in.number("groups"), NoRespawn: in.bool("no-respawn"),
		ReadyTimeout: in.duration("timeout"), LogLevel: in.text("log-level"),
		Run: a.Deps.Run, Args: serverArgs, Up: a.awaitServing, Hope: hope, Log: a.Stderr,
	})
	if err != nil {
		return err
	}
	c := s.Config()
	if c.Nodes == 1 {
		a.note("one node: ONE copy of everything is kept, in %s (--nodes 3 keeps three)", d)
	}
	return s.Run(ctx, func() {
		if err := a.sayReady(d, c.Nodes, os.Getpid()); err != nil {
			a.note("agentdrive: %v", err) // nobody reads; the cluster serves on
		}
		notify.Ready()
	})
}

// sayReady prints the line that scripts wait for.
func (a *App) sayReady(d cluster.Dir, nodes, pid int) error {
	return a.result(map[string]any{"ready": true, "data": d, "nodes": nodes, "copies": min(nodes, 3), "pid": pid}, "ready")
}

// detach starts the supervisor in the background, unless it runs already.
func (a *App) detach(ctx context.Context, in *Input, d cluster.Dir, nodes int) error {
	if err := d.Make(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, in.duration("timeout")+settle)
	defer cancel()
	if _, held, err := lockfile.Held(d.Lock()); err != nil {
		return err
	} else if held {
		if st, err := cluster.Ask(ctx, d); err == nil {
			return a.runningAlready(ctx, d, nodes, st)
		}
	}
	args := []string{
		"up", "--data", string(d), "--detach=false", "--json=false", "--ready-fd", strconv.Itoa(background.ReadyFD),
		"--timeout", in.text("timeout"), "--log-level", in.text("log-level"),
		"--no-respawn=" + strconv.FormatBool(in.bool("no-respawn")),
	}
	if nodes > 0 {
		args = append(args, "--nodes", strconv.Itoa(nodes))
	}
	if groups := in.number("groups"); groups > 0 {
		args = append(args, "--groups", strconv.Itoa(groups))
	}
	progress := a.progress(d, "starting")
	pid, err := background.Start(ctx, background.Spec{Args: args, Log: d.LogOf("up")})
	progress()
	if err != nil {
		return err
	}
	c, err := cluster.Load(d)
	if err != nil {
		return err
	}
	if c.Nodes == 1 {
		a.note("one node: ONE copy of everything is kept, in %s (--nodes 3 keeps three)", d)
	}
	return a.sayReady(d, c.Nodes, pid)
}

func (a *App) runningAlready(ctx context.Context, d cluster.Dir, nodes int, st cluster.State) error {
	if nodes != 0 && nodes != st.Nodes {
		return errs.E("up", errs.Refused, fmt.Sprintf("it runs already, with --nodes %d", st.Nodes), nil).
			WithHint("the number of nodes is chosen once; use another --data directory for a new cluster")
	}
	a.note("it runs already, as process %d", st.Pid)
	if err := cluster.WaitReady(ctx, d); err != nil {
		return err
	}
	return a.sayReady(d, st.Nodes, st.Pid)
}

// progress shows on a terminal that something is going on, until the returned
// function is called.
func (a *App) progress(d cluster.Dir, what string) (done func()) {
	if !a.Terminal || a.json {
		return func() {}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for begin := time.Now(); ; {
			select {
			case <-stop:
				fmt.Fprint(a.Stderr, "\r\033[K")
				return
			case now := <-tick.C:
				fmt.Fprintf(a.Stderr, "\r\033[K%s ... %ds (logs in %s)", what, int(now.Sub(begin).Seconds()), d.Logs())
			}
		}
	}()
	return func() { close(stop); <-stopped }
}

// awaitServing returns when the cluster serves, and all its servers are up or
// had time to come.
func (a *App) awaitServing(ctx context.Context, c cluster.Config) error {
	client, err := a.Connect(c.Metaservers())
	if err != nil {
		return err
	}
	defer client.Close()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var serving time.Time
	var last error
	for {
		lctx, cancel := context.WithTimeout(ctx, statusLimit)
		st, err := client.Status(lctx)
		cancel()
		switch {
		case err == nil && st.Healthy:
			return nil
		case err == nil && st.Serving && serving.IsZero():
			serving = time.Now()
		case err == nil && st.Serving && time.Since(serving) > settle:
			return nil
		case err == nil:
			last = errs.E("", errs.Timeout, strings.Join(st.Degraded, "; "), nil)
		default:
			last = err
		}
		select {
		case <-ctx.Done():
			return errs.E("up", errs.Timeout, "it does not serve in time", last).WithHint("`agentdrive logs` tells more; --timeout gives it longer")
		case <-tick.C:
		}
	}
}

// serverArgs is the command line of a child server.
func serverArgs(c cluster.ServerConfig) []string {
	var peers []string
	for _, p := range c.Peers {
		if c.Role == cluster.Metaserver {
			peers = append(peers, fmt.Sprintf("%d=%s", p.ID, p.Address))
		} else {
			peers = append(peers, p.Address)
		}
	}
	args := []string{
		c.Role, "--data", c.Data, "--listen", c.Listen, "--id", strconv.FormatUint(uint64(c.ID), 10),
		"--peers", strings.Join(peers, ","), "--cluster", fmt.Sprintf("%x", c.Cluster),
		"--log-level", c.LogLevel, "--json=false", "--parent-fd", strconv.Itoa(cluster.ParentFD),
	}
	if c.Role == cluster.Metaserver {
		args = append(args, "--copies", strconv.Itoa(c.Copies), "--groups", strconv.Itoa(max(c.Groups, 1)))
	}
	return args
}

// stopped is the answer of `down`.
type stopped struct {
	Stopped bool                      `json:"stopped"` // something ran
	Mounts  map[string]mountd.Outcome `json:"mounts"`  // by directory
}

func runDown(ctx context.Context, a *App, in *Input) error {
	d, err := dataDir(in)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, in.duration("timeout"))
	defer cancel()
	mode := mountd.Stop
	if in.bool("force") {
		mode = mountd.Force
	}
	mounts, err := mountd.Registry(d.Mounts()).StopAll(ctx, mode)
	for dir, out := range mounts {
		a.tellOutcome(dir, out)
	}
	if err != nil {
		if errs.Is(err, errs.Timeout) {
			err = errs.E("down", errs.Timeout, "a mount cannot flush its buffered writes; nothing more was stopped", err).
				WithHint("start the servers again with `agentdrive up`, or discard those writes with `agentdrive down --force`")
		}
		return err
	}
	ran, err := cluster.Down(ctx, d)
	if err != nil {
		return err
	}
	text := "stopped"
	if !ran {
		text = "nothing was running"
	}
	return a.result(stopped{ran, mounts}, "%s", text)
}

func runLogs(ctx context.Context, a *App, in *Input) error {
	d, err := dataDir(in)
	if err != nil {
		return err
	}
	role := ""
	if len(in.Args) > 0 {
		role = in.Args[0]
	}
	files, err := cluster.LogFiles(d, role)
	if err != nil {
		return err
	}
	last := ""
	r := cluster.LogReader{Lines: in.number("lines"), Emit: func(file, line string) error {
		name := strings.TrimSuffix(filepath.Base(file), ".log")
		if a.json {
			return a.result(map[string]string{"log": name, "line": line}, "")
		}
		if len(files) > 1 && last != file {
			last = file
			if _, err := io.WriteString(a.Stdout, "==> "+name+" <==\n"); err != nil {
				return errs.E("logs", errs.IO, "", err)
			}
		}
		return a.print(line + "\n")
	}}
	return r.Print(ctx, files, in.bool("follow"))
}
