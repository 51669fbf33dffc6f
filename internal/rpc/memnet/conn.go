package memnet

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"agentdrive/internal/rpc"
)

// maxBuffered is how many bytes a direction holds before Write waits, as the
// socket buffers of both ends would.
const maxBuffered = 256 << 10

// pipe is one direction of a connection. All fields are guarded by net.mu.
type pipe struct {
	net  *Net
	link *link

	queue    []segment
	buffered int       // bytes in queue
	last     time.Time // arrival of the last segment: order is kept
	ended    bool      // the writer closed
	endAt    time.Time // when the reader may see that
	dead     bool      // the reader closed: what is written meets a reset
	reset    bool
	woken    chan struct{} // closed and replaced at every change
}

// segment is what one Write put on its way.
type segment struct {
	data []byte
	at   time.Time // arrival
}

func newPipe(n *Net, from, to string) *pipe {
	return &pipe{net: n, link: n.linkLocked(from, to), woken: make(chan struct{})}
}

func (p *pipe) wakeLocked() {
	close(p.woken)
	p.woken = make(chan struct{})
}

// arrivalLocked books n bytes on the link and tells when the last arrives.
func (p *pipe) arrivalLocked(n int) time.Time {
	now := time.Now()
	sent := now
	if p.link.bandwidth > 0 {
		if p.link.free.After(now) {
			sent = p.link.free
		}
		sent = sent.Add(time.Duration(int64(n) * int64(time.Second) / p.link.bandwidth))
		p.link.free = sent
	}
	at := sent.Add(p.link.delay)
	if at.Before(p.last) {
		at = p.last
	}
	p.last = at
	return at
}

// readLocked takes what has arrived. With nothing there it returns how long
// the next arrival is away; 0 means until something changes.
func (p *pipe) readLocked(b []byte) (n int, wait time.Duration, err error) {
	if p.reset {
		return 0, 0, syscall.ECONNRESET
	}
	if p.link.blocked {
		return 0, 0, nil
	}
	now := time.Now()
	for n < len(b) && len(p.queue) > 0 && !p.queue[0].at.After(now) {
		s := &p.queue[0]
		k := copy(b[n:], s.data)
		n += k
		p.buffered -= k
		if s.data = s.data[k:]; len(s.data) == 0 {
			p.queue = p.queue[1:]
		}
	}
	switch {
	case n > 0:
		p.wakeLocked()
		return n, 0, nil
	case len(p.queue) > 0:
		return 0, p.queue[0].at.Sub(now), nil
	case p.ended && !p.endAt.After(now):
		return 0, 0, io.EOF
	case p.ended:
		return 0, p.endAt.Sub(now), nil
	}
	return 0, 0, nil
}

// writeLocked queues what fits of b.
func (p *pipe) writeLocked(b []byte) (int, error) {
	switch {
	case p.reset:
		return 0, syscall.ECONNRESET
	case p.dead && !p.link.blocked:
		return 0, syscall.EPIPE
	}
	n := min(len(b), maxBuffered-p.buffered)
	if n <= 0 {
		return 0, nil
	}
	p.queue = append(p.queue, segment{data: append([]byte(nil), b[:n]...), at: p.arrivalLocked(n)})
	p.buffered += n
	p.wakeLocked()
	return n, nil
}

// conn is one end of a connection.
type conn struct {
	net                   *Net
	local, remote         string
	in, out               *pipe
	localAddr, remoteAddr rpc.Addr

	closed                      bool // guarded by net.mu
	readDeadline, writeDeadline *deadline
}

var _ net.Conn = (*conn)(nil)

func (c *conn) init() {
	c.readDeadline, c.writeDeadline = newDeadline(), newDeadline()
}

