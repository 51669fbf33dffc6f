package server

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"agentdrive/internal/clock"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/core"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
	"agentdrive/replication/consensus"
)

// readers bounds the reads of one group that execute at once.
const readers = 16

// host runs the core of one group: one goroutine steps it; the others wait for
// Raft, disk and network on its behalf and put what they learn into its
// mailbox.
type host struct {
	id    uint32
	group *consensus.Group
	log   *slog.Logger
	clock clock.Clock
	space space

	core     *core.Server // owned by run
	mail     *mailbox[core.Event]
	proposed *mailbox[proposal]
	readGate chan struct{} // a slot for each read under way
	ctx      context.Context
	stop     context.CancelFunc
	wg       sync.WaitGroup
	metrics  *metrics    // owned by run; nil: nothing is measured
	timer    clock.Timer // owned by run
	lastNow  int64       // newest stamp given; owned by run
	term     uint64      // of the core's newest reign; owned by run

	mu      sync.Mutex // guards the fields below; leaf
	streams map[core.StreamID]*clientStream
	calls   map[core.Token]chan meta.Outcome
	last    uint64 // newest stream id and submit token
}

// proposal is an entry on its way through Raft.
type proposal struct {
	token  core.Token
	future *consensus.Future
}

func newHost(id uint32, g *consensus.Group, cfg *Config) *host {
	h := &host{
		id: id, group: g, log: cfg.Log, clock: cfg.Clock,
		core: core.New(core.Config{TTL: core.Time(cfg.TTL)}), metrics: newMetrics(cfg.Metrics, id),
		mail: newMailbox[core.Event](), proposed: newMailbox[proposal](),
		readGate: make(chan struct{}, readers),
		streams:  map[core.StreamID]*clientStream{},
		calls:    map[core.Token]chan meta.Outcome{},
	}
	h.ctx, h.stop = context.WithCancel(context.Background())
	h.spawn(h.run)
	h.spawn(h.collect)
	h.spawn(h.watchLeadership)
	return h
}

func (h *host) spawn(fn func()) {
	h.wg.Add(1)
	go func() {
		defer h.wg.Done()
		fn()
	}()
}

// close ends every stream and goroutine. The group must be shut down before:
// its futures and its leadership channel end with it.
func (h *host) close() {
	h.stop()
	h.mail.close()
	h.proposed.close()
	h.mu.Lock()
	streams := h.streams
	h.streams = map[core.StreamID]*clientStream{}
	h.mu.Unlock()
	for _, st := range streams {
		st.out.close()
	}
	h.wg.Wait()
}

// run is the only goroutine that touches the core.
func (h *host) run() {
	defer func() {
		if h.timer != nil {
			h.timer.Stop()
		}
		h.failCalls()
	}()
	for {
		events := h.mail.take()
		if events == nil {
			return
		}
		for _, ev := range events {
			switch e := ev.(type) {
			case core.BecameLeader:
				h.term = e.Term
			case batchEnd:
				ev = e.StreamFrame
				<-e.room
			}
			for _, ef := range h.core.Step(core.Time(h.clock.Mono()), ev) {
				h.do(ef)
			}
		}
		h.metrics.publish(h.core, h.clock.Mono())
	}
}

func (h *host) do(ef core.Effect) {
	switch ef := ef.(type) {
	case core.Send:
		switch f := ef.Frame.(type) {
		case *meta.NotLeader:
			// The core hears of its own reign only; Raft knows who leads now.
			f.Leader, f.Address = h.group.Leader()
		case *meta.Welcome:
			f.Now = h.wall()
		case *meta.Renewed:
			f.Now = h.wall()
		}
		if st := h.stream(ef.Stream); st != nil {
			if !st.send(ef.Frame) {
				h.log.Warn("closing the stream of a client that does not read", "group", h.id, "peer", st.peer)
				h.mail.put(core.StreamClosed{Stream: st.id})
			}
		}
	case core.CloseStream:
		if st := h.stream(ef.Stream); st != nil {
			st.out.close()
		}
	case core.Propose:
		h.propose(ef)
	case core.Confirm:
		term := h.term
		h.spawn(func() { h.mail.put(core.Confirmed{Round: ef.Round, Err: h.confirmReign(term)}) })
	case core.Read:
		h.spawnRead(func() core.Event { return core.ReadDone{Token: ef.Token, Outcome: h.read(ef)} })
	case core.ReadTouched:
		h.spawnRead(func() core.Event { return h.readTouched(ef) })
	case core.ReadSession:
		h.spawnRead(func() core.Event { return h.readSession(ef) })
	case core.FindOrphans:
		h.spawnRead(func() core.Event { return h.findOrphans() })
	case core.Submitted:
		h.finishCall(ef.Token, ef.Outcome)
	case core.Timer:
		h.setTimer(ef.At)
	case core.HandedOver:
		h.metrics.handedOver(ef.Took)
	case core.Notice:
		h.log.Info(ef.Text, "group", h.id, "session", uint64(ef.Session))
	}
}

