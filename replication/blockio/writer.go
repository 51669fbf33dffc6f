package blockio

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
)

// Placement says where a block goes.
type Placement struct {
	PG        uint32
	Epoch     uint64 // of the placement group's map
	Members   []chunk.ServerID
	Quorum    int // durable copies after which Put returns
	MinCopies int // fewer reachable members than this: Put waits
}

func (p *Placement) check() error {
	if p.Quorum < 1 || p.MinCopies < 0 || p.need() > len(p.Members) {
		return errs.E("block.put", errs.Invalid, fmt.Sprintf("placement group %d: quorum %d, min_copies %d of %d members", p.PG, p.Quorum, p.MinCopies, len(p.Members)), nil)
	}
	for i, id := range p.Members {
		if slices.Contains(p.Members[:i], id) {
			return errs.E("block.put", errs.Invalid, fmt.Sprintf("placement group %d names server %d twice", p.PG, id), nil)
		}
	}
	return nil
}

func (p *Placement) need() int { return max(p.Quorum, p.MinCopies) }

// Ack is the state of a block's copies when Put returned. Each member is in
// exactly one list.
type Ack struct {
	PG      uint32
	Epoch   uint64
	Acked   []chunk.ServerID // durable there
	Pending []chunk.ServerID // under way; Late will tell
	Failed  []chunk.ServerID // down, full or refusing: no copy, nothing under way
}

// Late is the outcome of a copy that Put did not wait for.
type Late struct {
	Block  chunk.BlockID
	PG     uint32
	Epoch  uint64
	Member chunk.ServerID
	Err    error // nil: durable there now
}

// Waiting tells that a write cannot go on, or has been waiting for long for
// members that do not answer.
type Waiting struct {
	Block   chunk.BlockID
	PG      uint32
	Durable int   // copies so far
	Need    int   // copies wanted
	Attempt int   // how often this write has told, from 1
	Err     error // last failure of a member, nil if all are put off
}

// WriterConfig describes a Writer. Stores is required.
type WriterConfig struct {
	Stores     Stores
	OnLate     func(Late)    // called from the writer's goroutines; must not block; may be nil
	OnWaiting  func(Waiting) // called by Put, at once and whenever a pause between probes passes; must not block; may be nil
	MaxPending int64         // bytes under way to one member; more is not sent to it; default 64 MiB
	SendLimit  time.Duration // a send that takes longer counts as failed; default 30 s
	ProbeMin   time.Duration // first pause before a failed member is tried again; default 100 ms
	ProbeMax   time.Duration // longest such pause; default 5 s
}

// Writer writes blocks. Safe for concurrent use.
type Writer struct {
	cfg     WriterConfig
	members *tracker
	ctx     context.Context // ends with Close
	stop    context.CancelFunc

	mu     sync.Mutex // guards closed, and wg against Add after Wait; leaf
	closed bool
	wg     sync.WaitGroup
}

// NewWriter makes a writer.
func NewWriter(cfg WriterConfig) (*Writer, error) {
	setDefault(&cfg.MaxPending, 64<<20)
	setDefault(&cfg.SendLimit, 30*time.Second)
	setDefault(&cfg.ProbeMin, 100*time.Millisecond)
	setDefault(&cfg.ProbeMax, 5*time.Second)
	if cfg.Stores == nil || cfg.MaxPending < 0 || cfg.SendLimit < 0 || cfg.ProbeMin < 0 || cfg.ProbeMax < cfg.ProbeMin {
		return nil, errs.E("block.writer", errs.Invalid, "no stores, or impossible limits", nil)
	}
	w := &Writer{cfg: cfg, members: newTracker(cfg.ProbeMin, cfg.ProbeMax)}
	w.ctx, w.stop = context.WithCancel(context.Background())
	return w, nil
}

func setDefault[T ~int64](p *T, d T) {
	if *p == 0 {
		*p = d
	}
}

