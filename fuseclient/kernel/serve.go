package kernel

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"agentdrive/fuseclient/core"
	"agentdrive/metaserver/meta"
)

// request is one request taken off the device.
type request struct {
	header
	fd     int           // descriptor to answer on
	in     [][]byte      // the message: header and, for WRITE, data
	pooled *[]byte       // buffer behind in[0] to give back, or nil
	cancel chan struct{} // closed: nobody waits any longer
	call   Call
	change *change // of a WRITE, or SETATTR of the size
	dir    uint64  // of a RENAME, the other directory
	start  time.Time

	// Guarded by conn.mu.
	canceled bool
	parked   bool
	watched  chan struct{} // made by watch, closed when the request is over
}

// conn runs the requests of one FUSE connection.
//
// A worker goroutine either stands in device.read (idle) or runs a request.
// Whoever stops being idle for a request starts another worker if none is idle
// now; whoever ends a request goes away if enough are idle. So somebody always
// reads, however many requests wait for the Backend.
type conn struct {
	dev       *device
	ps        *fuse.ProtocolServer
	backend   Backend
	root      meta.Ino
	nodes     nodes
	led       *ledger
	locks     owners
	handles   atomic.Uint64 // the last one given
	stats     *connStats
	epochs    epochs
	hasEpoch  bool // FUSE_NOTIFY_INC_EPOCH is there
	noEntries bool // names get no lifetimes
	// listingWait is the constant of that name; tests that starve a thread
	// raise it.
	listingWait time.Duration
	// directWrites: handles that can write bypass the kernel's pages.
	directWrites bool
	log          *slog.Logger
	maxRunning   int
	maxIdle      int
	readBufs     sync.Pool // *[]byte of a largest request
	smallBufs    sync.Pool // *[]byte of smallBuf bytes
	replyBufs    [4]sync.Pool
	workers      sync.WaitGroup
	notes        sync.WaitGroup // goroutines that write notifications
	gone         chan struct{}  // closed with dead

	mu      sync.Mutex // guards what follows; taken before no other lock
	idle    int
	running int
	parked  []*request          // read but not started, in order of arrival
	calls   map[uint64]*request // running and parked, by unique
	dead    bool                // the connection is over, or shall be
}

// smallBuf holds any request but WRITE and large SETXATTR.
const smallBuf = 4096 + 512

// replyClasses are the sizes of reply buffers; the last holds the largest.
func (c *conn) replyClasses() [4]int {
	return [4]int{4096 + 1024, 64<<10 + 1024, 256<<10 + 1024, maxWrite + 1024}
}

func newConn(dev *device, b Backend, cfg Config) *conn {
	c := &conn{
		dev: dev, backend: b, root: cfg.Root, log: cfg.Logger,
		maxRunning: cfg.MaxRunning, maxIdle: cfg.IdleReaders,
		nodes: nodes{m: make(map[uint64]node)}, led: newLedger(), stats: newConnStats(cfg.Metrics), gone: make(chan struct{}),
		listingWait: listingWait,
		calls:       make(map[uint64]*request),
	}
	c.handles.Store(uint64(time.Now().UnixNano()) * handleStep) // above those of a process before this one
	pool := func(n int) func() any {
		return func() any { b := make([]byte, n); return &b }
	}
	c.readBufs.New = pool(cfg.MaxWrite + 8192)
	c.smallBufs.New = pool(smallBuf)
	for i, n := range c.replyClasses() {
		c.replyBufs[i].New = pool(n)
	}
	return c
}

// ino maps a node id to its inode.
func (c *conn) ino(node uint64) meta.Ino {
	if node == rootNode {
		return c.root
	}
	return meta.Ino(node)
}

// node maps an inode to its node id.
func (c *conn) node(ino meta.Ino) uint64 {
	if ino == c.root {
		return rootNode
	}
	return uint64(ino)
}

// start begins to serve; the INIT exchange is over.
func (c *conn) start() {
	c.mu.Lock()
	c.idle++
	c.mu.Unlock()
	c.workers.Add(1)
	go c.work()
}

// work is a worker. It begins counted as idle.
func (c *conn) work() {
	defer c.workers.Done()
	for {
		req, err := c.next()
		if err != nil {
			c.end(err)
			return
		}
		for req != nil {
			c.run(req)
			var stay bool
			if req, stay = c.finish(req); req == nil && !stay {
				return
			}
		}
	}
}

