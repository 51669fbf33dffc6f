// Package roles runs the servers and mounts of this program: it constructs
// each from its parts, waits, and takes it down in the reverse order.
package roles

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"time"

	"google.golang.org/grpc"

	"agentdrive/chunkserver/chunk"
	"agentdrive/chunkserver/engine"
	chunkserver "agentdrive/chunkserver/server"
	"agentdrive/cmd/internal/cluster"
	"agentdrive/internal/disk"
	"agentdrive/internal/errs"
	"agentdrive/internal/obs"
	"agentdrive/internal/rpc"

	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/metaclient"
	metaserver "agentdrive/metaserver/server"
	"agentdrive/replication/consensus"
)

// Runner runs servers. Version is shown by status.
type Runner struct {
	Version string
}

// Run is a cluster.RunFunc.
func (r Runner) Run(ctx context.Context, c cluster.ServerConfig) error {
	log, err := logger(c.Log, c.LogFormat, c.LogLevel)
	if err != nil {
		return err
	}
	log = log.With("role", c.Role, "id", c.ID)
	switch c.Role {
	case cluster.Metaserver:
		return r.metaserver(ctx, c, log)
	case cluster.Chunkserver:
		return r.chunkserver(ctx, c, log)
	}
	return errs.E("server.run", errs.Usage, "no role "+c.Role, nil)
}

// registry makes the metrics of a server.
func (r Runner) registry(role string) *obs.Registry {
	reg := obs.NewRegistry()
	reg.RegisterProcess(role, r.Version)
	return reg
}

func logger(w io.Writer, format, level string) (*slog.Logger, error) {
	if w == nil {
		w = os.Stderr
	}
	return obs.NewLogger(w, cmp.Or(format, "text"), cmp.Or(level, "info"))
}

// policy is the default policy for a number of copies.
func policy(copies int) metaserver.Policy {
	if copies == 1 {
		return metaserver.Policy{Copies: 1, Quorum: 1, MinCopies: 1}
	}
	return metaserver.Policy{Copies: copies, Quorum: copies/2 + 1, MinCopies: min(copies, 2)}
}

func (r Runner) metaserver(ctx context.Context, c cluster.ServerConfig, log *slog.Logger) (err error) {
	named := c.Cluster != [16]byte{}
	if err := claim(&c, func() ([16]byte, error) { return derivedCluster(c.Peers), nil }); err != nil {
		return err
	}
	if !named {
		if err := samePeers(c); err != nil {
			return err
		}
	}
	network := rpc.TCP{}
	ln, err := network.Listen(c.Listen)
	if err != nil {
		return err
	}
	addr := c.Listen
	var peers []consensus.Peer
	for _, p := range c.Peers {
		peers = append(peers, consensus.Peer{ID: p.ID, Addr: p.Address})
		if p.ID == c.ID {
			addr = p.Address
		}
	}
	reg := r.registry(c.Role)
	mux, err := rpc.NewMux(rpc.MuxConfig{Network: network, Cluster: c.Cluster, Server: c.ID, Advertise: addr, Log: log}, ln)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	gs := grpc.NewServer(rpc.ServerOptions()...)
	srv, err := metaserver.Open(metaserver.Config{
		ID: c.ID, Cluster: c.Cluster, Dir: c.Data, Addr: addr, Peers: peers, Groups: uint32(max(c.Groups, 1)),
		Policy: policy(c.Copies), Network: network, Mux: mux, Version: r.Version, Log: log, Metrics: reg,
	}, gs)
	if err != nil {
		return errors.Join(err, mux.Close())
	}
	served := make(chan error, 2)
	go func() { served <- gs.Serve(mux.GRPC()) }()
	go func() { served <- mux.Serve() }()
	stopMetrics := serveMetrics(reg, mux.HTTP(), log)
	defer stopMetrics()
	log.Info("metadata server started", "address", addr)
	select {
	case <-ctx.Done():
	case <-srv.Failed():
		err = srv.Err()
	case err = <-served:
	}
	err = errors.Join(err, srv.Close())
	gs.Stop()
	err = errors.Join(err, mux.Close())
	log.Info("metadata server stopped", "err", err)
	return err
}

