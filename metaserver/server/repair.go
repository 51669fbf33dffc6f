package server

import (
	"context"
	"errors"
	"slices"
	"time"

	"agentdrive/chunkserver/chunk"
	"agentdrive/chunkserver/chunkclient"
	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
	"agentdrive/metaserver/tree"
)

// Bounds of one pass.
const (
	repairBatch   = 256
	repairBytes   = 64 << 20 // in one call, so that it ends within callTimeout
	freeBatch     = chunk.MaxPerCall
	sweepBatch    = 16
	callTimeout   = 10 * time.Second
	statusTimeout = 2 * time.Second
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
		due, err := m.due(target.ID, seen)
		if err != nil {
			return err
		}
		if len(due) > 0 {
			all = append(all, m.repairServer(ctx, target.ID, due))
		}
	}
	m.seen = seen
	return errors.Join(all...)
}

// due lists the copies that one server should pull now, and notes in seen
// those that come up.
func (m *maintainer) due(target chunk.ServerID, seen map[meta.BlockCopy]bool) ([]tree.RepairItem, error) {
	var list []tree.RepairItem
	err := m.withView(func(v kv.View) (err error) {
		list, err = tree.RepairList(v, target, m.copies[target], 2*repairBatch)
		return err
	})
	if err != nil {
		return nil, err
	}
	var due []tree.RepairItem
	full, size := false, 0
	for _, it := range list {
		c := meta.BlockCopy{ID: it.Block, Server: target}
		seen[c] = true
		if !m.seen[c] || full {
			continue
		}
		due = append(due, it)
		size += int(it.Len)
		full = len(due) == repairBatch || size >= repairBytes
	}
	switch {
	case full || len(list) == 2*repairBatch && len(due) > 0:
		m.copies[target] = due[len(due)-1].Block
	case len(list) < 2*repairBatch:
		delete(m.copies, target) // the end: begin again
	}
	return due, nil
}

// repairServer has one server pull what it lacks. A source that is away or
// turns out to lack the block is followed by the next member.
func (m *maintainer) repairServer(ctx context.Context, target chunk.ServerID, due []tree.RepairItem) error {
	left, err := m.sources(target, due)
	if err != nil {
		return err
	}
	var failed error
	for len(left) > 0 {
		by := map[chunk.ServerID][]chunk.BlockID{}
		for _, it := range due {
			if from := left[it.Block]; len(from) > 0 {
				by[from[0]] = append(by[from[0]], it.Block)
				left[it.Block] = from[1:]
			}
		}
		if len(by) == 0 {
			return failed // tried everywhere
		}
		for _, src := range m.view.ChunkServers {
			if len(by[src.ID]) == 0 {
				continue
			}
			done, err := m.pull(ctx, target, src, by[src.ID])
			for _, c := range done {
				delete(left, c.ID)
			}
			if err != nil {
				failed = err
			}
			if m.up[target] != nil {
				return nil // away: the list waits for it
			}
		}
	}
	return nil
}

// pull has target pull blocks from src, and takes those it now has off the
// list.
func (m *maintainer) pull(ctx context.Context, target chunk.ServerID, src meta.ServerInfo, ids []chunk.BlockID) ([]meta.BlockCopy, error) {
	if err := m.ask(ctx, src.ID, func(context.Context, *chunkclient.Client) error { return nil }); err != nil {
		return nil, err // else target would wait for it
	}
	var results []chunk.PullResult
	err := m.ask(ctx, target, func(ctx context.Context, c *chunkclient.Client) (err error) {
		results, err = c.Pull(ctx, m.grant(chunk.RightRead|chunk.RightWrite), src.Address, ids)
		return err
	})
	done := &state.CopiesDone{}
	for _, r := range results {
		if r.Err != nil {
			err = errs.E("repair", errs.Other, "block "+r.ID.String(), r.Err)
			continue
		}
		done.Copies = append(done.Copies, meta.BlockCopy{ID: r.ID, Server: target})
	}
	if len(done.Copies) > 0 {
		if _, err := m.h.submit(ctx, done); err != nil {
			return nil, err
		}
	}
	return done.Copies, err
}

// sources lists for each block the members that have it.
func (m *maintainer) sources(target chunk.ServerID, due []tree.RepairItem) (map[chunk.BlockID][]chunk.ServerID, error) {
	from := map[chunk.BlockID][]chunk.ServerID{}
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
					from[it.Block] = append(from[it.Block], id)
				}
			}
		}
		return nil
	})
	return from, err
}

// holders lists the servers that may have copies of a freed block: its
// members, or everyone if its epoch is none that ever was, as a faulty client
// may have claimed.
func (m *maintainer) holders(f *tree.FreedBlock) []chunk.ServerID {
	ids := m.view.Members(f.PG, f.Epoch)
	if len(ids) == 0 {
		for _, s := range m.view.ChunkServers {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// deleteFreed deletes blocks that nothing refers to, some time after their
// last extent went, and forgets those that every member has deleted.
func (m *maintainer) deleteFreed(ctx context.Context, list []tree.FreedBlock) error {
	by := map[chunk.ServerID][]chunk.BlockID{}
	for i := range list {
		for _, id := range m.holders(&list[i]) {
			by[id] = append(by[id], list[i].Key.Block)
		}
	}
	failed := map[chunk.ServerID]bool{}
	var all []error
	for id, ids := range by { // the order does not matter
		err := m.ask(ctx, id, func(ctx context.Context, c *chunkclient.Client) error {
			return c.Delete(ctx, m.grant(chunk.RightDelete), ids)
		})
		if err != nil {
			failed[id] = true
			if !away(err) {
				all = append(all, err)
			}
		}
	}
	done := &state.ForgetFreed{}
	for i := range list {
		if !slices.ContainsFunc(m.holders(&list[i]), func(id chunk.ServerID) bool { return failed[id] }) {
			done.Keys = append(done.Keys, list[i].Key)
		}
	}
	if len(done.Keys) > 0 {
		_, err := m.h.submit(ctx, done)
		all = append(all, err)
	}
	return errors.Join(all...)
}

// sweep deletes blocks that closed sessions wrote and never published. That a
// session is closed is in the applied state, so nothing of it can be published
// any more: what has no record then never will.
func (m *maintainer) sweep(ctx context.Context, closed []state.Session) error {
	var all []error
	for i := range closed {
		all = append(all, m.sweepSession(ctx, &closed[i]))
	}
	return errors.Join(all...)
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
		err = m.ask(ctx, srv.ID, func(ctx context.Context, c *chunkclient.Client) error { return m.sweepAt(ctx, se, c) })
		if away(err) {
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
func (m *maintainer) sweepAt(ctx context.Context, se *state.Session, st chunk.Store) error {
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
