package core

import (
	"fmt"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// phase is where the session's stream stands.
type phase uint8

const (
	phaseDown    phase = iota // a stream was asked for
	phaseOpening              // it is up; Open or Resume went out
	phaseReady                // Welcome came
	phaseEnded                // closed or refused: no stream ever again
)

// session is the state of the connection and of the session above it. The
// session outlives streams; its id is 0 until the first Welcome and between
// an eviction and the next one.
type session struct {
	phase   phase
	stream  uint64 // number of the newest stream asked for; others are ignored
	id      meta.SessionID
	epoch   uint64
	nonce   [16]byte
	opens   int // Open frames sent with this nonce
	root    meta.Ino
	backoff Time
	helloAt Time // when Open or Resume was sent
	ttl     Time

	validUntil Time  // the server keeps the session at least until then
	trustUntil Time  // leases count until then
	wall       int64 // the servers' wall clock minus the own time, Unix nanoseconds
	warned     bool  // that this moment passed
	renewSeq   uint64
	renewAt    Time
	renewals   []renewal // unanswered, oldest first

	heardAt     Time // when the last frame came
	expectSince Time // since when something is unanswered; 0 = nothing is

	closeSent bool
	err       error // phaseEnded: what later requests are told
	said      Notice
}

type renewal struct {
	seq uint64
	at  Time
}

func (s *session) state() State {
	switch s.phase {
	case phaseReady:
		return StateReady
	case phaseEnded:
		return StateEnded
	}
	return StateConnecting
}

func (c *Client) owner() chunk.Owner {
	return chunk.Owner{
		Group: c.cfg.Group, Drive: uint64(c.cfg.Open.Capability.Drive),
		Session: uint64(c.ses.id), Epoch: c.ses.epoch,
	}
}

func (c *Client) connect(hint string, after Time) {
	c.ses.phase = phaseDown
	c.ses.stream++
	c.emit(Connect{Stream: c.ses.stream, Hint: hint, After: after})
}

// retry asks for another stream after a pause that doubles until a Welcome.
// A hint is worth a shorter one.
func (c *Client) retry(hint string) {
	d := c.ses.backoff
	c.ses.backoff = min(2*d, maxRetry)
	if hint != "" {
		d /= 4
	}
	c.connect(hint, c.now+d)
}

// lost ends the use of the current stream.
func (c *Client) lost(err *errs.Error, hint string) {
	c.ses.renewals = nil
	c.voidRecalls()
	c.opsStreamDown()
	c.pinsStreamDown()
	c.say(StateConnecting, err, "operations wait for the metadata servers")
	c.retry(hint)
}

func (c *Client) streamDown(ev StreamDown) {
	if ev.Stream != c.ses.stream || c.ses.phase == phaseEnded {
		return
	}
	c.lost(errs.E("stream", errs.Unavailable, "", ev.Err), "")
}

func (c *Client) streamUp(stream uint64) {
	s := &c.ses
	if stream != s.stream || s.phase != phaseDown {
		return
	}
	s.phase = phaseOpening
	s.helloAt = c.now
	if s.id == 0 {
		open := c.cfg.Open
		open.Nonce = s.nonce
		s.opens++
		c.send(&open)
		return
	}
	c.send(&meta.Resume{Session: s.id, Epoch: s.epoch, Nonce: s.nonce})
	if c.cfg.NoLeases {
		c.reclaim()
	}
	// With leases, what is held depends on how far the log got: Welcome tells.
}

func (c *Client) frameIn(ev FrameIn) {
	if ev.Stream != c.ses.stream || c.ses.phase == phaseDown || c.ses.phase == phaseEnded {
		return
	}
	c.ses.heardAt = c.now
	switch f := ev.Frame.(type) {
	case *meta.Welcome:
		c.welcome(f)
	case *meta.Reply:
		c.reply(f)
	case *meta.Renewed:
		c.renewed(f)
	case *meta.LogAck:
		c.logAck(f)
	case *meta.Recall:
		c.onRecall(f)
	case *meta.Credited:
		c.credited(f)
	case *meta.Evicted:
		c.evicted(f.Err)
	case *meta.NotLeader:
		c.emit(Disconnect{Stream: c.ses.stream})
		c.lost(errs.E("stream", errs.NotLeader, "server does not lead the group", nil).WithHint(f.Address), f.Address)
	default:
		// A frame of a protocol that this version does not speak.
	}
}

func (c *Client) welcome(w *meta.Welcome) {
	s := &c.ses
	if s.phase != phaseOpening {
		return
	}
	fresh := s.id == 0
	s.phase, s.id, s.epoch, s.root = phaseReady, w.Session, w.Epoch, w.Root.Ino
	s.ttl = Time(w.TTLMillis) * 1e6
	s.validUntil, s.warned = s.helloAt+s.ttl, false
	c.tellWall(w.Now)
	c.renewedValidity(s.helloAt)
	s.renewAt = s.helloAt + c.renewEvery()
	s.backoff = c.cfg.RetryAfter
	c.log.poisoned = false
	switch {
	case fresh:
		c.log.last, c.log.acked, c.log.sent = w.LastLogSeq, w.LastLogSeq, w.LastLogSeq
		c.reclaimFresh()
	case !c.cfg.NoLeases:
		c.logResume(w.LastLogSeq)
		c.reclaim()
	}
	c.credit.asked = false
	c.say(StateReady, nil, fmt.Sprintf("session %d", s.id))
	if s.closeSent {
		c.send(&meta.Close{})
	}
	c.pumpLog() // operations name what is in it
	c.resend()
}

// renewEvery is the pause between renewals: short sessions need more of them.
func (c *Client) renewEvery() Time {
	if c.cfg.NoLeases || c.ses.ttl == 0 {
		return c.cfg.RenewEvery
	}
	return min(c.cfg.RenewEvery, c.ses.ttl/3)
}

func (c *Client) renewed(f *meta.Renewed) {
	s, seq := &c.ses, f.Seq
	c.tellWall(f.Now)
	for len(s.renewals) > 0 && s.renewals[0].seq <= seq {
		if s.renewals[0].seq == seq {
			s.validUntil, s.warned = s.renewals[0].at+s.ttl, false
			c.renewedValidity(s.renewals[0].at)
		}
		s.renewals = s.renewals[1:]
	}
}

// sessionDue renews the session and gives up streams that are silent: the
// server answers Renew before anything else, so silence for a whole period
// means that the stream leads nowhere.
func (c *Client) sessionDue() {
	s := &c.ses
	switch {
	case s.phase == phaseOpening && c.now >= s.helloAt+helloPeriods*c.cfg.RenewEvery,
		s.phase == phaseReady && c.now >= s.renewAt && len(s.renewals) > 0,
		s.phase == phaseReady && c.quiet() >= c.quietTime()+c.quietTime()/2:
		c.emit(Disconnect{Stream: s.stream})
		c.lost(errs.E("stream", errs.Timeout, "server does not answer", nil), "")
	case s.phase == phaseReady && (c.now >= s.renewAt || c.quiet() >= c.quietTime() && len(s.renewals) == 0):
		s.renewSeq++
		s.renewals = append(s.renewals, renewal{s.renewSeq, c.now})
		s.renewAt = c.now + c.renewEvery()
		c.send(&meta.Renew{Seq: s.renewSeq, Progress: c.owedProgress()})
	}
	if s.id != 0 && s.phase != phaseEnded && !s.warned && c.now > s.validUntil {
		s.warned = true
		c.say(s.state(), errs.E("session.renew", errs.Timeout, "", nil),
			"session not renewed in time: the servers may end it and unpublished data would be lost")
	}
}

// quietTime is how long a stream may be silent while something is unanswered
// before it is asked for a sign of life, and half of it more before it is given up: a
// leader that stands still must not hold up who can be served by another.
func (c *Client) quietTime() Time { return min(quietDelay, c.renewEvery()) }

// quiet is for how long nothing was heard that could have been.
func (c *Client) quiet() Time {
	s := &c.ses
	if s.expectSince == 0 {
		return 0
	}
	return c.now - max(s.heardAt, s.expectSince)
}

// expect notes whether the servers owe an answer. Who waits for a lock may wait
// for long.
func (c *Client) expect() {
	s := &c.ses
	owed := s.phase == phaseReady && (len(s.renewals) > 0 || c.log.sent > c.log.acked)
	if s.phase == phaseReady && !owed {
		c.ops.flight.Scan(func(_ meta.OpID, o *op) bool {
			owed = o.body.Kind() != meta.KindSetLock
			return !owed
		})
	}
	switch {
	case !owed:
		s.expectSince = 0
	case s.expectSince == 0:
		s.expectSince = c.now
	}
}

func (c *Client) sessionTimers(want func(Time)) {
	switch c.ses.phase {
	case phaseOpening:
		want(c.ses.helloAt + helloPeriods*c.cfg.RenewEvery)
	case phaseReady:
		want(c.ses.renewAt)
		if s := &c.ses; s.expectSince != 0 {
			t := max(s.heardAt, s.expectSince) + c.quietTime()
			if c.quiet() >= c.quietTime() {
				t += c.quietTime() / 2
			}
			want(t)
		}
	}
	if c.ses.id != 0 && !c.ses.warned && c.ses.phase != phaseEnded {
		want(c.ses.validUntil + 1)
	}
}

// evicted handles the end of the session or the refusal of Open.
func (c *Client) evicted(e *errs.Error) {
	s := &c.ses
	if e == nil {
		e = errs.E("session", errs.Expired, "", nil)
	}
	c.emit(Disconnect{Stream: s.stream})
	if s.id == 0 {
		if e.Kind == errs.Expired && s.opens > 1 {
			// An earlier Open with this nonce made a session that ended
			// unseen. Nothing was done in it.
			c.renonce()
			c.lost(e, "")
			return
		}
		c.end(e)
		return
	}
	if s.closeSent {
		c.end(nil)
		return
	}
	s.id = 0
	c.renonce()
	c.lost(e, "")
	c.loseSession(e)
}

func (c *Client) renonce() {
	c.ses.nonce, c.ses.opens = [16]byte(c.cfg.NewBlockID()), 0
}

// loseSession drops what only the ended session could have completed.
// Operations that were never sent and reads go on in the next session.
func (c *Client) loseSession(cause *errs.Error) {
	err := errs.E("session", errs.IO, "session expired; unpublished data is lost", cause)
	lostOps := c.loseLeases(err)
	c.forgetPuts()
	c.late = late{}
	c.ops.acks, c.ops.ackAt = nil, 0
	lostFiles := 0
	var files []*file
	c.files.Scan(func(_ meta.Ino, f *file) bool { files = append(files, f); return true })
	for _, f := range files {
		c.restartAppend(f)
		if c.dropData(f, err) {
			lostFiles++
		}
	}
	var gone []*op
	c.ops.flight.Scan(func(_ meta.OpID, o *op) bool {
		if !o.read {
			gone = append(gone, o)
		}
		return true
	})
	for _, o := range gone {
		c.ops.flight.Delete(o.id)
		c.ops.mutations--
		o.done(nil, errs.E("session", errs.IO, "session expired; the outcome is unknown", cause))
	}
	for _, f := range files {
		c.nextAppend(f)
		c.reap(f)
	}
	if lostOps.records > 0 {
		c.say(StateConnecting, err, fmt.Sprintf("%d operations in %d directories are lost", lostOps.records, lostOps.dirs))
	}
	if lostFiles > 0 {
		c.say(StateConnecting, err, fmt.Sprintf("unpublished data of %d files is lost", lostFiles))
	}
	if c.shutdown != nil && c.stopErr == nil && lostFiles+lostOps.records > 0 {
		c.stopErr = err
	}
}

// end makes the client refuse everything: after Shutdown (e nil) or a refusal.
func (c *Client) end(e *errs.Error) {
	s := &c.ses
	s.phase = phaseEnded
	s.err = e
	text := "session closed"
	if e == nil {
		s.err = errs.E("session", errs.Expired, "session closed", nil)
	} else {
		text = "session refused"
	}
	c.dropEverything(s.err)
	c.say(StateEnded, e, text)
}
