package consensus

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"agentdrive/internal/errs"
	"agentdrive/internal/wire"
	"agentdrive/replication/store"
)

const (
	identityName    = "IDENTITY"
	identityVersion = 1

	transportTimeout = 10 * time.Second // of one Raft message; snapshots get more by their size
	transportPool    = 3                // connections kept to each peer
)

// identity says whose directory it is.
type identity struct{ Group, Server uint32 }

// Wire implements wire.Message.
func (i *identity) Wire(c *wire.Coder) {
	c.U32(&i.Group)
	c.U32(&i.Server)
}

// Open opens the group's directory, brings the state up to the latest
// snapshot from the log, and starts Raft. Error kinds: errs.Invalid (config),
// errs.Locked, errs.Mismatch (another server's directory), errs.Corrupt (with
// file and offset; what is damaged is never skipped), errs.Version, errs.IO.
func Open(cfg Config) (*Group, error) { return openWith(cfg, logSeams{}) }

func openWith(cfg Config, seams logSeams) (*Group, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	st, err := store.Open(store.Options{Dir: filepath.Join(cfg.Dir, "state"), Log: cfg.Log, MemTable: cfg.Tuning.MemTable})
	if err != nil {
		return nil, err
	}
	g := newGroup(cfg, st) // the store's lock guards the whole directory
	if err := g.open(seams); err != nil {
		return nil, errors.Join(err, g.closeFiles())
	}
	g.run()
	return g, nil
}

func (g *Group) open(seams logSeams) error {
	if err := checkIdentity(g.cfg); err != nil {
		return err
	}
	var err error
	if g.log, err = openLog(filepath.Join(g.cfg.Dir, "log"), seams, g.state, g.failed, &g.cfg); err != nil {
		return err
	}
	if g.snaps, err = openSnaps(filepath.Join(g.cfg.Dir, "snap"), g.state, g.cfg.Log); err != nil {
		return err
	}
	g.fsm = &fsm{
		state: g.state, applier: g.cfg.Applier, snaps: g.snaps, applied: g.applied,
		log: g.cfg.Log, fail: g.failed,
	}
	if err := g.recover(); err != nil {
		return err
	}
	g.applied.advance(g.state.Applied().Index)
	return g.startRaft()
}

func checkIdentity(cfg Config) error {
	name := filepath.Join(cfg.Dir, identityName)
	want := identity{Group: cfg.Group, Server: cfg.ID}
	var got identity
	found, err := readChecked(name, identityVersion, &got)
	if err != nil {
		return err
	}
	if !found {
		return writeChecked(name, identityVersion, &want)
	}
	if got != want {
		return errs.E("consensus.open", errs.Mismatch, fmt.Sprintf("%s belongs to server %d of group %d, this is server %d of group %d",
			cfg.Dir, got.Server, got.Group, want.Server, want.Group), nil).
			WithHint("start the server with the id and data directory it had before")
	}
	return nil
}

// recover makes the state contain everything up to the latest snapshot. Raft
// takes the snapshot for the state (NoSnapshotRestoreOnStart) and would go on
// behind it, silently skipping what the state lost with its memory tables.
func (g *Group) recover() error {
	if err := g.restoreReceived(); err != nil {
		return err
	}
	first, last, err := g.logRange()
	if err != nil {
		return err
	}
	if err := g.log.check(first, last); err != nil {
		return err
	}
	applied := g.state.Applied().Index
	snap := uint64(0)
	if m := g.snaps.latest(); m != nil {
		snap = m.Index
	}
	if applied > max(last, snap) {
		return g.refuse("the state contains entry %d but the log ends at %d", applied, last)
	}
	if last > 0 && first > max(applied, snap)+1 || last > 0 && snap > 0 && last >= snap && first > snap+1 {
		return g.refuse("the state ends at entry %d, the snapshot at %d, the log begins at %d", applied, snap, first)
	}
	if err := g.replay(applied+1, snap, first, last); err != nil {
		return err
	}
	if last > 0 && last < snap {
		// A crash after a received snapshot was restored and before Raft cut
		// the log: the next entry is snap+1, and the log must not have a hole.
		return g.log.DeleteRange(first, last)
	}
	return nil
}