func (r Runner) chunkserver(ctx context.Context, c cluster.ServerConfig, log *slog.Logger) (err error) {
	network := rpc.TCP{}
	var servers []string
	for _, p := range c.Peers {
		servers = append(servers, p.Address)
	}
	mc, err := metaclient.New(metaclient.Config{Servers: servers, Network: network})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mc.Close()) }()
	if err := claim(&c, func() ([16]byte, error) { return askCluster(ctx, mc) }); err != nil {
		return err
	}
	ln, err := network.Listen(c.Listen)
	if err != nil {
		return err
	}
	reg := r.registry(c.Role)
	fs := disk.Observed(disk.OS{}, diskObserver(reg))
	store, err := engine.Open(engine.Config{FS: fs, Dir: c.Data, Cluster: c.Cluster, Server: chunk.ServerID(c.ID), Log: log})
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	registerStore(reg, store)
	mux, err := rpc.NewMux(rpc.MuxConfig{Network: network, Cluster: c.Cluster, Server: c.ID, Log: log}, ln)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	srv, err := chunkserver.New(store, chunkserver.Config{Cluster: c.Cluster, Dial: network.Dial})
	if err != nil {
		return errors.Join(err, mux.Close())
	}
	gs := grpc.NewServer(rpc.ServerOptions()...)
	srv.Register(gs)
	served := make(chan error, 2)
	go func() { served <- gs.Serve(mux.GRPC()) }()
	go func() { served <- mux.Serve() }()
	stopMetrics := serveMetrics(reg, mux.HTTP(), log)
	defer stopMetrics()
	log.Info("chunk server started", "address", c.Listen)

	joined := make(chan error, 1)
	jctx, cancel := context.WithCancel(ctx)
	go func() { joined <- join(jctx, mc, c, log) }()
	scrubbed := make(chan struct{})
	go func() {
		defer close(scrubbed)
		scrub(jctx, store, log)
	}()
	select {
	case <-ctx.Done():
	case err = <-served:
	case err = <-joined:
		if err == nil {
			select {
			case <-ctx.Done():
			case err = <-served:
			}
		}
	}
	cancel()
	<-scrubbed
	gs.Stop()
	err = errors.Join(err, srv.Close(), mux.Close())
	log.Info("chunk server stopped", "err", err)
	return err
}

// Pace of the scrub: at most 2 MiB a second, so that a terabyte is read once
// in six days and no reader notices.
const (
	scrubPause = 4 * time.Second
	scrubBytes = 8 << 20
)

// scrub reads what is stored, bit by bit, and reports what has rotted.
func scrub(ctx context.Context, store *engine.Store, log *slog.Logger) {
	for pause(ctx, scrubPause) == nil {
		r, err := store.Scrub(ctx, scrubBytes)
		if err != nil && ctx.Err() == nil {
			log.Error("scrub failed", "err", err)
		}
		for _, d := range r.Bad {
			log.Error("a stored block is damaged", "file", d.File, "offset", d.Offset, "block", d.ID.String(), "err", d.Err)
		}
	}
}

// join registers a chunk server with the cluster, as long as it takes.
func join(ctx context.Context, mc *metaclient.Client, c cluster.ServerConfig, log *slog.Logger) error {
	host, err := os.Hostname()
	if err != nil {
		return errs.E("server.join", errs.IO, "host name", err)
	}
	call := &meta.RegisterCall{
		Cluster: hexID(c.Cluster),
		Server:  meta.ServerInfo{ID: chunk.ServerID(c.ID), Address: c.Listen, Host: host},
	}
	for {
		attempt, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := mc.Leader(attempt, 0, meta.CallRegister, call, new(meta.MapReply))
		cancel()
		switch {
		case err == nil:
			log.Info("joined the cluster")
			return nil
		case ctx.Err() != nil:
			return nil
		case errs.Is(err, errs.Unavailable) || errs.Is(err, errs.Timeout):
			log.Warn("cannot join the cluster yet", "err", err)
		default:
			return err
		}
	}
}