// setTimer arranges a Tick.
func (h *host) setTimer(at core.Time) {
	if h.timer != nil {
		h.timer.Stop()
	}
	d := int64(at) - h.clock.Mono()
	h.timer = h.clock.AfterFunc(durationAtLeast(d), func() { h.mail.put(core.Tick{}) })
}

// wall is the wall clock of the entries, never backwards.
func (h *host) wall() int64 {
	h.lastNow = max(h.lastNow, h.clock.Now().UnixNano())
	return h.lastNow
}

// propose stamps an entry with the wall clock and appends it.
func (h *host) propose(ef core.Propose) {
	h.lastNow = max(h.lastNow+1, h.clock.Now().UnixNano())
	ef.Entry.Now = h.lastNow
	h.proposed.put(proposal{ef.Token, h.group.Propose(state.EncodeEntry(nil, ef.Entry))})
}

// collect reports applied entries in log order.
func (h *host) collect() {
	for {
		list := h.proposed.take()
		if list == nil {
			return
		}
		for _, p := range list {
			value, _, err := p.future.Result()
			ev := core.Applied{Token: p.token, Err: err}
			if err == nil {
				var out *state.Outcomes
				if out, ev.Err = state.DecodeOutcomes(value); ev.Err == nil {
					ev.Outcomes = out.List
				}
			}
			h.mail.put(ev)
		}
	}
}

// confirm is the read rule: leadership confirmed after the call, and all that
// was committed before it applied.
func (h *host) confirm(ctx context.Context) error { return h.confirmTerm(ctx, 0) }

// confirmTerm is confirm, in one term unless it is 0.
func (h *host) confirmTerm(ctx context.Context, want uint64) error {
	index, term, err := h.group.Confirm(ctx)
	if err == nil && want != 0 && term != want {
		err = errs.E("group.confirm", errs.NotLeader, fmt.Sprintf("asked in term %d, leading in term %d", want, term), nil)
	}
	if err != nil {
		return err
	}
	return h.group.WaitApplied(ctx, index)
}

// confirmReign confirms that this server leads in the term of the core's reign.
// After a reign lost and won again, the core may not have heard yet that its
// own is over: sessions may have ended in between that it believes alive. The
// core tries a failed confirmation again at once, so that a failure waits: no
// majority may answer for as long as a lease of Raft, without any delay.
func (h *host) confirmReign(term uint64) error {
	err := h.confirmTerm(h.ctx, term)
	if err != nil {
		t := time.NewTimer(confirmPause)
		defer t.Stop()
		select {
		case <-t.C:
		case <-h.ctx.Done():
		}
	}
	return err
}

// confirmPause is the wait behind a confirmation that failed.
const confirmPause = 20 * time.Millisecond

func (h *host) spawnRead(fn func() core.Event) {
	h.spawn(func() {
		select {
		case h.readGate <- struct{}{}:
			defer func() { <-h.readGate }()
			h.mail.put(fn())
		case <-h.ctx.Done():
		}
	})
}

func (h *host) read(ef core.Read) meta.Outcome {
	v, err := h.group.View()
	if err != nil {
		return meta.Failed(err)
	}
	defer v.Release()
	res, err := state.Read(v, ef.Drive, ef.Op)
	if err != nil {
		return meta.Failed(err)
	}
	h.space.fill(res)
	return meta.Outcome{Result: res}
}

func (h *host) readTouched(ef core.ReadTouched) core.Event {
	v, err := h.group.View()
	if err != nil {
		return core.Touched{Token: ef.Token, Err: err}
	}
	defer v.Release()
	ev := core.Touched{Token: ef.Token}
	ev.Set, ev.Err = state.Touches(v, ef.Drive, ef.Op)
	return ev
}

