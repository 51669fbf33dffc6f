package rpc

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"agentdrive/internal/errs"
)

// subListener receives decided connections.
type subListener struct {
	addr    Addr
	ch      chan net.Conn // unbuffered: a connection is handed over or still ours
	done    chan struct{}
	once    sync.Once
	onClose func()
}

var _ net.Listener = (*subListener)(nil)

func newSubListener(addr Addr, onClose func()) *subListener {
	return &subListener{addr: addr, ch: make(chan net.Conn), done: make(chan struct{}), onClose: onClose}
}

// Accept returns net.ErrClosed (wrapped) after Close.
func (l *subListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.ch:
		return conn, nil
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: l.addr.Network(), Addr: l.addr, Err: net.ErrClosed}
	}
}

func (l *subListener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.onClose()
	})
	return nil
}

func (l *subListener) Addr() net.Addr { return l.addr }

// offer hands conn to whoever accepts within limit.
func (l *subListener) offer(conn net.Conn, limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case l.ch <- conn:
		return nil
	case <-l.done:
		return net.ErrClosed
	case <-timer.C:
		return errs.E("rpc.mux", errs.Timeout, "nobody accepted the connection", nil)
	}
}

// prefixConn gives back the bytes that were read to decide.
type prefixConn struct {
	net.Conn
	prefix []byte // used by Read only
}

func (c *prefixConn) Read(p []byte) (int, error) {
	if len(c.prefix) > 0 {
		n := copy(p, c.prefix)
		c.prefix = c.prefix[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// raftLayer is the stream layer of one group.
type raftLayer struct {
	*subListener
	mux   *Mux
	group uint32
}

var _ raft.StreamLayer = (*raftLayer)(nil)

// defaultDialTimeout stands in for a Raft transport without a timeout.
const defaultDialTimeout = 10 * time.Second

// Dial connects to the same group on the server at address and waits for its
// welcome, so that a refusal is an error here and not a connection that ends.
func (r *raftLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	if timeout <= 0 {
		timeout = defaultDialTimeout
	}
	deadline := time.Now().Add(timeout)
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	conn, err := r.mux.cfg.Network.Dial(ctx, string(address))
	if err != nil {
		return nil, err
	}
	if err := r.hello(conn, string(address), deadline); err != nil {
		conn.Close() // the reason is err
		return nil, err
	}
	return conn, nil
}

func (r *raftLayer) hello(conn net.Conn, addr string, deadline time.Time) error {
	if err := conn.SetDeadline(deadline); err != nil {
		return errs.E("rpc.raft.dial", errs.Unavailable, addr, err)
	}
	p := Preamble{Group: r.group, Cluster: r.mux.cfg.Cluster, Sender: r.mux.cfg.Server}
	if _, err := conn.Write(AppendPreamble(nil, p)); err != nil {
		return errs.E("rpc.raft.dial", errs.Unavailable, addr, err)
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return errs.E("rpc.raft.dial", errs.Timeout, addr+" did not answer the preamble in time", err)
		}
		return errs.E("rpc.raft.dial", errs.Unavailable, addr+" did not answer the preamble", err)
	}
	if err := answerError(answer[0], addr, p); err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return errs.E("rpc.raft.dial", errs.Unavailable, addr, err)
	}
	return nil
}
