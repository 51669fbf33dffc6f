package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"agentdrive/chunkserver/chunk"
	"agentdrive/chunkserver/chunkclient"
	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
	"agentdrive/metaserver/tree"
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
			m := newMaintainer(s, h)
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

// maintainer does the chores of one group. Lists are worked off from where the
// pass before stopped, so that what cannot be done while a server is away does
// not hold up the rest.
type maintainer struct {
	s    *Server
	h    *host
	view meta.MapReply
	up   map[chunk.ServerID]error // servers asked in this pass: nil answers
	// inited are the drives whose root is known to exist in their group.
	inited map[meta.DriveID]bool

	seen   map[meta.BlockCopy]bool          // missing copies of the pass before
	copies map[chunk.ServerID]chunk.BlockID // where the repair of a server goes on
	freed  tree.FreedKey                    // where the deletion of freed blocks goes on
	closed meta.SessionID                   // where the sweep goes on
	passes uint64
}

func newMaintainer(s *Server, h *host) *maintainer {
	return &maintainer{
		s: s, h: h, inited: map[meta.DriveID]bool{},
		seen: map[meta.BlockCopy]bool{}, copies: map[chunk.ServerID]chunk.BlockID{},
	}
}

func (m *maintainer) pass(ctx context.Context) error {
	if m.h.id == 0 {
		return m.clusterChores(ctx)
	}
	// What is to be deleted is read before the map: then the map knows every
	// server that may have it. Read the other way round, from a copy that lags,
	// it might lack the newest, whose blocks would be forgotten, not deleted.
	freed, closed, err := m.deletable()
	if err != nil {
		return err
	}
	m.up = map[chunk.ServerID]error{}
	if err := m.refreshMap(ctx, len(freed) > 0 || len(closed) > 0); err != nil {
		return err
	}
	return errors.Join(m.repair(ctx), m.deleteFreed(ctx, freed), m.sweep(ctx, closed), m.measure(ctx))
}

// deletable lists the next freed blocks and closed sessions. Both are final:
// no entry makes a freed block live or opens a closed session, so a leader
// that was deposed and does not know it yet deletes nothing that is needed.
func (m *maintainer) deletable() (freed []tree.FreedBlock, closed []state.Session, err error) {
	before := m.s.cfg.Clock.Now().Add(-freeGrace).UnixNano()
	err = m.withView(func(v kv.View) (err error) {
		if freed, err = tree.FreedBlocks(v, m.freed, before, freeBatch); err != nil {
			return err
		}
		closed, err = state.Closed(v, m.closed, sweepBatch)
		return err
	})
	m.freed, m.closed = tree.FreedKey{}, 0 // begin again, unless there is more
	if len(freed) == freeBatch {
		m.freed = freed[len(freed)-1].Key
	}
	if len(closed) == sweepBatch {
		m.closed = closed[len(closed)-1].ID
	}
	return freed, closed, err
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

// refreshMap reads the cluster map: from the leader of group 0 if it must be
// fresh, else from this server's copy.
func (m *maintainer) refreshMap(ctx context.Context, fresh bool) error {
	r := new(meta.MapReply)
	var err error
	if fresh {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		err = m.s.callGroup(ctx, 0, meta.CallMap, &meta.MapCall{Fresh: true}, r)
	} else {
		r, err = m.s.clusterMap(ctx, &meta.MapCall{})
	}
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

// ask makes a call of a chunk server. One that does not even tell its status
// is left alone for the rest of the pass, so that it does not hold up the
// others; kind errs.Unavailable.
func (m *maintainer) ask(ctx context.Context, id chunk.ServerID, fn func(context.Context, *chunkclient.Client) error) error {
	c, err := m.s.chunks.Client(id)
	if err != nil {
		return err
	}
	why, known := m.up[id]
	if !known {
		ctx, cancel := context.WithTimeout(ctx, statusTimeout)
		_, why = c.Status(ctx)
		cancel()
		if errs.Is(why, errs.Timeout) {
			why = errs.E("chunks.ask", errs.Unavailable, fmt.Sprintf("chunk server %d does not answer", id), why)
		}
		m.up[id] = why
	}
	if why != nil {
		return why
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return fn(ctx, c)
}

// away reports whether err means that a server will be asked again later.
func away(err error) bool { return errs.Is(err, errs.Unavailable) || errs.Is(err, errs.Timeout) }

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