func (h *host) readSession(ef core.ReadSession) core.Event {
	v, err := h.group.View()
	if err != nil {
		return core.SessionRead{Token: ef.Token, Err: err}
	}
	defer v.Release()
	ev := core.SessionRead{Token: ef.Token}
	if _, ev.Result, ev.Err = state.ResumeInfo(v, ef.Session, ef.Epoch, ef.Nonce); ev.Err == nil {
		ev.Replies, ev.Err = state.Replies(v, ef.Session)
	}
	return ev
}

// orphanPage bounds the orphans read at a time.
const orphanPage = 1024

func (h *host) findOrphans() core.Event {
	list, err := h.listOrphans(false)
	if err != nil {
		h.log.Error("cannot list orphans", "group", h.id, "err", err)
	}
	return core.OrphansFound{Orphans: list}
}

// listOrphans reads the orphans of all drives of the group: those whose pins
// are known, or the others.
func (h *host) listOrphans(resolved bool) ([]core.Orphan, error) {
	v, err := h.group.View()
	if err != nil {
		return nil, err
	}
	defer v.Release()
	drives, err := state.GroupDrives(v)
	if err != nil {
		return nil, err
	}
	var out []core.Orphan
	for _, d := range drives {
		list := d.Space().Unresolved
		if resolved {
			list = d.Space().Orphans
		}
		for after := meta.Ino(0); ; {
			page, err := list(v, after, orphanPage)
			if err != nil {
				return nil, err
			}
			for _, o := range page {
				after = o.Ino
				if o.Resolved == resolved {
					out = append(out, core.Orphan{Drive: d.ID, Ino: o.Ino, Resolved: resolved, Pins: o.Pins})
				}
			}
			if len(page) < orphanPage {
				break
			}
		}
	}
	return out, nil
}

// watchLeadership turns Raft's changes into events, with the state that a new
// leader's core starts from.
func (h *host) watchLeadership() {
	for ch := range h.group.Leadership() {
		if !ch.Leading {
			id, addr := h.group.Leader()
			h.mail.put(core.LostLeadership{Leader: id, Address: addr})
			continue
		}
		ev := core.BecameLeader{Term: ch.Term}
		var err error
		if ev.Sessions, err = h.sessions(); err == nil {
			ev.Orphans, err = h.listOrphans(true)
		}
		if err != nil {
			h.log.Error("cannot read the state as a new leader; stepping down", "group", h.id, "err", err)
			if err := h.group.TransferLeadership(h.ctx); err != nil {
				h.log.Error("cannot step down", "group", h.id, "err", err)
			}
			continue
		}
		h.log.Info("leading", "group", h.id, "term", ch.Term, "sessions", len(ev.Sessions))
		h.mail.put(ev)
	}
}

func (h *host) sessions() ([]state.Session, error) {
	v, err := h.group.View()
	if err != nil {
		return nil, err
	}
	defer v.Release()
	return state.Sessions(v)
}

// submit proposes an internal operation and waits for its outcome.
func (h *host) submit(ctx context.Context, op state.Internal) (meta.Result, error) {
	ch := make(chan meta.Outcome, 1)
	h.mu.Lock()
	h.last++
	tok := core.Token(h.last)
	h.calls[tok] = ch
	h.mu.Unlock()
	h.mail.put(core.Submit{Token: tok, Op: op})
	select {
	case o := <-ch:
		return o.Unpack()
	case <-ctx.Done():
		h.mu.Lock()
		delete(h.calls, tok)
		h.mu.Unlock()
		return nil, contextError("group.submit", ctx)
	case <-h.ctx.Done():
		return nil, errs.E("group.submit", errs.Unavailable, "the server is shutting down", nil)
	}
}

func (h *host) finishCall(tok core.Token, o meta.Outcome) {
	h.mu.Lock()
	ch := h.calls[tok]
	delete(h.calls, tok)
	h.mu.Unlock()
	if ch != nil {
		ch <- o
	}
}

func (h *host) failCalls() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for tok, ch := range h.calls {
		ch <- meta.Failed(errs.E("group.submit", errs.Unavailable, "the server is shutting down", nil))
		delete(h.calls, tok)
	}
}

func contextError(op string, ctx context.Context) error {
	if ctx.Err() == context.DeadlineExceeded {
		return errs.E(op, errs.Timeout, "", ctx.Err())
	}
	return errs.E(op, errs.Canceled, "", ctx.Err())
}

func (h *host) leadingError() error {
	id, addr := h.group.Leader()
	return errs.E("group", errs.NotLeader, fmt.Sprintf("group %d is led by server %d", h.id, id), nil).WithHint(addr)
}