// next reads until there is a request to run.
func (c *conn) next() (*request, error) {
	p := c.readBufs.Get().(*[]byte)
	defer c.readBufs.Put(p)
	buf := *p
	for {
		if c.isDead() {
			return nil, unix.ENODEV
		}
		n, fd, err := c.dev.read(buf)
		if err != nil {
			return nil, err
		}
		if c.isDead() {
			return nil, unix.ENODEV // abandoned: closing the device answers it
		}
		if n < inHeaderBytes {
			c.log.Error("fuse: short request", "bytes", n)
			continue
		}
		h := parseHeader(buf)
		switch h.op {
		case opForget, opBatchForget:
			c.ps.HandleRequest([][]byte{buf[:n]}, nil)
			continue
		case opInterrupt:
			if n >= interruptedAt+8 && !c.interrupt(binary.NativeEndian.Uint64(buf[interruptedAt:])) {
				// Not here yet: another worker is about to take it.
				// The kernel sends the interrupt again.
				c.write(fd, errorReply(h.unique, syscall.EAGAIN))
			}
			continue
		}
		if req := c.takeRequest(h, fd, buf[:n]); c.admit(req) {
			return req, nil
		}
	}
}

// takeRequest copies a message out of the read buffer, so that a waiting
// request holds no more memory than it needs. The data of a WRITE gets a
// buffer of its own: it is handed to the Backend for good.
func (c *conn) takeRequest(h header, fd int, msg []byte) *request {
	req := &request{header: h, fd: fd, cancel: make(chan struct{}), start: time.Now()}
	req.call = Call{
		cancel: req.cancel, led: c.led, counts: c.stats.op(h.op),
		loose: h.op == opRead,
	}
	if (h.op == opRename || h.op == opRename2) && len(msg) >= renameDirAt+8 {
		req.dir = binary.NativeEndian.Uint64(msg[renameDirAt:])
	}
	head, data := msg, []byte(nil)
	if h.op == opWrite && len(msg) >= writeInBytes {
		head, data = msg[:writeInBytes], append([]byte(nil), msg[writeInBytes:]...)
	}
	if len(head) <= smallBuf {
		req.pooled = c.smallBufs.Get().(*[]byte)
		head = (*req.pooled)[:copy(*req.pooled, head)]
	} else {
		head = slices.Clone(head)
	}
	req.in = [][]byte{head}
	if data != nil {
		req.in = append(req.in, data)
	}
	return req
}

// changeOf recognises the requests during which the kernel may hold pages of a
// file locked while they wait for the servers.
func (c *conn) changeOf(req *request) *change {
	e, in := binary.NativeEndian, req.in[0]
	switch {
	case req.op == opWrite && len(in) >= writeInBytes:
		return &change{ino: c.ino(req.node), span: pages(e.Uint64(in[writeOffAt:]), uint64(e.Uint32(in[writeSizeAt:])))}
	case req.op == opSetAttr && uint32At(in, setAttrValidAt)&setAttrSize != 0:
		return &change{ino: c.ino(req.node), span: span{0, endless}, all: true}
	}
	return nil
}

// admit registers a request. It reports whether the caller shall run it now;
// otherwise it is parked and the caller stays idle.
func (c *conn) admit(req *request) bool {
	if req.change = c.changeOf(req); req.change != nil {
		c.led.enter(req.change)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return false // the kernel has answered it
	}
	c.calls[req.unique] = req
	if c.running >= c.maxRunning {
		req.parked = true
		c.parked = append(c.parked, req)
		return false
	}
	c.running++
	c.idle--
	if c.idle == 0 {
		c.idle++
		c.workers.Add(1)
		go c.work()
	}
	return true
}

// finish ends a request. The caller runs the request returned; if there is
// none it goes on as idle (stay) or goes away.
func (c *conn) finish(req *request) (next *request, stay bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls[req.unique] == req {
		delete(c.calls, req.unique)
	}
	if req.watched != nil {
		close(req.watched)
	}
	if len(c.parked) > 0 {
		next = c.parked[0]
		next.parked = false
		c.parked = slices.Delete(c.parked, 0, 1)
		return next, true
	}
	c.running--
	if c.idle >= c.maxIdle {
		return nil, false
	}
	c.idle++
	return nil, true
}

// call returns what the Backend is given of a request.
func (c *conn) call(unique uint64) *Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	if req := c.calls[unique]; req != nil {
		return &req.call
	}
	return &Call{led: c.led} // abandoned: nobody gets the answer
}

