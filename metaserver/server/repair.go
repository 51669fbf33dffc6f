package server

import (
	"context"
	"errors"
	"slices"
	"time"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
	"agentdrive/metaserver/tree"
)

// Bounds of one pass.
const (
	repairBatch = 256
	freeBatch   = chunk.MaxPerCall
	sweepBatch  = 16
	callTimeout = 10 * time.Second
	// freeGrace is how long a block outlives its last extent, so that readers
	// that hold an old map still find it.
	freeGrace = 30 * time.Second
)

// repair brings missing copies to the servers that lack them: each pulls from
// a member that has the block. A copy is looked at in the pass after it was
// first seen, because a slow third write reports itself meanwhile.
func (m *maintainer) repair(ctx context.Context) error {
	var all []error
	seen := map[meta.BlockCopy]bool{}
	for _, target := range m.view.ChunkServers {
		var list []tree.RepairItem
		err := m.withView(func(v kv.View) (err error) {
			list, err = tree.RepairList(v, target.ID, chunk.BlockID{}, repairBatch)
			return err
		})
		if err != nil {
			return err
		}
		due := list[:0]
		for _, it := range list {
			c := meta.BlockCopy{ID: it.Block, Server: target.ID}
			if seen[c] = true; m.seen[c] {
				due = append(due, it)
			}
		}
		if len(due) > 0 {
			all = append(all, m.repairServer(ctx, target.ID, due))
		}
	}
	m.seen = seen
	return errors.Join(all...)
}

