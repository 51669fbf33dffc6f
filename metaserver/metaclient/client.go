// Package metaclient finds the metadata servers and speaks to them: calls of
// the service Admin, the cluster map, and streams of frames to the leader of a
// group.
package metaclient

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	"agentdrive/internal/errs"
	"agentdrive/internal/rpc"
	"agentdrive/internal/rpc/rpcerr"
	"agentdrive/metaserver/meta"
)

// Config of a Client.
type Config struct {
	Servers []string // addresses of metadata servers, at least one
	Network rpc.Network
}

// Client speaks to a cluster's metadata servers. Safe for concurrent use.
type Client struct {
	network rpc.Network

	mu      sync.Mutex // guards the fields below; leaf
	servers []string
	conns   map[string]*grpc.ClientConn
	leaders map[uint32]string    // presumed, by group
	turn    int                  // whom to ask next when nobody is presumed
	failed  map[string]time.Time // when an address last did not answer

	answered map[string]time.Time // when an address last said hello
	last     *meta.MapReply
	closed   bool
}

// New makes a client; nothing is sent before the first call.
func New(cfg Config) (*Client, error) {
	if len(cfg.Servers) == 0 {
		return nil, errs.E("metaclient", errs.Usage, "no metadata servers are known", nil).
			WithHint("name them with --servers HOST:PORT,... or point --data at a local cluster")
	}
	return &Client{
		network: cfg.Network, servers: append([]string(nil), cfg.Servers...),
		conns: map[string]*grpc.ClientConn{}, leaders: map[uint32]string{}, failed: map[string]time.Time{}, answered: map[string]time.Time{},
	}, nil
}

// Close closes all connections; streams on them break.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	var all []error
	for a, cc := range c.conns {
		all = append(all, cc.Close())
		delete(c.conns, a)
	}
	return errors.Join(all...)
}

// Servers returns the addresses in use: those given, then those of the map.
func (c *Client) Servers() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.servers...)
}

func (c *Client) conn(addr string) (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errs.E("metaclient.call", errs.Canceled, "the client is closed", nil)
	}
	if cc := c.conns[addr]; cc != nil {
		return cc, nil
	}
	cc, err := rpc.NewClient(c.network, addr)
	if err != nil {
		return nil, err
	}
	c.conns[addr] = cc
	return cc, nil
}

// presumed returns whom to ask about a group.
func (c *Client) presumed(group uint32) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.presumedLocked(group)
}

func (c *Client) presumedLocked(group uint32) string {
	if a := c.leaders[group]; a != "" {
		return a
	}
	return c.servers[c.turn%len(c.servers)]
}

// distrust is how long a hint to a server that did not answer is ignored:
// followers name a dead leader until they have elected another.
const distrust = time.Second

// learn takes a NotLeader's hint, or goes on to the next server. A failure that
// is told late, or by several callers, moves on once: with two steps for each
// failure every second server would never be asked.
func (c *Client) learn(group uint32, asked, hint string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.presumedLocked(group) != asked {
		return
	}
	if hint != "" && hint != asked && time.Since(c.failed[hint]) > distrust {
		c.leaders[group] = hint
		return
	}
	if a := c.leaders[group]; a != "" && a != asked {
		return // another call found the leader meanwhile
	}
	delete(c.leaders, group)
	c.turn++
}

// unanswered goes on to the next server after one did not answer.
func (c *Client) unanswered(group uint32, asked string) {
	c.mu.Lock()
	c.failed[asked] = time.Now()
	delete(c.answered, asked)
	c.mu.Unlock()
	c.learn(group, asked, "")
}

// believed returns a hint unless its server just did not answer.
func (c *Client) believed(hint string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.failed[hint]) <= distrust {
		return ""
	}
	return hint
}

func (c *Client) remember(group uint32, addr string) {
	c.mu.Lock()
	c.leaders[group] = addr
	c.mu.Unlock()
}

func codecFor(addr string) rpc.ErrorCodec {
	return rpc.ErrorCodec{FromWire: func(err error) error { return rpcerr.FromStatus("metaserver", addr, err) }}
}

// At makes a call of one server.
func (c *Client) At(ctx context.Context, addr, method string, call, reply any) error {
	req, err := json.Marshal(call)
	if err != nil {
		return errs.E("metaclient.call", errs.Invalid, method, err)
	}
	cc, err := c.conn(addr)
	if err != nil {
		return err
	}
	b, err := rpc.CallUnary(ctx, cc, codecFor(addr), rpc.Method{Service: meta.AdminService, Name: method}, req)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, reply); err != nil {
		return errs.E("metaclient.call", errs.Corrupt, fmt.Sprintf("reply of %s from %s", method, addr), err)
	}
	return nil
}

// retryPause is the wait between rounds over the servers.
const retryPause = 50 * time.Millisecond