func (c *conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "mem", Source: c.localAddr, Addr: c.remoteAddr, Err: err}
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	for {
		c.net.mu.Lock()
		expired := c.readDeadline.doneLocked()
		if c.closed || isClosed(expired) {
			err := c.endLocked()
			c.net.mu.Unlock()
			return 0, c.opError("read", err)
		}
		n, wait, err := c.in.readLocked(b)
		woken := c.in.woken
		c.net.mu.Unlock()
		switch {
		case err == io.EOF:
			return 0, io.EOF
		case err != nil:
			return 0, c.opError("read", err)
		case n > 0 || len(b) == 0:
			return n, nil
		}
		pause(woken, expired, wait)
	}
}

// Write implements net.Conn. It returns when all of b is queued.
func (c *conn) Write(b []byte) (int, error) {
	total := 0
	for {
		c.net.mu.Lock()
		expired := c.writeDeadline.doneLocked()
		if c.closed || isClosed(expired) {
			err := c.endLocked()
			c.net.mu.Unlock()
			return total, c.opError("write", err)
		}
		n, err := c.out.writeLocked(b[total:])
		woken := c.out.woken
		c.net.mu.Unlock()
		total += n
		if err != nil {
			return total, c.opError("write", err)
		}
		if total == len(b) {
			return total, nil
		}
		if n == 0 {
			pause(woken, expired, 0)
		}
	}
}

// endLocked is why an operation that cannot go on ends.
func (c *conn) endLocked() error {
	if c.closed {
		return net.ErrClosed
	}
	return os.ErrDeadlineExceeded
}

// pause waits for a change, a deadline, or the next arrival.
func pause(woken, expired <-chan struct{}, wait time.Duration) {
	var arrival <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		arrival = timer.C
	}
	select {
	case <-woken:
	case <-expired:
	case <-arrival:
	}
}

// Close implements net.Conn. What was written still arrives.
func (c *conn) Close() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.closed = true
	delete(c.net.conns, c)
	c.out.ended = true
	c.out.endAt = c.out.arrivalLocked(0)
	c.in.dead = true
	c.readDeadline.stopLocked()
	c.writeDeadline.stopLocked()
	c.in.wakeLocked()
	c.out.wakeLocked()
	return nil
}

// resetLocked breaks both directions.
func (c *conn) resetLocked() {
	for _, p := range []*pipe{c.in, c.out} {
		p.reset = true
		p.queue, p.buffered = nil, 0
		p.wakeLocked()
	}
}

func (c *conn) LocalAddr() net.Addr  { return c.localAddr }
func (c *conn) RemoteAddr() net.Addr { return c.remoteAddr }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	return c.setDeadline("set deadline", t, c.readDeadline, c.writeDeadline)
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	return c.setDeadline("set read deadline", t, c.readDeadline)
}

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error {
	return c.setDeadline("set write deadline", t, c.writeDeadline)
}

func (c *conn) setDeadline(op string, t time.Time, ds ...*deadline) error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return c.opError(op, net.ErrClosed)
	}
	for _, d := range ds {
		d.setLocked(t)
	}
	// A waiting Read or Write holds the old channel: let it look again.
	c.in.wakeLocked()
	c.out.wakeLocked()
	return nil
}

// deadline is a channel that closes at a time. Guarded by Net.mu.
type deadline struct {
	timer *time.Timer
	ch    chan struct{}
}

func newDeadline() *deadline { return &deadline{ch: make(chan struct{})} }

func (d *deadline) doneLocked() <-chan struct{} { return d.ch }

func (d *deadline) stopLocked() {
	if d.timer != nil {
		d.timer.Stop() // a timer that fires anyway closes a channel nobody holds
		d.timer = nil
	}
}

// setLocked starts over with a channel of its own, so that an old timer that
// has fired but not run yet closes a channel nobody looks at.
func (d *deadline) setLocked(t time.Time) {
	d.stopLocked()
	ch := make(chan struct{})
	d.ch = ch
	if t.IsZero() {
		return
	}
	if left := time.Until(t); left > 0 {
		d.timer = time.AfterFunc(left, func() { close(ch) })
		return
	}
	close(ch)
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
