package sim

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"agentdrive/chunkserver/chunk"
	"agentdrive/metaserver/meta"

	client_core "agentdrive/fuseclient/core"
)

// unit is the grain at which content is verified, in bytes.
const unit = 256

// clientConfig draws small bounds, so that every mechanism works within a
// short run.
func clientConfig(rng *rand.Rand) client_core.Config {
	return client_core.Config{
		Group:      1,
		MaxDirty:   12<<10 + rng.IntN(5)*8<<10,
		BlockSize:  (18 + rng.IntN(3)*10) * unit, // above what travels inline
		MaxPuts:    1 + rng.IntN(4),
		DirtyAge:   client_core.Time(span(rng, 10*ms, 400*ms)),
		RenewEvery: client_core.Time(400 * ms),
		RetryAfter: client_core.Time(10 * ms),
	}
}

// client is a mount: the adapter around one core, with a model kernel above.
type client struct {
	w    *world
	id   int
	name string
	rng  *rand.Rand

	core   *client_core.Client
	kernel *kernel
	conn   *conn  // newest
	want   uint64 // number of the newest stream asked for
	paused bool
	inbox  []client_core.Event
	frozen []func() // what the daemon would do if it were not stopped
	timer  uint64
	tries  int    // nodes asked, in turn
	blocks uint64 // ids given out

	session meta.SessionID
	epoch   uint64
	state   client_core.State
	lost    int     // sessions lost
	losses  []int64 // when
	doubts  []doubt
	sentAt  map[uint64]int64 // of renewals; look-up only
	helloAt int64
	valid   int64 // the session lives until then, if nobody ends it
	goodbye bool  // the end of the session was asked for
	lives   int   // daemons so far
}

func newClient(w *world, id int) *client {
	c := &client{w: w, id: id, name: fmt.Sprintf("c%d", id), rng: w.rand(fmt.Sprintf("client %d", id))}
	c.boot()
	return c
}

// boot starts a daemon and mounts.
func (c *client) boot() {
	c.lives++
	c.state, c.timer, c.goodbye, c.valid = "", c.timer+1, false, 0
	c.sentAt = map[uint64]int64{}
	cfg := clientConfig(c.rng)
	cfg.Open = meta.Open{
		Capability: meta.Capability{Drive: theDrive, Path: "/"},
		Client:     meta.ClientInfo{Host: c.name},
	}
	cfg.NewBlockID = c.newBlockID
	cfg.NoLeases = !c.w.leases
	cfg.IncEpoch = c.rng.IntN(4) > 0
	cfg.Break = c.w.rule.client()
	c.core = client_core.New(cfg)
	c.kernel = newKernel(c)
	c.later(span(c.rng, 0, 50*ms), func() { c.post(client_core.Tick{}) })
}

// later is after, void when the daemon dies.
func (c *client) later(d int64, fn func()) {
	life := c.lives
	c.w.after(d, func() {
		if c.lives == life && !c.kernel.dead {
			fn()
		}
	})
}

// daemon does something now, or when the daemon goes on.
func (c *client) daemon(fn func()) {
	if c.paused {
		c.frozen = append(c.frozen, fn)
		return
	}
	fn()
}

// kill ends the daemon. The kernel's caches and what applications do with them
// live on; upcalls fail.
func (c *client) kill() {
	k := c.kernel
	if k.dead || k.closing {
		return
	}
	c.w.note("kill %s", c.name)
	c.w.oracle.stats.Kills++
	c.pause(false)
	k.dead = true
	c.timer++
	c.lost++
	c.losses = append(c.losses, c.w.now)
	c.w.data.died(c)
	c.session = 0
	if c.conn != nil {
		c.w.net.breakConn(c.conn)
		c.conn = nil
	}
	c.want = 0
	k.abort()
}

// reborn starts the next daemon on the same host.
func (c *client) reborn() {
	if !c.kernel.dead {
		return
	}
	c.w.note("restart %s", c.name)
	c.boot()
}

func (c *client) newBlockID() (id chunk.BlockID) {
	c.blocks++
	binary.BigEndian.PutUint64(id[:], uint64(c.id)+1)
	binary.BigEndian.PutUint64(id[8:], c.blocks)
	return id
}

// post hands an event to the core.
func (c *client) post(ev client_core.Event) {
	if c.kernel.dead {
		return
	}
	if c.paused {
		c.inbox = append(c.inbox, ev)
		return
	}
	if in, ok := ev.(client_core.FrameIn); ok && in.Stream == c.want {
		if in.Frame = c.w.rule.toClient(c, in.Frame); in.Frame == nil {
			return
		}
		c.received(in.Frame)
		ev = in
	}
	c.step(ev)
}

// inject lets the core receive a frame that no server sent.
func (c *client) inject(stream uint64, f meta.Frame) {
	if !c.paused {
		c.step(client_core.FrameIn{Stream: stream, Frame: f})
	}
}

// step carries out what the core asks for.
func (c *client) step(ev client_core.Event) {
	// Effects alias memory that the next Step reuses; none of them leads to a
	// Step at once.
	for _, ef := range c.core.Step(client_core.Time(c.w.now), ev) {
		c.do(ef)
	}
	if err := c.core.CheckInvariants(); err != nil {
		c.w.fail("%s: %v", c.name, err)
	}
}

