package cli

import (
	"context"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"agentdrive/cmd/internal/background"
	"agentdrive/cmd/internal/cluster"
	"agentdrive/cmd/internal/mountd"
	"agentdrive/internal/errs"
)

// mountConfig reads the mount's description from the command line.
func mountConfig(in *Input, a *App) (cluster.Dir, mountd.Config, error) {
	c := mountd.Config{
		Drive: in.Args[0], Path: in.text("path"), ReadOnly: in.bool("read-only"), AllowOther: in.bool("allow-other"), Strict: in.bool("strict"),
		Log: a.Stderr, LogLevel: in.text("log-level"), LogFormat: logFormat(a), Metrics: in.text("metrics"),
	}
	if !strings.HasPrefix(c.Path, "/") || slices.Contains(strings.Split(c.Path, "/"), "..") {
		return "", c, usage("--path is %q, but must begin with / and hold no ..", c.Path)
	}
	c.Path = path.Clean(c.Path)
	d, err := dataDir(in)
	if err != nil {
		return d, c, err
	}
	if c.Dir, err = mountd.Canonical(in.Args[1]); err != nil {
		return d, c, err
	}
	if rel, err := filepath.Rel(c.Dir, string(d)); err == nil && filepath.IsLocal(rel) {
		return d, c, errs.E("mount", errs.Refused, "a mount on "+c.Dir+" would hide the data directory "+string(d), nil).
			WithHint("choose a directory beside it")
	}
	if c.Servers, err = servers(in); err != nil {
		return d, c, err
	}
	return d, c, d.Make()
}

func logFormat(a *App) string {
	if a.json {
		return "json"
	}
	return "text"
}

// mounted is the answer of `mount`.
type mounted struct {
	Mount
	Already bool `json:"already"`
}

func runMount(ctx context.Context, a *App, in *Input) error {
	notify := background.NewNotifier(in.number("ready-fd"))
	d, c, err := mountConfig(in, a)
	if err == nil {
		r := mountd.Registry(d.Mounts())
		switch {
		case in.number("ready-fd") != 0: // the starter has prepared the directory
			err = mountd.Serve(ctx, r, c, a.Serve, notify.Ready)
		case in.bool("foreground"):
			err = a.mountHere(ctx, r, c)
		default:
			return a.mountBehind(ctx, in, d, c)
		}
	}
	if err != nil {
		notify.Fail(err)
	}
	return err
}

// mountHere serves the mount in this process.
func (a *App) mountHere(ctx context.Context, r mountd.Registry, c mountd.Config) error {
	already, err := r.Prepare(ctx, c)
	if err != nil {
		return err
	}
	if already {
		return a.result(map[string]any{"already": true, "dir": c.Dir}, "%s shows drive %s already", c.Dir, c.Drive)
	}
	return mountd.Serve(ctx, r, c, a.Serve, func() { a.note("drive %s is mounted on %s", c.Drive, c.Dir) })
}

// mountBehind starts a daemon that serves the mount.
func (a *App) mountBehind(ctx context.Context, in *Input, d cluster.Dir, c mountd.Config) error {
	ctx, cancel := context.WithTimeout(ctx, in.duration("timeout"))
	defer cancel()
	args := []string{
		"mount", "--foreground", "--ready-fd", strconv.Itoa(background.ReadyFD), "--json=false",
		"--data", string(d), "--path", c.Path, "--log-level", c.LogLevel,
		"--read-only=" + strconv.FormatBool(c.ReadOnly), "--allow-other=" + strconv.FormatBool(c.AllowOther), "--strict=" + strconv.FormatBool(c.Strict),
	}
	if c.Metrics != "" {
		args = append(args, "--metrics", c.Metrics)
	}
	if in.addrs("servers") != nil {
		args = append(args, "--servers", strings.Join(c.Servers, ","))
	}
	args = append(args, "--", c.Drive, c.Dir)
	log := d.LogOf("mount-" + mountd.Key(c.Dir))
	progress := a.progress(d, "mounting")
	st, err := mountd.Registry(d.Mounts()).Start(ctx, c, background.Spec{Args: args, Log: log})
	progress()
	if err != nil {
		return a.explain(in, err)
	}
	if st.Buried {
		a.note("the daemon of an earlier mount on %s had died; that mount was taken away", c.Dir)
	}
	out := mounted{Already: st.Already, Mount: Mount{
		Drive: st.Drive, Path: st.Path, Dir: st.Dir, Pid: st.Pid, Session: st.Session, Mode: mode(st.ReadOnly), State: st.State, Why: st.Why,
	}}
	if st.Already {
		return a.result(out, "drive %s is mounted on %s already", c.Drive, c.Dir)
	}
	return a.result(out, "drive %s is mounted on %s", c.Drive, c.Dir)
}

func runUmount(ctx context.Context, a *App, in *Input) error {
	if in.bool("lazy") && in.bool("force") {
		return usage("--lazy and --force exclude each other")
	}
	mode := mountd.Plain
	switch {
	case in.bool("lazy"):
		mode = mountd.Lazy
	case in.bool("force"):
		mode = mountd.Force
	}
	r, dir, err := mountPoint(in)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, in.duration("timeout"))
	defer cancel()
	out, err := r.Umount(ctx, dir, mode)
	if err != nil {
		return err
	}
	a.tellOutcome(dir, out)
	return a.result(struct {
		Dir string `json:"dir"`
		mountd.Outcome
	}{dir, out}, "")
}

// tellOutcome says what happened to a mount, beyond the expected.
func (a *App) tellOutcome(dir string, out mountd.Outcome) {
	switch {
	case out.Dead:
		a.note("%s: its daemon had died; what it had not brought to the servers is lost, the mount is gone", dir)
	case out.DiscardedBytes > 0:
		a.note("%s: discarded %d bytes of %d files that had not reached the servers", dir, out.DiscardedBytes, out.DiscardedFiles)
	}
	switch {
	case out.Detached:
		a.note("%s: detached; still served for %s", dir, strings.Join(out.Users, ", "))
	case len(out.Users) > 0:
		a.note("%s: cut off %s", dir, strings.Join(out.Users, ", "))
	}
}

func runSync(ctx context.Context, a *App, in *Input) error {
	r, dir, err := mountPoint(in)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, in.duration("timeout"))
	defer cancel()
	if err := r.Sync(ctx, dir); err != nil {
		return err
	}
	return a.result(map[string]string{"synced": dir}, "")
}

func mountPoint(in *Input) (mountd.Registry, string, error) {
	d, err := dataDir(in)
	if err != nil {
		return "", "", err
	}
	dir, err := mountd.Canonical(in.Args[0])
	return mountd.Registry(d.Mounts()), dir, err
}
