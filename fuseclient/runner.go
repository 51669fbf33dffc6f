package fuseclient

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"agentdrive/chunkserver/chunk"
	"agentdrive/fuseclient/core"
	"agentdrive/fuseclient/kernel"
	"agentdrive/internal/clock"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/metaclient"
)

// runner carries out the effects of the client core. Whoever brings an event
// steps the core under the runner's lock; no effect blocks there: sends go
// through a queue, everything else through goroutines.
type runner struct {
	log    *slog.Logger
	clock  clock.Clock
	client *metaclient.Client
	data   *dataPath
	group  uint32
	id     [16]byte // cluster
	ctx    context.Context
	stop   context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex // guards the fields below and every Step; above the locks of stream queues
	core    *core.Client
	lastReq core.ReqID
	waiting map[core.ReqID]waiter
	kernel  kernel.Notifier // nil until a mount is attached
	keeps   *recorder       // nil: nothing is kept
	stream  *stream         // newest
	timer   clock.Timer
	state   core.Notice
	welcome *meta.Welcome
	changed chan struct{} // closed and replaced when state or welcome changes
	ended   bool
}

// stream is the newest stream the core asked for.
type stream struct {
	number uint64
	cancel context.CancelFunc
	ready  sync.Cond // on the runner's mu: out or closed changed
	out    [][]byte  // encoded frames; guarded by the runner's mu
	tells  bool      // some of out tell of own operations
	closed bool
}

// waiter is a request at the core.
type waiter struct {
	call   *kernel.Call
	answer chan core.Answer // holds one
	writes meta.Ino         // of a WriteFile
}

// do executes a request of the kernel and waits for its answer.
func (r *runner) do(call *kernel.Call, op any) core.Answer {
	ch := make(chan core.Answer, 1)
	r.mu.Lock()
	if r.ended {
		r.mu.Unlock()
		return core.Answer{Err: errs.E("mount", errs.Expired, "the mount is shut down", nil)}
	}
	r.lastReq++
	id := r.lastReq
	w := waiter{call: call, answer: ch}
	if op, ok := op.(core.WriteFile); ok {
		w.writes = op.Ino
	}
	r.waiting[id] = w
	r.stepLocked(core.Request{ID: id, Op: op})
	_, waits := r.waiting[id]
	r.mu.Unlock()
	if waits {
		call.Waits()
	}
	select {
	case a := <-ch:
		return a
	case <-call.Cancel():
	}
	r.step(core.Cancel{ID: id})
	return <-ch
}

// attach tells where invalidations go from now on.
func (r *runner) attach(n kernel.Notifier) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kernel = n
}

// pageKeeper is a core that takes leases: it vouches for the kernel's pages of
// a file while it holds one.
type pageKeeper interface{ KeepPages(meta.Ino) bool }

// keepsLocked reports whether a lease covers the kernel's pages of a file. A
// core without leases leaves them to the kernel, which compares times of
// modification.
func (r *runner) keepsLocked(ino meta.Ino) (keep, leases bool) {
	k, leases := any(r.core).(pageKeeper)
	return leases && k.KeepPages(ino), leases
}

// openFile tells the core of a handle and reports whether the kernel's pages
// of the file are good.
func (r *runner) openFile(ino meta.Ino) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stepLocked(core.OpenFile{Ino: ino})
	keep, _ := r.keepsLocked(ino)
	return keep
}

func (r *runner) step(ev core.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stepLocked(ev)
}

func (r *runner) stepLocked(ev core.Event) {
	if r.ended {
		return // what it would start could no longer be waited for
	}
	if f, ok := ev.(core.FrameIn); ok {
		if w, ok := f.Frame.(*meta.Welcome); ok && r.stream != nil && r.stream.number == f.Stream {
			r.welcome = w
			r.changedLocked()
		}
	}
	for _, ef := range r.core.Step(core.Time(r.clock.Mono()), ev) {
		r.doLocked(ef)
	}
	r.keeps.stepped()
}

func (r *runner) doLocked(ef core.Effect) {
	switch ef := ef.(type) {
	case core.Answer:
		r.answerLocked(ef)
	case core.Logged:
		r.keeps.logged(ef)
	case core.LogGone:
		r.keeps.gone(ef.Seq)
	case core.Invalidate:
		done := func() { r.step(core.Invalidated{Token: ef.Token}) }
		if r.kernel != nil {
			r.kernel.Invalidate(ef.Items, done)
		} else {
			r.spawn(done) // no kernel believes anything yet
		}
	case core.Send:
		if st := r.stream; st != nil && st.number == ef.Stream && !st.closed {
			st.out = append(st.out, meta.EncodeFrame(nil, ef.Frame))
			switch ef.Frame.(type) {
			case *meta.Log, *meta.Ack:
				st.tells = true
			}
			st.ready.Signal()
		}
	case core.Connect:
		r.connectLocked(ef)
	case core.Disconnect:
		if st := r.stream; st != nil && st.number == ef.Stream {
			r.abandonLocked()
		}
	case core.PutBlock:
		r.spawn(func() { r.putBlock(ef) })
	case core.Timer:
		if r.timer != nil {
			r.timer.Stop()
		}
		d := max(0, int64(ef.At)-r.clock.Mono())
		r.timer = r.clock.AfterFunc(time.Duration(d), func() { r.step(core.Tick{}) })
	case core.Notice:
		r.noticeLocked(ef)
	}
}

