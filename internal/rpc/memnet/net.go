// Package memnet is a network inside one process that tests control.
//
// Net carries byte streams between named hosts: Host("m1") is the rpc.Network
// of host m1, whose addresses are "m1:port" or, visible on that host alone,
// "unix:/path". Links are directed, one for each ordered pair of hosts, and
// behave as a TCP connection sees a real network:
//
//   - a partitioned link delivers nothing: bytes, ends of streams and
//     answers to dials wait, connections do not break, and everything that
//     waited arrives after Heal;
//   - delay and bandwidth put off the arrival of bytes; order is kept;
//   - Cut breaks connections at once, as a reset does: both ends get an
//     error, bytes on the way are lost.
//
// Messages is something else: a network of messages, without goroutines or
// time of its own, for simulators that must replay exactly from a seed.
package memnet

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"agentdrive/internal/errs"
	"agentdrive/internal/rpc"
)

// Net is a set of hosts and the links between them. Safe for concurrent use.
type Net struct {
	mu        sync.Mutex // guards everything of this package but Messages; leaf
	links     map[pair]*link
	listeners map[string]*listener // by key, see endpoint
	refusing  map[string]bool      // hosts that refuse dials
	conns     map[*conn]struct{}   // both ends of every connection not closed
	nextPort  int
	changed   chan struct{} // closed and replaced when a link or listener changes
}

// pair names a directed link.
type pair struct{ from, to string }

// link is one direction between two hosts. Fields guarded by Net.mu.
type link struct {
	blocked   bool
	delay     time.Duration
	bandwidth int64     // bytes per second, 0 is unlimited
	free      time.Time // when the last byte sent will have left
}

// New makes a network in which every link is up and instant.
func New() *Net {
	return &Net{
		links: map[pair]*link{}, listeners: map[string]*listener{}, refusing: map[string]bool{},
		conns: map[*conn]struct{}{}, nextPort: 40000, changed: make(chan struct{}),
	}
}

// Host is the network as host name sees it. Hosts need not be declared.
func (n *Net) Host(name string) rpc.Network {
	if name == "" || strings.ContainsAny(name, ":/") {
		panic(fmt.Sprintf("memnet: bad host name %q", name))
	}
	return host{net: n, name: name}
}

// PartitionOneWay stops what travels from one host to the other. Replies of
// the other host still arrive.
func (n *Net) PartitionOneWay(from, to string) {
	n.change(func() { n.linkLocked(from, to).blocked = true })
}

// Partition stops both directions between a and b.
func (n *Net) Partition(a, b string) {
	n.change(func() {
		n.linkLocked(a, b).blocked = true
		n.linkLocked(b, a).blocked = true
	})
}

// Isolate partitions host from every other host of others.
func (n *Net) Isolate(host string, others ...string) {
	for _, o := range others {
		if o != host {
			n.Partition(host, o)
		}
	}
}

// Heal opens both directions between a and b.
func (n *Net) Heal(a, b string) {
	n.change(func() {
		n.linkLocked(a, b).blocked = false
		n.linkLocked(b, a).blocked = false
	})
}

// HealAll opens all links. Delays and bandwidths stay.
func (n *Net) HealAll() {
	n.change(func() {
		for _, l := range n.links {
			l.blocked = false
		}
	})
}

// SetDelay sets how long bytes travel from one host to the other.
func (n *Net) SetDelay(from, to string, d time.Duration) {
	n.change(func() { n.linkLocked(from, to).delay = d })
}

// SetBandwidth limits what all connections together send from one host to the
// other, in bytes per second; 0 is unlimited.
func (n *Net) SetBandwidth(from, to string, bytesPerSecond int64) {
	n.change(func() { n.linkLocked(from, to).bandwidth = bytesPerSecond })
}

// RefuseDials makes host answer dials with a refusal, as if its servers were
// gone, or ends that. Listeners and connections stay.
func (n *Net) RefuseDials(host string, refuse bool) {
	n.change(func() { n.refusing[host] = refuse })
}

// Cut resets all connections between a and b and returns how many there were.
func (n *Net) Cut(a, b string) int {
	return n.reset(func(c *conn) bool {
		return c.local == a && c.remote == b || c.local == b && c.remote == a
	})
}

// CutHost resets all connections of host and returns how many there were.
func (n *Net) CutHost(host string) int {
	return n.reset(func(c *conn) bool { return c.local == host || c.remote == host })
}

func (n *Net) reset(match func(*conn) bool) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	count := 0
	for c := range n.conns {
		if !c.in.reset && match(c) {
			count++ // the other end is marked by this reset
			c.resetLocked()
		}
	}
	return count
}

// change applies f and wakes whoever waits on a link or listener.
func (n *Net) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	n.wakeLocked()
}

func (n *Net) wakeLocked() {
	close(n.changed)
	n.changed = make(chan struct{})
	for c := range n.conns {
		c.in.wakeLocked()
		c.out.wakeLocked()
	}
}

func (n *Net) linkLocked(from, to string) *link {
	l := n.links[pair{from, to}]
	if l == nil {
		l = &link{}
		n.links[pair{from, to}] = l
	}
	return l
}

// host is one host's view.
type host struct {
	net  *Net
	name string
}

var _ rpc.Network = host{}