// Close cancels what is under way and waits for it; late outcomes are still
// reported. Later Puts answer errs.Unavailable.
func (w *Writer) Close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.stop()
	w.wg.Wait()
	return nil
}

// put is one Put under way; it belongs to its goroutine.
type put struct {
	w       *Writer
	g       chunk.Grant
	p       Placement
	b       chunk.Block
	results chan result // as many as members can be under way
	ctx     context.Context
	cancel  context.CancelFunc

	acked   []chunk.ServerID
	pending []chunk.ServerID
	refused map[chunk.ServerID]error // will not take this block
	lastErr error
}

type result struct {
	member chunk.ServerID
	err    error
}

// Put stores a block on the members of p and returns as soon as
// max(Quorum, MinCopies) of them have it on stable storage. Members that are
// down are tried again with back-off for as long as they are needed.
//
// Errors: errs.NoSpace, errs.Refused, errs.Exist, errs.Invalid when so many
// members refuse the block for that reason that it cannot be stored;
// errs.Canceled or errs.Timeout when ctx ends first, with the last failure as
// cause. After an error copies may exist.
//
// b.Data and b.Sums must not be modified after the call, whatever its outcome:
// a late member may still be read from them.
func (w *Writer) Put(ctx context.Context, g chunk.Grant, p Placement, b chunk.Block) (Ack, error) {
	const op = "block.put"
	if err := errors.Join(p.check(), chunk.Ended(op, ctx)); err != nil {
		return Ack{}, err
	}
	if err := b.Check(op); err != nil {
		return Ack{}, err
	}
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return Ack{}, errs.E(op, errs.Unavailable, "the writer is closed", nil)
	}
	w.wg.Add(1) // until nothing of this block is under way
	w.mu.Unlock()
	u := &put{w: w, g: g, p: p, b: b, results: make(chan result, len(p.Members)), refused: map[chunk.ServerID]error{}}
	u.ctx, u.cancel = context.WithCancel(w.ctx)
	err := u.run(ctx)
	if err != nil {
		u.cancel()
	}
	ack := u.ack()
	go u.drain(err == nil)
	return ack, err
}

// run sends until enough copies are durable.
func (u *put) run(ctx context.Context) error {
	const op = "block.put"
	attempt, tell := 0, false
	for {
		changed := u.w.members.watch() // before send, so that no change is missed
		again := u.send()
		if len(u.acked) >= u.p.need() {
			return nil
		}
		if err := u.hopeless(); err != nil {
			return err
		}
		if tell || attempt == 0 && len(u.acked)+len(u.pending) < u.p.need() {
			attempt++
			u.tellWaiting(attempt)
		}
		tell = false
		timer := time.NewTimer(u.pause(again))
		select {
		case r := <-u.results:
			u.note(r)
		case <-timer.C:
			tell = true
		case <-u.needed(changed):
		case <-ctx.Done():
			timer.Stop()
			return u.endedErr(chunk.Ended(op, ctx))
		case <-u.w.ctx.Done():
			timer.Stop()
			return errs.E(op, errs.Unavailable, "the writer is closed", u.lastErr)
		}
		timer.Stop()
	}
}

// needed is changed while more members are wanted than are under way, else
// nothing to wait for.
func (u *put) needed(changed <-chan struct{}) <-chan struct{} {
	if len(u.acked)+len(u.pending) >= u.p.need() {
		return nil
	}
	return changed
}

// endedErr explains what the write waited for when its context ended.
func (u *put) endedErr(err error) error {
	return errs.E("block.put", errs.KindOf(err), fmt.Sprintf("placement group %d: %d of %d copies of block %s durable", u.p.PG, len(u.acked), u.p.need(), u.b.ID), errors.Join(err, u.lastErr)).
		WithHint("check the chunk servers of the placement group")
}