func (c *client) do(ef client_core.Effect) {
	w := c.w
	switch ef := ef.(type) {
	case client_core.Connect:
		to := w.nodes[c.tries%nodeCount]
		if ef.Hint == "" {
			c.tries++
		}
		for _, n := range w.nodes {
			if n.name == ef.Hint {
				to = n
			}
		}
		c.hangUp()
		c.want = ef.Stream
		c.later(max(int64(ef.After)-w.now, 0), func() { w.net.dial(c, ef.Stream, to) })
	case client_core.Send:
		if k := c.conn; k != nil && k.stream == ef.Stream {
			for _, f := range w.rule.toServer(c, ef.Frame) {
				body := meta.EncodeFrame(nil, f) // before the core changes it
				_, log := f.(*meta.Log)
				_, ack := f.(*meta.Ack)
				c.sent(f)
				c.kernel.ad.send(outFrame{k, func() { w.net.fromClient(k, body) }, log || ack})
			}
		}
	case client_core.Disconnect:
		if c.conn != nil && c.conn.stream == ef.Stream {
			c.hangUp()
		}
	case client_core.PutBlock:
		if ef.Owner.Session != uint64(c.core.Stats().Session) {
			w.fail("%s puts a block for session %d, not its own", c.name, ef.Owner.Session)
		}
		w.blocks.put(c, ef)
	case client_core.Answer:
		c.kernel.answered(ef)
	case client_core.Timer:
		c.timer++
		gen := c.timer
		w.after(max(int64(ef.At)-w.now, 0)+span(c.rng, 0, 1*ms), func() {
			if gen == c.timer {
				c.post(client_core.Tick{})
			}
		})
	case client_core.Invalidate:
		c.kernel.ad.invalidate(ef)
	case client_core.Notice:
		c.state = ef.State
		w.note("%s: %s %s", c.name, ef.State, ef.Text)
	}
}

// doubt is a time in which a client believes in a session that somebody ended
// before its time: nothing can tell it at once.
type doubt struct{ from, to int64 }

// ended tells that the log has ended the client's session.
func (c *client) ended(id meta.SessionID) {
	if c.session != id {
		return
	}
	c.w.data.ended(c)
	if c.w.now < c.valid {
		c.w.note("%s: its session is ended before its time", c.name)
		c.doubts = append(c.doubts, doubt{c.w.now, c.valid + lossGrace})
	}
}

// doubtful reports whether a client could not know at a moment.
func (c *client) doubtful(at int64) bool {
	for _, d := range c.doubts {
		if at >= d.from && at <= d.to {
			return true
		}
	}
	return false
}

// learned ends the doubt.
func (c *client) learned() {
	for i := range c.doubts {
		c.doubts[i].to = min(c.doubts[i].to, c.w.now+lossGrace)
	}
}

// hangUp abandons the stream there is.
func (c *client) hangUp() {
	if c.conn != nil && c.conn.clientOpen {
		c.w.net.closeFromClient(c.conn)
	}
	c.conn = nil
}

// sent tells the oracle of an operation that leaves the core.
func (c *client) sent(f meta.Frame) {
	switch f := f.(type) {
	case *meta.OpFrame:
		c.w.oracle.sent(c, f)
	case *meta.Close:
		c.goodbye = true
	case *meta.Open:
		c.helloAt = c.w.now
	case *meta.Renew:
		c.sentAt[f.Seq] = c.w.now
	case *meta.Resume:
		c.helloAt = c.w.now
		c.w.oracle.stats.Resumes++
	}
}

// received tells the oracle of a frame that reaches the core.
func (c *client) received(f meta.Frame) {
	switch f := f.(type) {
	case *meta.Welcome:
		c.session, c.epoch = f.Session, f.Epoch
		c.w.history.clients[f.Session] = c
		c.w.history.lives[f.Session] = life{c.kernel, c.lost}
		c.valid = c.helloAt + int64(serverTTL)
	case *meta.Renewed:
		c.valid = max(c.valid, c.sentAt[f.Seq]+int64(serverTTL))
	case *meta.Evicted:
		if c.session != 0 && !c.goodbye && c.w.calm {
			c.w.fail("%s is evicted without any fault: %v", c.name, f.Err)
		}
		if c.session != 0 && !c.goodbye {
			c.lost++
			c.losses = append(c.losses, c.w.now)
			c.w.oracle.stats.Evictions++
			c.w.data.sessionLost(c)
			c.learned()
		}
		if c.session != 0 && c.w.oracle.live(c.session) {
			c.w.fail("%s is evicted, but session %d lives in the log", c.name, c.session)
		}
		c.session = 0
	case *meta.Recall:
		c.w.oracle.stats.Recalls++
	case *meta.Reply:
		c.w.oracle.replied(c, f)
	}
}

func (c *client) blockFailed(token uint64, err error) {
	c.kernel.failed = true
	c.w.data.blockFailed(c)
	c.post(client_core.BlockFailed{Token: token, Err: err})
}

func (c *client) pause(on bool) {
	if c.paused == on {
		return
	}
	c.w.note("pause %s %v", c.name, on)
	c.paused = on
	frozen := c.frozen // both at once: the order is anybody's guess
	c.frozen = nil
	for !c.paused && len(c.inbox)+len(frozen) > 0 {
		if len(frozen) > 0 && (len(c.inbox) == 0 || c.rng.IntN(2) == 0) {
			fn := frozen[0]
			frozen = frozen[1:]
			fn()
			continue
		}
		ev := c.inbox[0]
		c.inbox = c.inbox[1:]
		c.post(ev)
	}
	c.frozen = append(frozen, c.frozen...)
}
