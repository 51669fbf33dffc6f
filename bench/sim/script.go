package sim

import (
	"slices"

	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/state"
	"agentdrive/metaserver/tree"

	client_core "agentdrive/fuseclient/core"
)

// patience is how long the world may take to become quiet without faults.
const patience = 40 * s

// script carries out the plan, heals everything, and checks what must hold
// then.
func (w *world) script() {
	w.raft.watch()
	for _, n := range w.nodes {
		n.chores()
	}
	for _, x := range w.plan.Steps {
		w.at(x.At, func() { w.step(x) })
	}
	w.runUntil(planTime, nil)
	w.heal()
	w.finish("every request is answered", w.quiet)
	for _, c := range w.clients {
		c.kernel.closeAll()
	}
	w.finish("every handle is closed", w.quiet)
	w.readEverything()
	w.finish("every mount is connected", w.connected)
	w.rest(3 * s)
	w.checkPins(false)
	for _, c := range w.clients {
		c.kernel.forgetAll()
	}
	w.rest(4 * s)
	if w.leases { // a lease that nobody uses is given back after 30 s, and then its pin
		w.runUntil(w.now+40*s, func() bool { return len(w.oracle.orphans) == 0 })
		w.rest(4 * s)
	}
	w.checkPins(true)
	w.checkReclaimed()
	w.shutdown()
	w.rest(2 * s)
	w.checkEnd()
	if w.failure == nil {
		w.history.judge()
	}
}

// rest lets time pass.
func (w *world) rest(d int64) { w.runUntil(w.now+d, nil) }

// finish waits for a state that must come.
func (w *world) finish(what string, done func() bool) {
	if w.runUntil(w.now+patience, done) || w.failure != nil {
		return
	}
	w.fail("it does not come about that %s", what)
	for _, c := range w.clients {
		w.note("%s: %+v", c.name, c.core.Stats())
		c.kernel.noteStuck()
		for _, x := range c.kernel.pending {
			w.note("  request %d %T %s", x.id, x.op, brief(x.op))
		}
	}
}

// noteStuck tells the trace what a kernel waits for.
func (k *kernel) noteStuck() {
	ad := k.ad
	k.c.w.note("  %d system calls, %d replies unwritten, %d unapplied, %d invalidations, %d orders",
		k.apps, len(ad.unwritten), ad.loose, ad.invals, len(ad.orders))
	for _, ino := range k.order {
		r := k.refs[ino]
		if l := &r.lock; l.writer || l.readers > 0 || len(l.queue) > 0 || len(r.locked) > 0 {
			k.c.w.note("  inode %d: writer %v, %d readers, %d wait, %d pages locked, %d wait for them",
				ino, l.writer, l.readers, len(l.queue), len(r.locked), len(r.stuck))
		}
	}
}

func (w *world) quiet() bool {
	for _, c := range w.clients {
		if k := c.kernel; k.dead || len(k.calls) > 0 || k.apps > 0 || !k.ad.idle() {
			return false
		}
	}
	return true
}

// connected reports whether every client is served by the leader. One that has
// nothing to do may be between two attempts.
func (w *world) connected() bool {
	for _, c := range w.clients {
		if c.kernel.closing {
			continue
		}
		if c.state != client_core.StateReady || w.raft.reign == nil || c.conn == nil || c.conn.node != w.raft.reign.node {
			return false
		}
	}
	return true
}

