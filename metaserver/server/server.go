// Package server runs metadata groups: it connects the pure core of each with
// Raft, the store, the network and the clock.
//
// A Server is one process's part in the cluster: a replica of every group.
// Clients speak to the leader of their drive's group over a stream of frames
// (streams.go); administrators and chunk servers use the calls in admin.go;
// servers ask each other for their terms (peers.go). Leaders do the chores of
// chores.go and repair.go.
package server

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"

	"agentdrive/internal/clock"
	"agentdrive/internal/errs"
	"agentdrive/internal/obs"
	"agentdrive/internal/rpc"
	"agentdrive/metaserver/state"
	"agentdrive/replication/consensus"
	"agentdrive/replication/members"
)

// Policy is how many copies of a block there are.
type Policy struct {
	Copies    int // R
	Quorum    int // W: durable before a block is published
	MinCopies int // fewer live members than this: writes wait
}

// Config of a Server.
type Config struct {
	ID      uint32
	Cluster [16]byte
	Dir     string // data directory, locked by the caller
	Addr    string // by which others reach this server
	Peers   []consensus.Peer
	Groups  uint32 // drive groups; default 1
	Policy  Policy // default 3, 2, 2
	Network rpc.Network
	Mux     *rpc.Mux
	Version string
	Log     *slog.Logger
	Clock   clock.Clock      // default clock.Real
	TTL     time.Duration    // life of a session; default 15 s
	Tuning  consensus.Tuning // of Raft
	Metrics *obs.Registry    // nil: nothing is measured
}

func (c *Config) setDefaults() {
	if c.Groups == 0 {
		c.Groups = 1
	}
	if c.Policy == (Policy{}) {
		c.Policy = Policy{Copies: 3, Quorum: 2, MinCopies: 2}
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Clock == nil {
		c.Clock = clock.Real{}
	}
	if c.TTL == 0 {
		c.TTL = 15 * time.Second
	}
}

// Server is one process's metadata service.
type Server struct {
	cfg    Config
	hosts  []*host // by group id: 0 is the cluster group
	peers  *peers
	chunks *members.Registry
	ctx    context.Context
	stop   context.CancelFunc
	chores sync.WaitGroup

	closeOnce sync.Once
	closeErr  error // result of the first Close
}

// Open starts every group and registers the services on gs. The caller serves
// gs and the mux, and calls Close before it stops them.
func Open(cfg Config, gs grpc.ServiceRegistrar) (*Server, error) {
	cfg.setDefaults()
	if err := checkFormat(cfg.Dir); err != nil {
		return nil, err
	}
	if err := checkGroups(cfg.Dir, cfg.Groups); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, peers: newPeers(cfg.Network)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	for g := uint32(0); g <= cfg.Groups; g++ {
		h, err := s.openGroup(g)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.hosts = append(s.hosts, h)
	}
	s.register(gs)
	s.startChores()
	return s, nil
}

func (s *Server) openGroup(id uint32) (*host, error) {
	stream := s.cfg.Mux.Raft(id)
	g, err := consensus.Open(consensus.Config{
		Group: id, ID: s.cfg.ID, Addr: s.cfg.Addr,
		Dir:       filepath.Join(s.cfg.Dir, groupDir(id)),
		Bootstrap: s.cfg.Peers,
		Stream:    stream,
		Terms:     s.peers.forGroup(id),
		Applier:   &state.Machine{Group: id},
		Tuning:    s.cfg.Tuning,
		Log:       s.cfg.Log.With("group", id),
		Metrics:   s.cfg.Metrics,
	})
	if err != nil {
		// Raft closes the stream only if it got as far as using it; open, it
		// would keep the group registered.
		return nil, errs.E("metaserver.open", errs.Other, fmt.Sprintf("group %d", id), errors.Join(err, stream.Close()))
	}
	return newHost(id, g, &s.cfg), nil
}

// Close stops the groups. Clients find another server. Calling it again
// returns the first result.
func (s *Server) Close() error {
	s.closeOnce.Do(func() { s.closeErr = s.close() })
	return s.closeErr
}

func (s *Server) close() error {
	s.stop()
	var all []error
	for _, h := range s.hosts {
		all = append(all, h.group.Shutdown())
		h.close()
	}
	s.chores.Wait()
	if s.chunks != nil {
		all = append(all, s.chunks.Close())
	}
	all = append(all, s.peers.close())
	return errors.Join(all...)
}

// Failed is closed when a group stopped itself; Err tells why. The process
// should end and be started again.
func (s *Server) Failed() <-chan struct{} {
	failed := make(chan struct{})
	var once sync.Once
	for _, h := range s.hosts {
		s.chores.Add(1)
		go func() {
			defer s.chores.Done()
			select {
			case <-h.group.Failed():
				once.Do(func() { close(failed) })
			case <-s.ctx.Done():
			}
		}()
	}
	return failed
}

// Err tells why a group stopped itself.
func (s *Server) Err() error {
	for _, h := range s.hosts {
		if err := h.group.Err(); err != nil {
			return errs.E("group", errs.Other, fmt.Sprintf("group %d stopped", h.id), err)
		}
	}
	return nil
}

// host returns the replica of a group.
func (s *Server) host(group uint32) (*host, error) {
	if group >= uint32(len(s.hosts)) {
		return nil, errs.E("group", errs.Invalid, fmt.Sprintf("no group %d; there are 0 to %d", group, len(s.hosts)-1), nil)
	}
	return s.hosts[group], nil
}

func (s *Server) clusterHex() string { return hex.EncodeToString(s.cfg.Cluster[:]) }
