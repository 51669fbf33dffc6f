package fuseclient

import (
	"log/slog"

	"agentdrive/fuseclient/core"
	"agentdrive/fuseclient/ring"
	"agentdrive/internal/errs"
	"agentdrive/internal/wire"
	"agentdrive/metaserver/meta"
)

// ringBytes holds the log at its bound (16 MiB of records in the core) with the
// results beside it. Memory is used as far as the log ever was long.
const ringBytes = 64 << 20

// recorder keeps local operations and their results in memory that outlives the
// process, before their replies reach the kernel. All methods are called under
// the runner's lock. A nil recorder keeps nothing.
type recorder struct {
	ring    *ring.Ring
	log     *slog.Logger
	pending []core.Logged // of this step, without an answer so far
	op, res []byte        // buffers
	failed  bool          // told once
}

// newRecorder makes the ring. Without one the mount works, but its log dies with
// its process: that is said, and no reason to refuse.
func newRecorder(log *slog.Logger) *recorder {
	r, err := ring.Create(ringBytes)
	if err != nil {
		log.Warn("the log of this mount will not outlive its process", "err", err)
		return nil
	}
	return &recorder{ring: r, log: log}
}

// logged takes an operation; what was pending before has no answer of its own.
func (k *recorder) logged(ef core.Logged) {
	if k != nil {
		k.pending = append(k.pending, ef)
	}
}

// answered records what is pending. The answer belongs to the last operation:
// those before it, such as data that it depends on, are part of the same
// request and have no result.
func (k *recorder) answered(unique uint64, a *core.Answer) {
	if k == nil || len(k.pending) == 0 {
		return
	}
	for i, ef := range k.pending {
		if last := i == len(k.pending)-1; last {
			k.append(ef, unique, a)
		} else {
			k.append(ef, 0, nil)
		}
	}
	k.pending = k.pending[:0]
}

// stepped records what no answer followed in a step.
func (k *recorder) stepped() {
	if k == nil {
		return
	}
	for _, ef := range k.pending {
		k.append(ef, 0, nil)
	}
	clear(k.pending)
	k.pending = k.pending[:0]
}

func (k *recorder) append(ef core.Logged, unique uint64, a *core.Answer) {
	k.op = wire.Marshal(k.op[:0], meta.FrameVersion, &ef.Record)
	k.res = k.res[:0]
	if a != nil {
		k.res = appendOutcome(k.res, a)
	}
	err := k.ring.Append(ring.Record{Kind: ring.Local, Unique: unique, Seq: ef.Seq, Op: k.op, Result: k.res})
	if err != nil && !k.failed {
		k.failed = true
		k.log.Error("an operation could not be kept for a later daemon of this mount", "seq", ef.Seq, "err", err)
	}
}

// appendOutcome encodes an answer if it is one of the servers' vocabulary.
func appendOutcome(dst []byte, a *core.Answer) []byte {
	var o meta.Outcome
	if a.Err != nil {
		o = meta.Failed(a.Err)
	} else if res, ok := a.Result.(meta.Result); ok {
		o.Result = res
	} else {
		return dst
	}
	return wire.Marshal(dst, meta.FrameVersion, &o)
}

// gone gives records back.
func (k *recorder) gone(seq uint64) {
	if k != nil {
		k.ring.DoneUpTo(seq)
	}
}

// close gives the memory back.
func (k *recorder) close() error {
	if k == nil {
		return nil
	}
	if err := k.ring.Close(); err != nil {
		return errs.E("mount.close", errs.Other, "log ring", err)
	}
	return nil
}