// step carries out one step of the plan.
func (w *world) step(x Step) {
	c := w.clients[x.Client%len(w.clients)]
	n := w.nodes[x.A%nodeCount]
	if x.Kind < Crash {
		c.kernel.run(x)
		return
	}
	w.note("fault %v", x)
	switch x.Kind {
	case Crash:
		n.crash()
		w.after(x.D, n.restart)
	case Isolate:
		n.isolate(true)
		w.after(x.D, func() { n.isolate(false) })
	case PauseNode:
		n.pause(true)
		w.after(x.D, func() { n.pause(false) })
	case Elect:
		w.raft.elect(n)
	case Split:
		w.split(x)
	case Relapse:
		w.relapse(x)
	case LoseEntry:
		w.raft.refuse = 1 + int(x.B%3)
	case Partition:
		for _, m := range w.nodes {
			if m == n || x.A == allNodes {
				w.net.partition(c.id, m.id)
				w.after(x.D, func() { w.net.heal(c.id, m.id) })
			}
		}
	case Break:
		if c.conn != nil {
			w.net.breakConn(c.conn)
		}
	case PauseClient:
		c.pause(true)
		w.after(x.D, func() { c.pause(false) })
	case Kill:
		c.kill()
		w.after(x.D, c.reborn)
	case EndSession:
		w.endSession(c)
	case BlocksDown:
		w.blocks.down = true
		w.after(x.D, w.blocks.heal)
	case BlocksFull:
		w.blocks.refuse = 1 + int(x.B%2)
	}
}

// split lets the leader reign on over a part of the clients, while the other
// nodes elect another.
func (w *world) split(x Step) {
	g := w.raft.reign
	if g == nil || !g.node.up {
		return
	}
	n := g.node
	n.isolate(true)
	n.deaf = true
	for _, c := range w.clients {
		if x.B>>c.id&1 == 1 && c.conn != nil {
			w.net.breakConn(c.conn)
		}
	}
	w.raft.elect(w.nodes[(n.id+1)%nodeCount])
	w.after(x.D, func() {
		n.isolate(false)
		n.hear()
	})
}

// relapse lets the core of the leader sleep through another node's reign.
func (w *world) relapse(x Step) {
	g := w.raft.reign
	if g == nil || !g.node.up {
		return
	}
	n := g.node
	n.pause(true)
	w.after(x.D/4, func() { // what clients sent until then waits for the core
		for _, k := range append([]*conn(nil), w.net.conns...) {
			if k.node == n {
				w.net.breakConn(k)
			}
		}
		w.raft.elect(w.nodes[(n.id+1)%nodeCount])
	})
	w.after(x.D-x.D/8, func() { w.raft.elect(n) })
	w.after(x.D, func() { n.pause(false) })
}

// heal ends all faults.
func (w *world) heal() {
	w.note("everything heals")
	w.raft.refuse, w.blocks.refuse = 0, 0
	w.blocks.heal()
	for _, n := range w.nodes {
		n.restart()
		n.pause(false)
		n.isolate(false)
		n.hear()
		for _, c := range w.clients {
			w.net.heal(c.id, n.id)
		}
	}
	for _, c := range w.clients {
		c.pause(false)
		c.reborn()
	}
}

// endSession ends a client's session at the server.
func (w *world) endSession(c *client) {
	g := w.raft.reign
	if g == nil || c.session == 0 || g.node.coreReign != g {
		return
	}
	g.node.submit(&state.CloseSession{Session: c.session})
}

// shutdown ends the mount, once.
func (k *kernel) shutdown() {
	if k.closing {
		return
	}
	k.closing = true
	inv := k.c.w.last + 1
	k.issue(client_core.Shutdown{}, func(a client_core.Answer) {
		k.c.w.data.allSynced(k.c, inv, a.Err)
		if a.Err != nil && k.c.lost == 0 && !k.failed {
			k.c.w.fail("%s cannot shut down: %v", k.c.name, a.Err)
		}
	})
}

func (k *kernel) closeAll() {
	for _, h := range append([]*handle(nil), k.handles...) {
		k.close(h)
	}
}

func (k *kernel) forgetAll() {
	for _, ino := range append([]meta.Ino(nil), k.order...) {
		k.forget(k.refs[ino])
	}
}