// hopeless is an error once so many members refused the block that the others
// cannot make up the number.
func (u *put) hopeless() error {
	if len(u.p.Members)-len(u.refused) >= u.p.need() {
		return nil
	}
	var all []error
	for _, id := range u.p.Members {
		if err := u.refused[id]; err != nil {
			all = append(all, err)
		}
	}
	return errs.E("block.put", errs.KindOf(all[0]), fmt.Sprintf("placement group %d: %d of %d members refuse block %s", u.p.PG, len(all), len(u.p.Members), u.b.ID), errors.Join(all...))
}

func (u *put) tellWaiting(attempt int) {
	if f := u.w.cfg.OnWaiting; f != nil {
		f(Waiting{Block: u.b.ID, PG: u.p.PG, Durable: len(u.acked), Need: u.p.need(), Attempt: attempt, Err: u.lastErr})
	}
}

// pause is the time until the next probe is due, at most ProbeMax.
func (u *put) pause(again time.Time) time.Duration {
	if again.IsZero() {
		return u.w.cfg.ProbeMax
	}
	return max(time.Millisecond, min(time.Until(again), u.w.cfg.ProbeMax))
}

// send starts sending to every member that may take the block and has not got
// it, and returns when the next of the others may be tried.
func (u *put) send() (again time.Time) {
	size := int64(len(u.b.Data))
	for _, id := range u.p.Members {
		if slices.Contains(u.acked, id) || slices.Contains(u.pending, id) || u.refused[id] != nil {
			continue
		}
		ok, at := u.w.members.begin(id, size, u.w.cfg.MaxPending)
		if !ok {
			if !at.IsZero() && (again.IsZero() || at.Before(again)) {
				again = at
			}
			continue
		}
		u.pending = append(u.pending, id)
		go func() {
			err := u.sendTo(id)
			u.w.members.end(id, size, sendOutcome(err))
			u.results <- result{id, err}
		}()
	}
	return again
}

func (u *put) sendTo(id chunk.ServerID) error {
	s, err := u.w.cfg.Stores.Store(id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(u.ctx, u.w.cfg.SendLimit)
	defer cancel()
	return s.Put(ctx, u.g, u.b)
}

// isRefusal tells that a member is well but will not take this block.
func isRefusal(err error) bool {
	switch errs.KindOf(err) {
	case errs.NoSpace, errs.Refused, errs.Exist, errs.Invalid, errs.TooBig, errs.Version, errs.Mismatch, errs.Unsupported:
		return true
	}
	return false
}

func sendOutcome(err error) outcome {
	switch {
	case err == nil || isRefusal(err):
		return well
	case errs.Is(err, errs.Canceled):
		return unknown
	}
	return failed
}

// note takes in a result.
func (u *put) note(r result) {
	u.pending = slices.DeleteFunc(u.pending, func(id chunk.ServerID) bool { return id == r.member })
	if r.err == nil {
		u.acked = append(u.acked, r.member)
		return
	}
	u.lastErr = errs.E("block.put", errs.Other, fmt.Sprintf("chunk server %d", r.member), r.err)
	if isRefusal(r.err) {
		u.refused[r.member] = u.lastErr
	}
}

// ack describes the copies; results that are there already count.
func (u *put) ack() Ack {
	for more := true; more; {
		select {
		case r := <-u.results:
			u.note(r)
		default:
			more = false
		}
	}
	a := Ack{PG: u.p.PG, Epoch: u.p.Epoch, Acked: slices.Clone(u.acked), Pending: slices.Clone(u.pending)}
	for _, id := range u.p.Members {
		if !slices.Contains(a.Acked, id) && !slices.Contains(a.Pending, id) {
			a.Failed = append(a.Failed, id)
		}
	}
	return a
}

// drain waits for what is under way and reports it.
func (u *put) drain(report bool) {
	defer u.w.wg.Done()
	defer u.cancel()
	for range len(u.pending) {
		r := <-u.results
		if f := u.w.cfg.OnLate; f != nil && report {
			f(Late{Block: u.b.ID, PG: u.p.PG, Epoch: u.p.Epoch, Member: r.member, Err: r.err})
		}
	}
}