// repairServer has one server pull what it lacks, source by source.
func (m *maintainer) repairServer(ctx context.Context, target chunk.ServerID, due []tree.RepairItem) error {
	client, err := m.s.chunks.Client(target)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := client.Status(ctx); err != nil {
		if errs.Is(err, errs.Unavailable) || errs.Is(err, errs.Timeout) {
			return nil // still away: the list waits for it
		}
		return err
	}
	bySource, err := m.sources(target, due)
	if err != nil {
		return err
	}
	var all []error
	for _, src := range m.view.ChunkServers {
		ids := bySource[src.ID]
		if len(ids) == 0 {
			continue
		}
		results, err := client.Pull(ctx, m.grant(chunk.RightRead|chunk.RightWrite), src.Address, ids)
		if err != nil {
			all = append(all, err)
			continue
		}
		done := &state.CopiesDone{}
		for _, r := range results {
			if r.Err != nil {
				all = append(all, errs.E("repair", errs.Other, "block "+r.ID.String(), r.Err))
				continue
			}
			done.Copies = append(done.Copies, meta.BlockCopy{ID: r.ID, Server: target})
		}
		if len(done.Copies) > 0 {
			_, err := m.h.submit(ctx, done)
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

// sources chooses for each block a member that has it.
func (m *maintainer) sources(target chunk.ServerID, due []tree.RepairItem) (map[chunk.ServerID][]chunk.BlockID, error) {
	by := map[chunk.ServerID][]chunk.BlockID{}
	err := m.withView(func(v kv.View) error {
		for _, it := range due {
			rec, ok, err := tree.Block(v, it.Block)
			if err != nil {
				return err
			}
			if !ok {
				continue // freed meanwhile
			}
			for _, id := range m.view.Members(it.PG, it.Epoch) {
				if id != target && !slices.Contains(rec.Missing, id) {
					by[id] = append(by[id], it.Block)
					break
				}
			}
		}
		return nil
	})
	return by, err
}

// deleteFreed deletes blocks that nothing refers to, some time after their
// last extent went, and forgets those that every member has deleted.
func (m *maintainer) deleteFreed(ctx context.Context) error {
	var list []tree.FreedBlock
	before := m.s.cfg.Clock.Now().Add(-freeGrace).UnixNano()
	err := m.withView(func(v kv.View) (err error) {
		list, err = tree.FreedBlocks(v, before, freeBatch)
		return err
	})
	if err != nil || len(list) == 0 {
		return err
	}
	by := map[chunk.ServerID][]chunk.BlockID{}
	for _, f := range list {
		for _, id := range m.view.Members(f.PG, f.Epoch) {
			by[id] = append(by[id], f.Key.Block)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	failed := map[chunk.ServerID]bool{}
	var all []error
	for _, srv := range m.view.ChunkServers {
		if len(by[srv.ID]) == 0 {
			continue
		}
		if err := m.deleteAt(ctx, srv.ID, by[srv.ID]); err != nil {
			failed[srv.ID] = true
			if !errs.Is(err, errs.Unavailable) {
				all = append(all, err)
			}
		}
	}
	done := &state.ForgetFreed{}
	for _, f := range list {
		if !slices.ContainsFunc(m.view.Members(f.PG, f.Epoch), func(id chunk.ServerID) bool { return failed[id] }) {
			done.Keys = append(done.Keys, f.Key)
		}
	}
	if len(done.Keys) > 0 {
		_, err := m.h.submit(ctx, done)
		all = append(all, err)
	}
	return errors.Join(all...)
}

func (m *maintainer) deleteAt(ctx context.Context, id chunk.ServerID, ids []chunk.BlockID) error {
	st, err := m.s.chunks.Store(id)
	if err != nil {
		return err
	}
	return st.Delete(ctx, m.grant(chunk.RightDelete), ids)
}

// sweep deletes blocks that closed sessions wrote and never published. That a
// session is closed is in the applied state, so nothing of it can be published
// any more: what has no record then never will.
func (m *maintainer) sweep(ctx context.Context) error {
	var closed []state.Session
	err := m.withView(func(v kv.View) (err error) {
		closed, err = state.Closed(v, sweepBatch)
		return err
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for _, se := range closed {
		if err := m.sweepSession(ctx, &se); err != nil {
			return err
		}
	}
	return nil
}

func (m *maintainer) sweepSession(ctx context.Context, se *state.Session) error {
	all := true
	for _, srv := range m.view.ChunkServers {
		var done bool
		err := m.withView(func(v kv.View) (err error) {
			done, err = state.IsSwept(v, se.ID, srv.ID)
			return err
		})
		if err != nil {
			return err
		}
		if done {
			continue
		}
		err = m.sweepAt(ctx, se, srv.ID)
		if errs.Is(err, errs.Unavailable) || errs.Is(err, errs.Timeout) {
			all = false // later
			continue
		}
		if err == nil {
			_, err = m.h.submit(ctx, &state.Swept{Session: se.ID, Server: srv.ID})
		}
		if err != nil {
			return err
		}
	}
	if !all {
		return nil
	}
	_, err := m.h.submit(ctx, &state.Swept{Session: se.ID})
	return err
}

// sweepAt goes through what one server has of a session.
func (m *maintainer) sweepAt(ctx context.Context, se *state.Session, id chunk.ServerID) error {
	st, err := m.s.chunks.Store(id)
	if err != nil {
		return err
	}
	owner := chunk.Owner{Group: m.h.id, Drive: uint64(se.Drive), Session: uint64(se.ID), Epoch: se.Epoch}
	for after := (chunk.BlockID{}); ; {
		page, err := st.List(ctx, m.grant(chunk.RightRead), &owner, after, chunk.MaxPerCall)
		if err != nil {
			return err
		}
		var dead []chunk.BlockID
		err = m.withView(func(v kv.View) error {
			for _, b := range page {
				after = b.ID
				ok, err := tree.BlockExists(v, b.ID)
				if err != nil {
					return err
				}
				if !ok {
					dead = append(dead, b.ID)
				}
			}
			return nil
		})
		if err == nil && len(dead) > 0 {
			err = st.Delete(ctx, m.grant(chunk.RightDelete), dead)
		}
		if err != nil || len(page) < chunk.MaxPerCall {
			return err
		}
	}
}
