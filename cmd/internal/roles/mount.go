package roles

import (
	"context"
	"errors"
	"sync"

	"agentdrive/cmd/internal/mountd"
	"agentdrive/fuseclient"
	"agentdrive/fuseclient/core"
	"agentdrive/fuseclient/kernel"
	"agentdrive/internal/errs"
	"agentdrive/internal/obs"
	"agentdrive/internal/rpc"
)

// Serve is a mountd.ServeFunc: it opens a session and shows it in a directory.
func (r Runner) Serve(ctx context.Context, c mountd.Config) (mountd.Filesystem, error) {
	log, err := logger(c.Log, "text", c.LogLevel)
	if err != nil {
		return nil, err
	}
	client, err := fuseclient.Open(ctx, fuseclient.Config{
		Servers: c.Servers, Network: rpc.TCP{}, Drive: c.Drive, Path: c.Path,
		CreatePath: !c.ReadOnly, ReadOnly: c.ReadOnly, Strict: c.Strict, Dir: c.Dir, AllowOther: c.AllowOther, Log: log,
	})
	if err != nil {
		return nil, err
	}
	reg := obs.NewRegistry()
	reg.RegisterProcess("mount", r.Version)
	registerClient(reg, client)
	m, err := kernel.New(client, kernel.Config{
		Dir: c.Dir, Root: client.Root().Ino, Source: "agentdrive:" + c.Drive,
		ReadOnly: c.ReadOnly, AllowOther: c.AllowOther, Logger: log, Metrics: reg, Locks: true,
	})
	if err != nil {
		ended, cancel := context.WithCancel(ctx)
		cancel() // nothing is buffered: do not wait for the servers
		return nil, errors.Join(err, client.Close(ended))
	}
	f := &filesystem{client: client, mount: m, metrics: reg, stopMetrics: func() {}}
	if c.Metrics != "" {
		ln, err := listenMetrics(c.Metrics)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		f.stopMetrics = serveMetrics(reg, ln, log)
	}
	return f, nil
}

// filesystem is a mount of ours as mountd sees it.
type filesystem struct {
	client      *fuseclient.Client
	mount       *kernel.Mount
	metrics     *obs.Registry
	stopMetrics func()
	once        sync.Once
	err         error
}

// Flush implements mountd.Filesystem.
func (f *filesystem) Flush(ctx context.Context) error { return f.client.Sync(ctx) }

// Sync implements mountd.Filesystem.
func (f *filesystem) Sync(ctx context.Context) error { return f.client.Sync(ctx) }

// Health implements mountd.Filesystem.
func (f *filesystem) Health() mountd.Health {
	h := mountd.Health{Session: uint64(f.client.Session()), State: mountd.StateMounted}
	if state, text := f.client.State(); state != core.StateReady {
		h.State, h.Why = mountd.StateWaiting, text
	}
	files, bytes := f.client.Unpublished()
	h.DirtyFiles, h.DirtyBytes = int64(files), int64(bytes)
	return h
}

// Stats implements mountd.Filesystem.
func (f *filesystem) Stats() []obs.Sample { return f.metrics.Snapshot() }

// Wait implements mountd.Filesystem.
func (f *filesystem) Wait() error {
	f.mount.Wait()
	return nil
}

// closeWait is how long the end of the session may take; the servers end it
// by themselves otherwise.
const closeWait = 2 * askTimeout

// Close implements mountd.Filesystem. A session that cannot be ended now, for
// the servers are away, ends by itself: that is no failure of the unmount.
func (f *filesystem) Close() error {
	f.once.Do(func() {
		f.stopMetrics()
		if f.err = f.mount.Abort(); f.err != nil {
			return // it may live for ever: do not wait for its end
		}
		f.mount.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), closeWait)
		defer cancel()
		if state, _ := f.client.State(); state != core.StateReady {
			cancel() // nobody listens
		}
		if err := f.client.Close(ctx); err != nil && !errs.Is(err, errs.Interrupted) {
			f.err = errors.Join(f.err, err)
		}
	})
	return f.err
}
