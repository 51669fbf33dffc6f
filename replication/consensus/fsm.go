package consensus

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/hashicorp/raft"

	"agentdrive/internal/errs"
	"agentdrive/internal/wire"
	"agentdrive/replication/store"
)

// commitBytes is the size of writes after which a batch is committed early,
// between two entries, so that it stays well below one transaction of Badger.
const commitBytes = 1 << 20

// fsm applies committed entries to the store. Its methods are called by one
// goroutine at a time.
type fsm struct {
	state   *store.Store
	applier Applier
	snaps   *snapStore
	applied *appliedWait
	log     *slog.Logger
	fail    func(error) // stops the group, once

	err error // the failure; nothing is applied after it
}

var _ raft.BatchingFSM = (*fsm)(nil)

// ApplyBatch implements raft.BatchingFSM. A response is the Applier's []byte
// or an error.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	if err := f.apply(logs, out); err != nil {
		f.stop(err)
		for i, l := range logs {
			if l.Index > f.state.Applied().Index {
				out[i] = err
			}
		}
	}
	return out
}

func (f *fsm) stop(err error) {
	if f.err == nil {
		f.err = err
		f.fail(err)
	}
}

// apply carries out logs in as few commits as their size allows.
func (f *fsm) apply(logs []*raft.Log, out []any) error {
	for i := 0; i < len(logs); {
		if f.err != nil {
			return f.err
		}
		if logs[i].Index <= f.state.Applied().Index {
			i++ // the state has it: Raft hands out entries again after a restart
			continue
		}
		tx, err := f.state.Begin()
		if err != nil {
			return err
		}
		n := 0
		for i+n < len(logs) && (n == 0 || tx.Bytes() < commitBytes) {
			out[i+n] = f.one(tx, logs[i+n])
			n++
		}
		last := logs[i+n-1]
		if err := tx.Commit(last.Index, last.Term); err != nil {
			return err
		}
		f.applied.advance(last.Index)
		i += n
	}
	return nil
}

// one carries out one entry.
func (f *fsm) one(tx *store.Tx, l *raft.Log) any {
	switch l.Type {
	case raft.LogCommand:
		return f.applier.Apply(tx, l.Index, l.Term, l.Data)
	case raft.LogConfiguration:
		tx.SetMeta(metaConfig, wire.Marshal(nil, metaVersion, &committedConfig{Index: l.Index, Config: l.Data}))
	}
	return nil
}

// Apply implements raft.FSM; Raft uses ApplyBatch.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// Snapshot implements raft.FSM. The snapshot is a marker: the state is
// durable by itself, and the log store keeps what is not.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.err != nil {
		return nil, f.err
	}
	return marker{}, nil
}

type marker struct{}

// Persist implements raft.FSMSnapshot; Raft closes the sink.
func (marker) Persist(raft.SnapshotSink) error { return nil }

// Release implements raft.FSMSnapshot.
func (marker) Release() {}

// Restore implements raft.FSM: a snapshot from the leader replaces the state.
func (f *fsm) Restore(r io.ReadCloser) error {
	if f.err != nil {
		return f.err
	}
	m := f.snaps.latest()
	if at := f.state.Applied().Index; m != nil && m.Index <= at {
		f.log.Info("the state is newer than the snapshot from the leader", "applied", at, "snapshot", m.Index)
		return f.snaps.restored()
	}
	return f.restore(r)
}

func (f *fsm) restore(r io.Reader) error {
	if err := f.state.Restore(r); err != nil {
		return err
	}
	if err := f.snaps.restored(); err != nil {
		return err
	}
	at := f.state.Applied().Index
	f.log.Info("state replaced by a snapshot", "index", at)
	if o, ok := f.applier.(RestoreObserver); ok {
		v, err := f.state.View()
		if err != nil {
			return err
		}
		o.Restored(v, at)
		v.Release()
	}
	f.applied.advance(at)
	return nil
}

// appliedWait lets readers wait for an index.
type appliedWait struct {
	mu      sync.Mutex // guards the fields below
	index   uint64     // everything up to here is in the state
	stopped error
	waiters map[chan struct{}]uint64
}

func newAppliedWait(index uint64) *appliedWait {
	return &appliedWait{index: index, waiters: map[chan struct{}]uint64{}}
}

func (w *appliedWait) advance(index uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.index = max(w.index, index)
	for ch, want := range w.waiters {
		if want <= w.index {
			close(ch)
			delete(w.waiters, ch)
		}
	}
}

// stop wakes all waiters with err.
func (w *appliedWait) stop(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped == nil {
		w.stopped = err
	}
	for ch := range w.waiters {
		close(ch)
		delete(w.waiters, ch)
	}
}

func (w *appliedWait) wait(ctx context.Context, index uint64) error {
	w.mu.Lock()
	if w.index >= index || w.stopped != nil {
		defer w.mu.Unlock()
		return w.verdict(index)
	}
	ch := make(chan struct{})
	w.waiters[ch] = index
	w.mu.Unlock()
	select {
	case <-ch:
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.verdict(index)
	case <-ctx.Done():
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.waiters, ch)
		return ctxError("consensus.wait", ctx, fmt.Sprintf("entry %d not applied yet, state is at %d", index, w.index))
	}
}

// verdict is the answer for index. Precondition: w.mu held.
func (w *appliedWait) verdict(index uint64) error {
	if w.index >= index {
		return nil
	}
	return w.stopped
}

// ctxError turns the end of ctx into an error of ours.
func ctxError(op string, ctx context.Context, msg string) error {
	kind := errs.Canceled
	if ctx.Err() == context.DeadlineExceeded {
		kind = errs.Timeout
	}
	return errs.E(op, kind, msg, context.Cause(ctx))
}