// endpoint resolves addr to the host that listens there and the key of its
// listener.
func (h host) endpoint(addr string) (target, key string, err error) {
	network, address, err := rpc.SplitAddr(addr)
	if err != nil {
		return "", "", err
	}
	if network == "unix" {
		return h.name, h.name + " " + addr, nil
	}
	target, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", "", errs.E("memnet.address", errs.Usage, addr, err)
	}
	if target == "" {
		target = h.name
	}
	return target, net.JoinHostPort(target, port), nil
}

// Listen implements rpc.Network.
func (h host) Listen(addr string) (net.Listener, error) {
	target, key, err := h.endpoint(addr)
	if err != nil {
		return nil, err
	}
	if target != h.name {
		return nil, errs.E("memnet.listen", errs.Unavailable, fmt.Sprintf("%s is not an address of host %s", addr, h.name), nil)
	}
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	shown := key
	if strings.HasPrefix(addr, "unix:") {
		shown = addr
	} else if strings.HasSuffix(key, ":0") {
		key = net.JoinHostPort(h.name, strconv.Itoa(n.nextPort))
		shown = key
		n.nextPort++
	}
	if n.listeners[key] != nil {
		return nil, errs.E("memnet.listen", errs.Busy, fmt.Sprintf("%s is in use", addr), syscall.EADDRINUSE).
			WithHint("stop that process, or choose another address with --listen")
	}
	l := &listener{net: n, key: key, addr: rpc.Addr(shown), woken: make(chan struct{})}
	n.listeners[key] = l
	return l, nil
}

// Dial implements rpc.Network. Over a partitioned link, either way, it waits
// for Heal or the end of ctx.
func (h host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	target, key, err := h.endpoint(addr)
	if err != nil {
		return nil, err
	}
	n := h.net
	for {
		if ctx.Err() != nil {
			return nil, dialEnded(ctx, addr)
		}
		n.mu.Lock()
		out, back := n.linkLocked(h.name, target), n.linkLocked(target, h.name)
		if !out.blocked && !back.blocked {
			c, err := n.connectLocked(h.name, target, key, addr)
			trip := out.delay + back.delay
			n.mu.Unlock()
			if err != nil {
				return nil, err
			}
			return awaitTrip(ctx, c, trip, addr)
		}
		changed := n.changed
		n.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// awaitTrip lets the round trip of a handshake pass.
func awaitTrip(ctx context.Context, c *conn, trip time.Duration, addr string) (net.Conn, error) {
	if trip <= 0 {
		return c, nil
	}
	timer := time.NewTimer(trip)
	defer timer.Stop()
	select {
	case <-timer.C:
		return c, nil
	case <-ctx.Done():
		c.Close() // never fails
		return nil, dialEnded(ctx, addr)
	}
}

func dialEnded(ctx context.Context, addr string) error {
	kind := errs.Canceled
	if ctx.Err() == context.DeadlineExceeded {
		kind = errs.Timeout
	}
	return errs.E("memnet.dial", kind, "connecting to "+addr, ctx.Err())
}

// connectLocked makes both ends and puts one into the listener's backlog.
func (n *Net) connectLocked(from, to, key, addr string) (*conn, error) {
	l := n.listeners[key]
	if l == nil || n.refusing[to] || len(l.backlog) >= maxBacklog {
		return nil, errs.E("memnet.dial", errs.Unavailable, fmt.Sprintf("nobody listens on %s", addr), syscall.ECONNREFUSED)
	}
	there, here := newPipe(n, from, to), newPipe(n, to, from)
	port := rpc.Addr(net.JoinHostPort(from, strconv.Itoa(n.nextPort)))
	n.nextPort++
	client := &conn{net: n, local: from, remote: to, in: here, out: there, localAddr: port, remoteAddr: l.addr}
	server := &conn{net: n, local: to, remote: from, in: there, out: here, localAddr: l.addr, remoteAddr: port}
	client.init()
	server.init()
	n.conns[client] = struct{}{}
	n.conns[server] = struct{}{}
	l.backlog = append(l.backlog, server)
	l.wakeLocked()
	return client, nil
}

// maxBacklog is the number of connections a listener keeps unaccepted.
const maxBacklog = 1024

// listener accepts connections. Fields after addr are guarded by net.mu.
type listener struct {
	net  *Net
	key  string
	addr rpc.Addr

	backlog []*conn
	closed  bool
	woken   chan struct{}
}

func (l *listener) wakeLocked() {
	close(l.woken)
	l.woken = make(chan struct{})
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		l.net.mu.Lock()
		if l.closed {
			l.net.mu.Unlock()
			return nil, &net.OpError{Op: "accept", Net: "mem", Addr: l.addr, Err: net.ErrClosed}
		}
		if len(l.backlog) > 0 {
			c := l.backlog[0]
			l.backlog = l.backlog[1:]
			l.net.mu.Unlock()
			return c, nil
		}
		woken := l.woken
		l.net.mu.Unlock()
		<-woken
	}
}

// Close refuses further dials and resets what nobody accepted.
func (l *listener) Close() error {
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	if l.closed {
		return &net.OpError{Op: "close", Net: "mem", Addr: l.addr, Err: net.ErrClosed}
	}
	l.closed = true
	delete(l.net.listeners, l.key)
	for _, c := range l.backlog {
		c.resetLocked()
	}
	l.backlog = nil
	l.wakeLocked()
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }
