package rpc

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"agentdrive/internal/errs"
)

// MuxConfig configures a Mux.
type MuxConfig struct {
	Network Network   // dials other servers; required
	Cluster ClusterID // connections of other clusters are refused; required
	Server  uint32    // this server's id, told to those it dials

	// Advertise is the address by which other servers know this one. Default:
	// the first listener's address.
	Advertise string
	// HelloTimeout bounds the time a peer may take to say what it wants, and
	// that a decided connection may wait to be accepted. Default 5 s.
	HelloTimeout time.Duration
	// MaxPending bounds the connections that have not said what they want.
	// Beyond it the oldest is closed: an honest peer speaks at once, so the
	// oldest is the one that says nothing. Default 1,024.
	MaxPending int
	// Log receives refusals. Default slog.Default().
	Log *slog.Logger
}

func (c *MuxConfig) setDefaults(first net.Listener) error {
	if c.Network == nil {
		return errs.E("rpc.mux", errs.Usage, "no network", nil)
	}
	if c.Cluster == (ClusterID{}) {
		return errs.E("rpc.mux", errs.Usage, "no cluster id", nil)
	}
	if c.Advertise == "" {
		c.Advertise = first.Addr().String()
	}
	if c.HelloTimeout <= 0 {
		c.HelloTimeout = 5 * time.Second
	}
	if c.MaxPending <= 0 {
		c.MaxPending = 1024
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return nil
}

// Mux hands the connections of one server process to gRPC, to the Raft groups
// and to HTTP, decided by their first bytes. Every connection is decided in a
// goroutine of its own and under a deadline, so none can hold up another.
// Safe for concurrent use.
type Mux struct {
	cfg       MuxConfig
	listeners []net.Listener
	grpc      *subListener
	http      *subListener
	done      chan struct{}  // closed by Close
	conns     sync.WaitGroup // decide goroutines; Add under mu while not closed

	mu      sync.Mutex // guards the fields below; leaf: no I/O and no other lock under it
	closed  bool
	groups  map[uint32]*subListener
	pending *list.List // of net.Conn, oldest first
}

// NewMux makes a Mux over listeners, of which there must be one at least. It
// owns them from then on; Serve starts accepting.
func NewMux(cfg MuxConfig, listeners ...net.Listener) (*Mux, error) {
	if len(listeners) == 0 {
		return nil, errs.E("rpc.mux", errs.Usage, "no listener", nil)
	}
	if err := cfg.setDefaults(listeners[0]); err != nil {
		return nil, err
	}
	m := &Mux{
		cfg: cfg, listeners: listeners, done: make(chan struct{}),
		groups: map[uint32]*subListener{}, pending: list.New(),
	}
	m.grpc = newSubListener(Addr(cfg.Advertise), func() {})
	m.http = newSubListener(Addr(cfg.Advertise), func() {})
	return m, nil
}

// GRPC is the listener to give to grpc.Server.Serve. Closing it refuses
// further gRPC connections and leaves the rest of the Mux alone.
func (m *Mux) GRPC() net.Listener { return m.grpc }

// HTTP is the listener for plain HTTP/1.1 requests of method GET: metrics, on
// the same port as everything else. Without anybody who accepts from it they
// are closed after HelloTimeout.
func (m *Mux) HTTP() net.Listener { return m.http }

// Raft registers group and returns its stream layer, before or while Serve
// runs. Closing the stream layer (the Raft transport does) unregisters the
// group. Registering a group that is registered is a programming error and
// panics. After Close of the Mux the layer is closed from the start.
func (m *Mux) Raft(group uint32) raft.StreamLayer {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.groups[group] != nil {
		panic(fmt.Sprintf("rpc: raft group %d registered twice", group))
	}
	l := newSubListener(Addr(m.cfg.Advertise), nil)
	l.onClose = func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.groups[group] == l {
			delete(m.groups, group)
		}
	}
	if m.closed {
		l.once.Do(func() { close(l.done) })
	} else {
		m.groups[group] = l
	}
	return &raftLayer{subListener: l, mux: m, group: group}
}

// Serve accepts until Close, then returns nil. When a listener fails it
// closes the Mux and returns why.
func (m *Mux) Serve() error {
	results := make(chan error, len(m.listeners))
	for _, lis := range m.listeners {
		go func() { results <- m.serve(lis) }()
	}
	var first error
	for range m.listeners {
		if err := <-results; err != nil && first == nil {
			first = errors.Join(err, m.Close())
		}
	}
	return first
}

// Close stops accepting, closes the connections that are not handed over, the
// gRPC listener and all stream layers, and waits for its own goroutines.
// Connections handed over belong to their owners. Idempotent.
func (m *Mux) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		m.conns.Wait()
		return nil
	}
	m.closed = true
	close(m.done)
	subs := []*subListener{m.grpc, m.http}
	for _, l := range m.groups {
		subs = append(subs, l)
	}
	var silent []net.Conn
	for e := m.pending.Front(); e != nil; e = e.Next() {
		silent = append(silent, e.Value.(net.Conn))
	}
	m.mu.Unlock()
	for _, conn := range silent {
		conn.Close() // its goroutine sees the error
	}
	var err error
	for _, lis := range m.listeners {
		err = errors.Join(err, lis.Close())
	}
	for _, l := range subs {
		err = errors.Join(err, l.Close())
	}
	m.conns.Wait()
	return err
}

// serve accepts from one listener. Running out of descriptors is waited out.
func (m *Mux) serve(lis net.Listener) error {
	var wait time.Duration
	for {
		conn, err := lis.Accept()
		if err == nil {
			wait = 0
			m.admit(conn)
			continue
		}
		select {
		case <-m.done:
			return nil
		default:
		}
		var temp interface{ Temporary() bool }
		if !errors.As(err, &temp) || !temp.Temporary() {
			return errs.E("rpc.accept", errs.Unavailable, lis.Addr().String(), err)
		}
		wait = min(max(2*wait, 5*time.Millisecond), time.Second)
		m.cfg.Log.Warn("cannot accept a connection, will retry", "listener", lis.Addr().String(), "wait", wait, "err", err)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-m.done:
			timer.Stop()
			return nil
		}
	}
}

// admit starts deciding conn, closing the oldest undecided one when there are
// too many.
func (m *Mux) admit(conn net.Conn) {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		conn.Close() // nothing was exchanged
		return
	}
	m.conns.Add(1)
	e := m.pending.PushBack(conn)
	var oldest net.Conn
	if m.pending.Len() > m.cfg.MaxPending {
		oldest = m.pending.Remove(m.pending.Front()).(net.Conn)
	}
	m.mu.Unlock()
	if oldest != nil {
		oldest.Close() // nothing was exchanged
		m.cfg.Log.Warn("too many silent connections, closed the oldest", "peer", oldest.RemoteAddr().String(), "limit", m.cfg.MaxPending)
	}
	go func() {
		defer m.conns.Done()
		to, decided, err := m.decide(conn)
		m.mu.Lock()
		m.pending.Remove(e) // does nothing if it was removed as the oldest
		m.mu.Unlock()
		if err == nil {
			err = to.offer(decided, m.cfg.HelloTimeout)
		}
		if err != nil {
			m.refuse(conn, err)
		}
	}()
}

func (m *Mux) refuse(conn net.Conn, err error) {
	conn.Close() // the reason is err, not this
	level := slog.LevelWarn
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		level = slog.LevelDebug // a port probe, or our own shutdown
	}
	m.cfg.Log.Log(context.Background(), level, "connection refused", "peer", conn.RemoteAddr().String(), "err", err)
}

// decide reads what conn is and returns its owner and the connection to hand
// over, with no deadline set.
func (m *Mux) decide(conn net.Conn) (*subListener, net.Conn, error) {
	if err := conn.SetDeadline(time.Now().Add(m.cfg.HelloTimeout)); err != nil {
		return nil, nil, err
	}
	buf := make([]byte, preambleSize)
	if _, err := io.ReadFull(conn, buf[:peekSize]); err != nil {
		return nil, nil, errs.E("rpc.mux", errs.Other, "reading the first bytes", err)
	}
	to := m.grpc
	decided := conn
	switch string(buf[:peekSize]) {
	case http2Start:
		decided = &prefixConn{Conn: conn, prefix: buf[:peekSize:peekSize]}
	case httpGet:
		to = m.http
		decided = &prefixConn{Conn: conn, prefix: buf[:peekSize:peekSize]}
	case preambleMagic:
		if _, err := io.ReadFull(conn, buf[peekSize:]); err != nil {
			return nil, nil, errs.E("rpc.mux", errs.Other, "reading the preamble", err)
		}
		var answer byte
		var refusal error
		to, answer, refusal = m.admitRaft(buf)
		if _, err := conn.Write([]byte{answer}); err != nil && refusal == nil {
			refusal = errs.E("rpc.mux", errs.Other, "answering the preamble", err)
		}
		if refusal != nil {
			return nil, nil, refusal
		}
	default:
		return nil, nil, errs.E("rpc.mux", errs.Corrupt, fmt.Sprintf("neither gRPC, Raft nor HTTP GET: starts with %q", buf[:peekSize]), nil)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, nil, err
	}
	return to, decided, nil
}

// admitRaft finds the group a preamble asks for, or the answer that refuses.
func (m *Mux) admitRaft(b []byte) (*subListener, byte, error) {
	p, err := DecodePreamble(b)
	if err != nil {
		return nil, answerVersion, err
	}
	if p.Cluster != m.cfg.Cluster {
		return nil, answerCluster, errs.E("rpc.mux", errs.Mismatch,
			fmt.Sprintf("server %d of cluster %s reached a server of cluster %s", p.Sender, p.Cluster, m.cfg.Cluster), nil)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, answerShutdown, net.ErrClosed
	}
	l := m.groups[p.Group]
	if l == nil {
		return nil, answerGroup, errs.E("rpc.mux", errs.NotExist, fmt.Sprintf("server %d asks for group %d, which is not served here", p.Sender, p.Group), nil)
	}
	return l, answerWelcome, nil
}
