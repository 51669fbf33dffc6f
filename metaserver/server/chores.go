package server

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
	"agentdrive/replication/members"
)

// Pauses of the chores. They decide how soon background work is done, never
// what is true.
const (
	retryPause = 100 * time.Millisecond
	chorePause = time.Second
	placements = 1024 // placement groups of a new cluster
)

// startChores runs the work of leaders: each group's loop does something only
// while this server leads the group.
func (s *Server) startChores() {
	s.chunks = members.New(s.cfg.Network.Dial)
	for _, h := range s.hosts {
		s.chores.Add(1)
		go func() {
			defer s.chores.Done()
			m := &maintainer{s: s, h: h, seen: map[meta.BlockCopy]bool{}, inited: map[meta.DriveID]bool{}}
			for s.pause(s.ctx, chorePause) == nil {
				if _, ok := h.group.IsLeading(); !ok {
					continue
				}
				if err := m.pass(s.ctx); err != nil && s.ctx.Err() == nil {
					s.cfg.Log.Warn("a chore failed; it is tried again", "group", h.id, "err", err)
				}
			}
		}()
	}
}

// pause waits, or tells that ctx ended.
func (s *Server) pause(ctx context.Context, d time.Duration) error {
	t := s.cfg.Clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// maintainer does the chores of one group.
type maintainer struct {
	s    *Server
	h    *host
	view meta.MapReply
	seen map[meta.BlockCopy]bool // missing copies of the pass before
	// inited are the drives whose root is known to exist in their group.
	inited map[meta.DriveID]bool
}

func (m *maintainer) pass(ctx context.Context) error {
	if m.h.id == 0 {
		return m.clusterChores(ctx)
	}
	if err := m.refreshMap(); err != nil {
		return err
	}
	return errors.Join(m.repair(ctx), m.deleteFreed(ctx), m.sweep(ctx))
}

// clusterChores gives a new cluster its record, and completes creations and
// deletions of drives that a crash interrupted.
func (m *maintainer) clusterChores(ctx context.Context) error {
	v, err := m.h.group.View()
	if err != nil {
		return err
	}
	_, formed, err := state.ReadMap(v)
	drives, err2 := state.Drives(v)
	v.Release()
	if err = errors.Join(err, err2); err != nil {
		return err
	}
	if !formed {
		p := m.s.cfg.Policy
		_, err := m.h.submit(ctx, &state.InitCluster{Cluster: state.Cluster{
			ID: m.s.cfg.Cluster, Copies: uint32(p.Copies), Quorum: uint32(p.Quorum), MinCopies: uint32(p.MinCopies),
			Groups: m.s.cfg.Groups, PGs: placements,
		}})
		return err
	}
	var all []error
	for _, d := range drives {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		if d.Deleting {
			err := m.s.finishDelete(ctx, d, false)
			if !errs.Is(err, errs.Busy) { // whoever asked has taken the mark off, or will
				all = append(all, err)
			}
		} else if !m.inited[d.ID] {
			if err = m.s.initDriveIn(ctx, driveInfo(d)); err == nil {
				m.inited[d.ID] = true
			}
			all = append(all, err)
		}
		cancel()
	}
	return errors.Join(all...)
}

// refreshMap reads the cluster map from this server's copy of group 0.
func (m *maintainer) refreshMap() error {
	r, err := m.s.clusterMap(m.s.ctx, nil)
	if err != nil {
		return err
	}
	m.view = *r
	addrs := map[chunk.ServerID]string{}
	for _, c := range r.ChunkServers {
		addrs[c.ID] = c.Address
	}
	return m.s.chunks.Set(addrs)
}

func (m *maintainer) grant(rights uint8) chunk.Grant {
	return chunk.Grant{Cluster: m.s.cfg.Cluster, Owner: chunk.Owner{Group: m.h.id}, Rights: rights}
}

func (m *maintainer) withView(fn func(kv.View) error) error {
	v, err := m.h.group.View()
	if err != nil {
		return err
	}
	defer v.Release()
	return fn(v)
}

// NewClusterID makes the id of a new cluster.
func NewClusterID() (id [16]byte, err error) {
	if _, err = rand.Read(id[:]); err != nil {
		err = errs.E("cluster.id", errs.IO, "no randomness", err)
	}
	return id, err
}