// readEverything lets every client read every file that it knows.
func (w *world) readEverything() {
	for _, c := range w.clients {
		k := c.kernel
		if k.closing {
			continue
		}
		for _, ino := range append([]meta.Ino(nil), k.order...) {
			if r := k.refs[ino]; isFile(r) {
				k.open(r)
				k.read(k.handles[len(k.handles)-1], 0, 96)
			}
		}
	}
	w.finish("every file is read", w.quiet)
	for _, c := range w.clients {
		c.kernel.closeAll()
	}
	w.finish("every handle is closed again", w.quiet)
}

// checkPins compares the pins of the leader, of the clients and of their
// kernels.
func (w *world) checkPins(none bool) {
	g := w.raft.reign
	if g == nil || w.failure != nil {
		return
	}
	for _, c := range w.clients {
		if c.kernel.closing {
			continue
		}
		known := len(c.kernel.refs) - 1
		if none && known != 0 {
			w.fail("the kernel of %s still references %d inodes", c.name, known)
		}
		// A lease keeps its inode pinned: under it the client gives references
		// that the servers are not asked for.
		held := c.core.Stats().Pins
		if held < known || held > known && !w.leases {
			w.fail("%s counts %d pins, its kernel references %d inodes", c.name, held, known)
		}
		pins := g.node.core.Pins(c.session)
		for _, p := range pins {
			if c.kernel.refs[p.Ino] == nil && !w.leases {
				w.fail("the leader counts %d pins of %s on inode %d, its kernel none", p.Count, c.name, p.Ino)
			}
		}
		if len(pins) != held {
			w.fail("the leader counts %d inodes pinned by %s, its client %d, its kernel %d", len(pins), c.name, held, known)
		}
		for _, ino := range c.kernel.order {
			if ino != meta.RootIno && !pinned(pins, ino) {
				w.fail("the leader does not know that %s references inode %d", c.name, ino)
			}
		}
	}
}

func pinned(pins []meta.Pin, ino meta.Ino) bool {
	return slices.ContainsFunc(pins, func(p meta.Pin) bool { return p.Ino == ino })
}

// checkReclaimed checks that nothing without a name is left.
func (w *world) checkReclaimed() {
	if w.failure != nil {
		return
	}
	if n := len(w.oracle.orphans); n > 0 {
		w.fail("%d inodes without names live on though nobody references them: %v", n, w.oracle.orphanList())
	}
	for _, c := range w.clients {
		if list, err := state.Replies(w.oracle.mem.View(), c.session); err != nil || len(list) > 0 {
			w.fail("%d replies of %s stay recorded, though it has them all: %v", len(list), c.name, err)
		}
	}
	if layer, ok, err := tree.Queued(w.oracle.mem.View(), 0); ok || err != nil {
		w.fail("the reclaim queue of layer %d is not worked off: %v", layer, err)
	}
}

// shutdown ends every mount.
func (w *world) shutdown() {
	if w.failure != nil {
		return
	}
	for _, c := range w.clients {
		c.kernel.shutdown()
	}
	w.finish("every mount is shut down", w.quiet)
	for _, c := range w.clients {
		c.kernel.issue(&meta.GetAttr{Ino: meta.RootIno}, func(a client_core.Answer) {
			if !errs.Is(a.Err, errs.Expired) {
				w.fail("%s answers a request after its end: %v", c.name, a.Err)
			}
		})
	}
}

// checkEnd checks that nothing is under way and all replicas agree.
func (w *world) checkEnd() {
	if w.failure != nil {
		return
	}
	for _, c := range w.clients {
		if st := c.core.Stats(); st.Requests+st.InFlight+st.Dirty+st.Files+st.Pins != 0 || st.State != client_core.StateEnded {
			w.fail("%s is not empty after its end: %+v", c.name, st)
		}
	}
	for _, n := range w.nodes {
		if n.submits != 0 {
			w.fail("%s leaves %d administrators without an answer", n.name, n.submits)
		}
	}
	list, err := state.Sessions(w.oracle.mem.View())
	if err != nil || len(list) > 0 {
		w.fail("%d sessions are open after the end: %v", len(list), err)
	}
	w.oracle.checkState()
}
