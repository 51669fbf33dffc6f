package sim

import (
	"math/rand/v2"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/core"
	"agentdrive/metaserver/meta"

	client_core "agentdrive/fuseclient/core"
)

// network carries streams between clients and nodes. A stream delivers in
// order or breaks; when it breaks, whatever is under way is lost in both
// directions. A partition holds messages back until it heals, as retransmission
// does.
type network struct {
	w       *world
	conns   []*conn // alive, by number
	lastID  uint64
	blocked map[[2]int]bool // client, node; look-up only
}

func newNetwork(w *world) *network { return &network{w: w, blocked: map[[2]int]bool{}} }

// conn is one stream.
type conn struct {
	id     uint64
	client *client
	node   *node
	life   int    // of the node
	stream uint64 // the client's number
	server core.StreamID
	rng    *rand.Rand

	clientOpen, serverOpen bool
	toServer, toClient     lane
}

// lane is one direction of a stream.
type lane struct {
	last int64    // no message arrives before this
	held []func() // arrived at a partition, in order
}

// dial opens a stream, or tells the client that it cannot.
func (n *network) dial(c *client, stream uint64, to *node) {
	w := n.w
	d := span(c.rng, 200*us, 5*ms)
	w.after(d, func() {
		if c.want != stream {
			return // abandoned meanwhile
		}
		if !to.up || n.blocked[[2]int{c.id, to.id}] {
			w.after(span(c.rng, 1*ms, 100*ms), func() {
				c.post(client_core.StreamDown{Stream: stream, Err: errs.E("dial", errs.Unavailable, "no answer", nil)})
			})
			return
		}
		n.lastID++
		k := &conn{id: n.lastID, client: c, node: to, life: to.life, stream: stream, rng: c.rng, clientOpen: true, serverOpen: true}
		n.conns = append(n.conns, k)
		c.conn = k
		to.accept(k)
		n.move(k, &k.toClient, func() {
			if k.clientOpen {
				c.post(client_core.StreamUp{Stream: stream})
			}
		})
	})
}

// move lets fn happen at the other end, after everything sent before.
func (n *network) move(k *conn, l *lane, fn func()) {
	d := span(k.rng, 100*us, 3*ms)
	if k.rng.IntN(16) == 0 {
		d = span(k.rng, 3*ms, 60*ms)
	}
	if n.w.rule == ReorderStreams {
		l.last = 0
	}
	l.last = max(l.last, n.w.now+d)
	n.w.at(l.last, func() {
		if len(l.held) > 0 || n.blocked[[2]int{k.client.id, k.node.id}] {
			l.held = append(l.held, fn)
			return
		}
		fn()
	})
}

// fromClient carries a frame to the server.
func (n *network) fromClient(k *conn, body []byte) {
	if !k.clientOpen {
		return
	}
	n.move(k, &k.toServer, func() {
		if !k.serverOpen || k.node.life != k.life {
			return
		}
		if f := n.decode(body); f != nil {
			n.w.noteFrame(k.node.name+"<"+k.client.name, body, f)
			k.node.post(core.StreamFrame{Stream: k.server, Frame: f})
		}
	})
}

// fromServer carries a frame to the client.
func (n *network) fromServer(k *conn, f meta.Frame) {
	if !k.serverOpen {
		return
	}
	body := meta.EncodeFrame(nil, f)
	n.move(k, &k.toClient, func() {
		if !k.clientOpen {
			return
		}
		if f := n.decode(body); f != nil {
			n.w.noteFrame(k.client.name+"<"+k.node.name, body, f)
			k.client.post(client_core.FrameIn{Stream: k.stream, Frame: f})
		}
	})
}

func (n *network) decode(body []byte) meta.Frame {
	f, err := meta.DecodeFrame(body)
	if err != nil {
		n.w.fail("a frame cannot be read back: %v", err)
	}
	return f
}

// closeFromClient ends a stream at the client's wish.
func (n *network) closeFromClient(k *conn) {
	k.clientOpen = false
	n.move(k, &k.toServer, func() { n.serverGone(k) })
}

// closeFromServer ends a stream after what was sent before.
func (n *network) closeFromServer(k *conn) {
	k.serverOpen = false
	n.move(k, &k.toClient, func() {
		n.clientGone(k, errs.E("stream", errs.Unavailable, "closed by the server", nil))
	})
}

// clientGone tells the client that its stream ended.
func (n *network) clientGone(k *conn, err error) {
	if k.clientOpen {
		k.clientOpen = false
		k.client.post(client_core.StreamDown{Stream: k.stream, Err: err})
	}
	n.forget(k)
}

// serverGone tells the node that a stream ended.
func (n *network) serverGone(k *conn) {
	if k.serverOpen && k.node.life == k.life {
		k.serverOpen = false
		k.node.post(core.StreamClosed{Stream: k.server})
	}
	n.forget(k)
}

func (n *network) forget(k *conn) {
	if k.clientOpen || k.serverOpen {
		return
	}
	for i, x := range n.conns {
		if x == k {
			n.conns = append(n.conns[:i:i], n.conns[i+1:]...)
			return
		}
	}
}

// breakConn loses everything under way; both ends learn of it in their time.
func (n *network) breakConn(k *conn) {
	k.toClient.held, k.toServer.held = nil, nil
	client, server := k.clientOpen, k.serverOpen
	k.clientOpen, k.serverOpen = false, false
	n.w.note("break %s-%s", k.client.name, k.node.name)
	if client {
		n.w.after(span(k.rng, 0, 50*ms), func() {
			k.client.post(client_core.StreamDown{Stream: k.stream, Err: errs.E("stream", errs.Unavailable, "broken", nil)})
		})
	}
	if server && k.node.life == k.life {
		n.w.after(span(k.rng, 0, 50*ms), func() {
			if k.node.life == k.life {
				k.node.post(core.StreamClosed{Stream: k.server})
			}
		})
	}
	n.forget(k)
}

// partition holds back what passes between a client and a node.
func (n *network) partition(c, node int) { n.blocked[[2]int{c, node}] = true }

// heal lets it pass again.
func (n *network) heal(c, node int) {
	if !n.blocked[[2]int{c, node}] {
		return
	}
	delete(n.blocked, [2]int{c, node})
	for _, k := range append([]*conn(nil), n.conns...) {
		if k.client.id == c && k.node.id == node {
			n.release(&k.toServer)
			n.release(&k.toClient)
		}
	}
}

func (n *network) release(l *lane) {
	held := l.held
	l.held = nil
	for _, fn := range held {
		fn()
	}
}