// restoreReceived finishes the restore of a snapshot that a leader sent.
func (g *Group) restoreReceived() error {
	m := g.snaps.latest()
	if m == nil || m.Data == "" {
		return nil
	}
	if m.Index <= g.state.Applied().Index {
		return g.snaps.restored()
	}
	g.cfg.Log.Info("finishing the restore of a received snapshot", "index", m.Index)
	f, err := g.snaps.openData(m)
	if err != nil {
		return err
	}
	if err := g.fsm.restore(f); err != nil {
		return errors.Join(errs.E("consensus.open", errs.Other, f.Name(), err).WithHint(store.HintRebuild), f.Close())
	}
	return f.Close()
}

func (g *Group) logRange() (first, last uint64, err error) {
	if first, err = g.log.FirstIndex(); err != nil {
		return 0, 0, logError("read", "the log", g.log.vfs, err)
	}
	if last, err = g.log.LastIndex(); err != nil {
		return 0, 0, logError("read", "the log", g.log.vfs, err)
	}
	return max(first, 1), last, nil
}

// replay applies the entries from..to, which the snapshot counts as applied.
func (g *Group) replay(from, to, first, last uint64) error {
	if from > to {
		return nil
	}
	if from < first || to > last {
		return g.refuse("the state ends at entry %d and the snapshot at %d, but the log has only entries %d to %d", from-1, to, first, last)
	}
	g.cfg.Log.Info("replaying the log into the state", "from", from, "to", to)
	batch := make([]*raft.Log, 0, g.cfg.Tuning.MaxAppend)
	for i := from; i <= to; i++ {
		e := new(raft.Log)
		if err := g.log.GetLog(i, e); err != nil {
			return logError(fmt.Sprintf("entry %d of", i), "the log", g.log.vfs, err)
		}
		if e.Type == raft.LogCommand || e.Type == raft.LogConfiguration {
			batch = append(batch, e)
		}
		if len(batch) == cap(batch) || i == to {
			if err := g.fsm.apply(batch, make([]any, len(batch))); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	return nil
}

// refuse is the error for a directory that has lost something: to start would
// mean to forget what was acknowledged.
func (g *Group) refuse(format string, args ...any) error {
	return errs.E("consensus.open", errs.Corrupt, g.cfg.Dir+": "+fmt.Sprintf(format, args...), nil).WithHint(store.HintRebuild)
}

// startRaft bootstraps a new group if asked to, and starts the library.
func (g *Group) startRaft() error {
	rc := g.cfg.raftConfig(g.notify)
	g.trans = g.cfg.Transport
	if g.trans == nil {
		nt := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: g.cfg.Stream, MaxPool: transportPool, Timeout: transportTimeout,
			Logger: rc.Logger, MsgpackUseNewTimeFormat: true,
		})
		g.trans, g.ownTrans = nt, nt
	}
	exists, err := raft.HasExistingState(g.log, g.log, g.snaps)
	if err != nil {
		return errs.E("consensus.open", errs.IO, "", err)
	}
	if !exists && len(g.cfg.Bootstrap) > 0 {
		var config raft.Configuration
		for _, p := range g.cfg.Bootstrap {
			config.Servers = append(config.Servers, raft.Server{
				Suffrage: raft.Voter, ID: serverID(p.ID), Address: raft.ServerAddress(p.Addr),
			})
		}
		if err := raft.BootstrapCluster(rc, g.log, g.log, g.snaps, g.trans, config); err != nil {
			return errs.E("consensus.open", errs.IO, "bootstrap", err)
		}
	}
	// Recent entries for followers come from memory.
	cache, err := raft.NewLogCache(4*g.cfg.Tuning.MaxAppend, g.log)
	if err != nil {
		return errs.E("consensus.open", errs.Invalid, "", err)
	}
	if g.raft, err = raft.NewRaft(rc, g.fsm, cache, g.log, g.snaps, g.trans); err != nil {
		return errs.E("consensus.open", errs.Other, "raft", err)
	}
	return nil
}

// closeFiles closes what open opened, in reverse.
func (g *Group) closeFiles() error {
	var all []error
	if g.ownTrans != nil {
		all = append(all, g.ownTrans.Close())
	}
	if g.log != nil {
		all = append(all, g.log.Close())
	}
	all = append(all, g.state.Close())
	return errors.Join(all...)
}