// run executes a request and writes its reply.
func (c *conn) run(req *request) {
	out, put := c.replyBuf(replyRoom(req.op, req.in[0]))
	defer put()
	defer c.settled(req)
	n, st := c.ps.HandleRequest(req.in, [][]byte{out})
	reply := out[:n]
	if n == 0 {
		if st.Ok() {
			return // no reply wanted
		}
		reply = errorReply(req.unique, syscall.Errno(st))
	}
	c.led.censor(&req.call, req.header, req.in[0], reply, c.ino)
	if r, ok := req.call.op.(core.ReadFile); ok && req.op == opRead {
		c.led.distrust(&req.call, r)
	}
	if req.op == opReadDirPlus {
		c.epochs.list(listing{req.node, req.pid})
	}
	g := parseGift(req.header, reply)
	c.nodes.add(g)
	if !c.write(req.fd, reply) {
		c.takeBack(g)
	}
}

// settled follows the writing of a reply: invalidations may pass it now, and
// what it left in the kernel without a lease is dropped.
func (c *conn) settled(req *request) {
	if req.pooled != nil {
		c.smallBufs.Put(req.pooled)
		req.pooled = nil
	}
	if d := c.led.written(&req.call); d != nil {
		c.release(d.ino, d)
	}
	c.withdraw(req)
	req.call.counts.took(time.Since(req.start))
}

// withdraw ends the change that a request was.
func (c *conn) withdraw(req *request) {
	if ch := req.change; ch != nil {
		req.change = nil
		c.release(ch.ino, c.led.leave(ch)...)
	}
}

// takeBack returns what a reply would have given.
func (c *conn) takeBack(g gift) {
	for _, id := range g.nodes {
		c.nodes.forget(id, 1)
		c.backend.Forget(c.ino(id), 1)
	}
	if g.opened != 0 {
		c.nodes.close(g.opened)
		c.backend.CloseFile(c.ino(g.opened))
	}
}

// write sends a message and reports whether the kernel took it. ENOENT means
// that the request is no more: it was aborted.
func (c *conn) write(fd int, msg []byte) bool {
	for {
		_, err := unix.Write(fd, msg)
		switch {
		case err == nil:
			return true
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENOTCONN):
			return false
		default:
			c.log.Error("fuse: reply refused by the kernel", "bytes", len(msg), "err", err)
			return false
		}
	}
}

// replyBuf returns a buffer of at least n bytes and what gives it back.
func (c *conn) replyBuf(n int) ([]byte, func()) {
	for i, size := range c.replyClasses() {
		if n <= size {
			p := c.replyBufs[i].Get().(*[]byte)
			return *p, func() { c.replyBufs[i].Put(p) }
		}
	}
	return make([]byte, n), func() {}
}

func (c *conn) isDead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead
}

// end marks the connection as over and lets every request go. All readers come
// here on their way out: the kernel answers each of their reads with the same
// error.
func (c *conn) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle--
	c.endLocked(err)
}

// abandon is end by our own will: workers leave the device as soon as their
// read returns. It reports how many still stand in one.
func (c *conn) abandon() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(unix.ENODEV)
	return c.idle
}

func (c *conn) endLocked(err error) {
	if c.dead {
		return
	}
	c.dead = true
	close(c.gone)
	if !errors.Is(err, syscall.ENODEV) && !errors.Is(err, syscall.ECONNABORTED) {
		c.log.Error("fuse: cannot read requests", "err", err)
	}
	for _, req := range c.calls {
		c.cancelLocked(req) // ends the watchers of parked ones too
	}
	for _, req := range c.parked {
		delete(c.calls, req.unique)
	}
	c.parked = nil
}

// cancelLocked closes the request's cancel channel once.
func (c *conn) cancelLocked(req *request) {
	if !req.canceled {
		req.canceled = true
		close(req.cancel)
	}
}

// settle waits for the workers to go and gives back to the Backend everything
// that the kernel still held.
func (c *conn) settle() error {
	c.workers.Wait()
	c.notes.Wait()
	for id, n := range c.nodes.drain() {
		for range n.opens {
			c.backend.CloseFile(c.ino(id))
		}
		if n.lookups > 0 {
			c.backend.Forget(c.ino(id), n.lookups)
		}
	}
	return c.dev.close()
}