// helloTimeout is how long a server may take to say hello. Beyond it another
// is asked: a process that was stopped keeps its connections, and the call
// itself may rightly take long.
const helloTimeout = time.Second

// alive returns nil if a server answers, or did within the last distrust; kind
// errs.Unavailable if it hangs.
func (c *Client) alive(ctx context.Context, addr string) error {
	c.mu.Lock()
	last := c.answered[addr]
	c.mu.Unlock()
	if time.Since(last) <= distrust {
		return nil
	}
	hello, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	err := c.At(hello, addr, meta.CallHello, &meta.Empty{}, new(meta.HelloReply))
	switch {
	case ctx.Err() != nil || errs.Is(err, errs.Unavailable):
		return err
	case errs.Is(err, errs.Timeout):
		return errs.E("metaclient.hello", errs.Unavailable, fmt.Sprintf("metadata server %s hangs: it takes connections and does not answer", addr), err)
	}
	c.mu.Lock()
	c.answered[addr] = time.Now()
	c.mu.Unlock()
	return nil // whatever it answered
}

// Leader makes a call of the leader of a group. It follows hints, and asks
// again while nobody leads or answers, until ctx ends; then the last error is
// returned with kind errs.Unavailable.
func (c *Client) Leader(ctx context.Context, group uint32, method string, call, reply any) error {
	for {
		addr := c.presumed(group)
		err := c.alive(ctx, addr)
		if err == nil {
			err = c.At(ctx, addr, method, call, reply)
		}
		switch {
		case err == nil:
			c.remember(group, addr)
			return nil
		case errs.Is(err, errs.NotLeader):
			c.learn(group, addr, errs.HintOf(err))
		case errs.Is(err, errs.Unavailable):
			c.unanswered(group, addr)
		case ctx.Err() != nil:
			return errs.E("metaclient.call", errs.Unavailable, "no answer from the metadata servers", err).
				WithHint("see what is wrong with: agentdrive status")
		default:
			return err
		}
		if waitErr := sleep(ctx, retryPause); waitErr != nil {
			return errs.E("metaclient.call", errs.Unavailable, fmt.Sprintf("no leader of group %d answers", group), err).
				WithHint("see what is wrong with: agentdrive status")
		}
	}
}

// patience is how long one server may take before another is asked as well: a
// process that hangs keeps its connections.
const patience = 250 * time.Millisecond

// Any makes a call of whichever server answers first, each tried once. The
// next is asked when one failed or is slow.
func (c *Client) Any(ctx context.Context, method string, call, reply any) error {
	type answer struct {
		body json.RawMessage
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // those still asked stop
	servers := c.Servers()
	answers := make(chan answer, len(servers))
	ask := func() {
		addr := servers[0]
		servers = servers[1:]
		go func() {
			var a answer
			a.err = c.At(ctx, addr, method, call, &a.body)
			answers <- a
		}()
	}
	var all []error
	timer := time.NewTimer(patience)
	defer timer.Stop()
	ask()
	for asked := 1; asked > 0; {
		select {
		case a := <-answers:
			asked--
			if a.err == nil {
				if err := json.Unmarshal(a.body, reply); err != nil {
					return errs.E("metaclient.call", errs.Corrupt, "reply of "+method, err)
				}
				return nil
			}
			all = append(all, a.err)
			if !errs.Is(a.err, errs.Unavailable) && !errs.Is(a.err, errs.Timeout) {
				return a.err
			}
		case <-timer.C:
		}
		if len(servers) > 0 && ctx.Err() == nil {
			ask()
			asked++
			timer.Reset(patience)
		}
	}
	return errs.E("metaclient.call", errs.Unavailable, "no metadata server answers", errors.Join(all...)).
		WithHint("is the cluster running? start it with: agentdrive up")
}

// Map fetches the cluster map and learns the metadata servers' addresses.
func (c *Client) Map(ctx context.Context) (*meta.MapReply, error) {
	r := new(meta.MapReply)
	if err := c.Any(ctx, meta.CallMap, &meta.MapCall{}, r); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil || r.Version >= c.last.Version {
		c.last = r
	}
	for _, s := range r.MetaServers {
		known := false
		for _, a := range c.servers {
			known = known || a == s.Address
		}
		if !known {
			c.servers = append(c.servers, s.Address)
		}
	}
	return c.last, nil
}

// Cluster decodes the id of a cluster.
func Cluster(hexID string) (id [16]byte, err error) {
	b, err := hex.DecodeString(hexID)
	if err != nil || len(b) != len(id) {
		return id, errs.E("cluster.id", errs.Invalid, fmt.Sprintf("%q is not a cluster id of 32 hex digits", hexID), err)
	}
	copy(id[:], b)
	return id, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