// answerLocked hands an answer over. Its place among the invalidations is
// noted first: see kernel.Call.
func (r *runner) answerLocked(a core.Answer) {
	w, ok := r.waiting[a.ID]
	if !ok {
		return
	}
	delete(r.waiting, a.ID)
	keep, leases := r.keepsLocked(w.writes)
	if p, ok := a.Result.(*core.FilePlan); ok && !leases {
		p.Keep = true
	}
	r.keeps.answered(w.call.Unique(), &a)
	w.call.Answered(&a, keep || !leases)
	w.answer <- a
}

func (r *runner) noticeLocked(n core.Notice) {
	attrs := []any{"state", string(n.State)}
	if n.Err != nil {
		attrs = append(attrs, "err", n.Err)
	}
	r.log.Info(n.Text, attrs...)
	r.state = n
	r.changedLocked()
}

func (r *runner) changedLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *runner) spawn(fn func()) {
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		fn()
	}()
}

func (r *runner) abandonLocked() {
	if st := r.stream; st != nil {
		st.closed = true
		st.cancel()
		st.ready.Broadcast()
		r.stream = nil
	}
}

// connectLocked opens the stream that the core asks for.
func (r *runner) connectLocked(ef core.Connect) {
	r.abandonLocked()
	ctx, cancel := context.WithCancel(r.ctx)
	st := &stream{number: ef.Stream, cancel: cancel}
	st.ready.L = &r.mu
	r.stream = st
	r.spawn(func() {
		err := r.runStream(ctx, st, ef)
		r.mu.Lock()
		defer r.mu.Unlock()
		st.closed = true
		st.ready.Broadcast()
		cancel()
		if r.ctx.Err() == nil {
			r.stepLocked(core.StreamDown{Stream: st.number, Err: err})
		}
	})
}

func (r *runner) runStream(ctx context.Context, st *stream, ef core.Connect) error {
	if wait := int64(ef.After) - r.clock.Mono(); wait > 0 {
		t := r.clock.NewTimer(time.Duration(wait))
		select {
		case <-t.C():
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
	s, err := r.client.OpenStream(ctx, r.id, r.group, ef.Hint)
	if err != nil {
		return err
	}
	defer s.Close()
	r.step(core.StreamUp{Stream: st.number})
	r.spawn(func() { r.sendLoop(st, s) })
	for {
		frames, err := s.Recv()
		if err != nil {
			return err
		}
		r.mu.Lock()
		for _, f := range frames {
			r.stepLocked(core.FrameIn{Stream: st.number, Frame: f})
		}
		r.mu.Unlock()
	}
}

func (r *runner) sendLoop(st *stream, s *metaclient.Stream) {
	defer s.Close() // wakes the receiver
	for {
		r.mu.Lock()
		for len(st.out) == 0 && !st.closed {
			st.ready.Wait()
		}
		out, closed, tells := st.out, st.closed, st.tells
		st.out, st.tells = nil, false
		var written <-chan struct{}
		if tells && r.kernel != nil {
			// Others must not see what our kernel still hides from the
			// processes beside us. These replies wait for nothing.
			written = r.kernel.Barrier()
		}
		r.mu.Unlock()
		if closed {
			return
		}
		if written != nil {
			<-written
		}
		for len(out) > 0 {
			n, size := 0, 0
			for n < len(out) && (n == 0 || size+len(out[n]) <= 1<<20) {
				size += len(out[n])
				n++
			}
			if s.Send(out[:n]) != nil {
				return // the receiver reports why
			}
			out = out[n:]
		}
	}
}

// putBlock stores a block; it goes on trying while servers are merely away.
func (r *runner) putBlock(ef core.PutBlock) {
	ack, err := r.data.put(r.ctx, ef)
	if err != nil {
		r.data.stored(ef.ID, 0, nil)
		r.step(core.BlockFailed{Token: ef.Token, Err: err})
		return
	}
	r.step(core.BlockStored{
		Token: ef.Token, PG: ack.PG, Epoch: ack.Epoch,
		Acked: ack.Acked, Missing: append(append([]chunk.ServerID(nil), ack.Pending...), ack.Failed...),
	})
	r.data.stored(ef.ID, len(ack.Pending), func(server chunk.ServerID) {
		r.step(core.BlockLate{Token: ef.Token, Server: server})
	})
}

// close ends everything; requests still waiting fail.
func (r *runner) close() {
	r.mu.Lock()
	r.ended = true
	r.stop()
	r.abandonLocked()
	if r.timer != nil {
		r.timer.Stop()
	}
	for id := range r.waiting {
		r.answerLocked(core.Answer{ID: id, Err: errs.E("mount", errs.Expired, "the mount is shut down", nil)})
	}
	r.mu.Unlock()
	r.wg.Wait()
	if err := r.keeps.close(); err != nil {
		r.log.Warn("closing the log ring", "err", err)
	}
}

// awaitWelcome waits for the session to open, or to be refused for good.
func (r *runner) awaitWelcome(ctx context.Context) (*meta.Welcome, error) {
	for {
		r.mu.Lock()
		w, st, ch := r.welcome, r.state, r.changed
		r.mu.Unlock()
		if w != nil {
			return w, nil
		}
		if st.State == core.StateEnded {
			if st.Err != nil {
				return nil, st.Err
			}
			return nil, errs.E("mount", errs.Expired, st.Text, nil)
		}
		select {
		case <-ch:
		case <-ctx.Done():
			err := errs.E("mount", errs.Unavailable, "no session with the metadata servers", ctx.Err())
			if st.Err != nil {
				err = errs.E("mount", errs.Unavailable, "no session with the metadata servers", st.Err)
			}
			return nil, err.WithHint("see what is wrong with: agentdrive status")
		}
	}
}
