package core

import (
	"bytes"
	"fmt"
	"hash"
	"hash/fnv"
	"math/rand"
	"testing"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
)

// world is one client under a seeded schedule: a server that answers late and
// out of order, streams that break, sessions that are ended, blocks that are
// stored late or not at all, and applications that write, read and give up.
type world struct {
	t    testing.TB
	seed int64
	rng  *rand.Rand
	now  Time
	c    *Client
	srv  *fakeServer
	hash hash.Hash64
	calm bool // no more faults
	lost bool // a session was lost

	connect  *Connect // asked for
	stream   uint64   // open, 0 none
	hello    bool     // the stream's first frame is awaited
	session  meta.SessionID
	toServer []meta.Frame
	held     []*meta.Reply // executed, not yet sent
	toClient []meta.Frame
	timer    Time
	state    State

	invals  []Invalidate
	pages   []*call // dirty pages that an invalidation drives out
	kinds   map[*meta.Reply]meta.OpKind
	foreign *foreign // a change by another mount, under way

	puts  []PutBlock
	lates []BlockLate

	lastReq ReqID
	calls   map[ReqID]*call
	files   []*simFile
	kernel  map[meta.Ino]uint64
}

// simFile is a file as the applications know it. ops is the kernel's inode
// lock: a change has it alone.
type simFile struct {
	name    string
	ino     meta.Ino
	open    int
	data    []byte
	past    [][]byte // contents since the oldest read under way began
	locked  bool
	reads   int
	unknown bool // an outcome is unknown: not checked until the end
	held    bool // has data that only the client has
	changes int  // how often data changed
	kept    bool // the kernel may have pages that it need not ask for
}

// call is a request under way.
type call struct {
	id   ReqID
	op   any
	file *simFile
	from int // ReadFile: index into past

	changes int // simFile.changes when it began
}

func newWorld(t testing.TB, seed int64, leases bool) *world {
	w := &world{t: t, seed: seed, rng: rand.New(rand.NewSource(seed)), hash: fnv.New64a(),
		calls: map[ReqID]*call{}, kernel: map[meta.Ino]uint64{}, kinds: map[*meta.Reply]meta.OpKind{}}
	w.srv = newFakeServer(w.fatal)
	w.srv.again = func() bool { return !w.calm && w.rng.Intn(3) == 0 }
	w.srv.mapMax = 2 + w.rng.Intn(20)
	block := 16 << 10
	if leases && seed%2 == 0 {
		block = 64 << 10 // small files share blocks
	}
	w.c = New(Config{
		Group: 1, Open: meta.Open{Nonce: [16]byte{1}}, NewBlockID: testIDs(),
		MaxDirty: 128 << 10, BlockSize: block, MaxPuts: 3, NoLeases: !leases,
	})
	if leases {
		w.srv.grantLeases(func() bool { return w.rng.Intn(5) == 0 })
	}
	for i := range 3 {
		w.files = append(w.files, &simFile{name: fmt.Sprint("f", i)})
	}
	return w
}

func (w *world) fatal(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d: %s", w.seed, fmt.Sprintf(format, args...))
}

func (w *world) step(ev Event) {
	w.t.Helper()
	w.traceEvent(ev)
	for _, e := range append([]Effect(nil), w.c.Step(w.now, ev)...) {
		w.traceEffect(e)
		w.effect(e)
	}
	if err := w.c.CheckInvariants(); err != nil {
		w.fatal("after %T: %v", ev, err)
	}
	if w.srv.on {
		w.checkTruth()
	}
}

func (w *world) effect(e Effect) {
	switch e := e.(type) {
	case Connect:
		fmt.Fprintf(w.hash, "connect %d %s %d\n", e.Stream, e.Hint, e.After)
		w.cutStream()
		w.connect = &e
	case Disconnect:
		fmt.Fprintf(w.hash, "disconnect %d\n", e.Stream)
		if e.Stream == w.stream {
			w.cutStream()
		}
	case Send:
		w.hash.Write(meta.EncodeFrame(nil, e.Frame))
		if e.Stream == w.stream {
			w.toServer = append(w.toServer, e.Frame)
		}
	case PutBlock:
		fmt.Fprintf(w.hash, "put %d %v %d %v\n", e.Token, e.ID, len(e.Data), e.Owner)
		w.puts = append(w.puts, e)
	case Answer:
		fmt.Fprintf(w.hash, "answer %d %T %v\n", e.ID, e.Result, e.Err)
		w.answered(e)
	case Invalidate:
		fmt.Fprintf(w.hash, "invalidate %d %+v\n", e.Token, e.Items)
		w.invals = append(w.invals, e)
		w.driveOut(e)
	case Timer:
		fmt.Fprintf(w.hash, "timer %d\n", e.At)
		w.timer = e.At
	case Notice:
		fmt.Fprintf(w.hash, "notice %s %s\n", e.State, e.Text)
		w.state = e.State
	}
}

// cutStream loses what is in flight; a random prefix still reaches the server.
func (w *world) cutStream() {
	if w.stream != 0 {
		for n := w.rng.Intn(len(w.toServer) + 1); n > 0; n-- {
			w.serve()
		}
	}
	w.stream, w.session, w.toServer, w.toClient, w.held = 0, 0, nil, nil, nil
}

// serve lets the server take one frame.
func (w *world) serve() {
	if w.stream == 0 || len(w.toServer) == 0 {
		return
	}
	f := w.toServer[0]
	w.toServer = w.toServer[1:]
	if w.hello {
		if !w.calm && w.rng.Intn(6) == 0 {
			w.toServer = nil
			w.toClient = append(w.toClient, &meta.NotLeader{Leader: 2, Address: "other"})
			return
		}
		w.hello = false
		var answer meta.Frame
		w.session, answer = w.srv.hello(f)
		w.toClient = append(w.toClient, answer)
		return
	}
	if w.session == 0 || w.srv.sessions[w.session].ended {
		return
	}
	now, reply := w.srv.frame(w.session, f)
	if now != nil {
		w.toClient = append(w.toClient, now)
	}
	if reply != nil {
		w.kinds[reply] = f.(*meta.OpFrame).Op.Kind()
		w.held = append(w.held, reply)
	}
}

func (w *world) releaseReply() {
	if len(w.held) == 0 {
		return
	}
	i := w.rng.Intn(len(w.held))
	r := w.held[i]
	w.held = append(w.held[:i:i], w.held[i+1:]...)
	if ses := w.srv.sessions[w.session]; ses == nil || ses.ended {
		return
	}
	w.srv.sent(w.session, r)
	if w.srv.on {
		r.Grants = nil
		w.srv.grantIn(r, w.kinds[r])
	}
	delete(w.kinds, r)
	w.toClient = append(w.toClient, r)
}

func (w *world) deliver() {
	if len(w.toClient) == 0 {
		return
	}
	f := w.toClient[0]
	w.toClient = w.toClient[1:]
	if e, ok := f.(*meta.Evicted); ok && e.Err.Msg != "closed" {
		w.sessionLost()
	}
	w.step(FrameIn{Stream: w.stream, Frame: f})
}

// sessionLost: what the client alone had is gone when it learns of it.
func (w *world) sessionLost() {
	w.lost = true
	for _, f := range w.files {
		f.kept = false // about to be told to forget; servers do not wait for it
		if f.held || f.locked {
			f.unknown = true
		}
	}
}

func (w *world) evict() {
	for id := meta.SessionID(1); id <= w.srv.lastSes; id++ {
		if ses := w.srv.sessions[id]; !ses.ended {
			ses.ended = true
			if id == w.session {
				w.held = nil
				w.toClient = append(w.toClient, &meta.Evicted{Err: errs.E("session", errs.Expired, "", nil)})
			}
		}
	}
}

func (w *world) endPut() {
	if len(w.puts) == 0 {
		return
	}
	i := w.rng.Intn(len(w.puts))
	p := w.puts[i]
	w.puts = append(w.puts[:i:i], w.puts[i+1:]...)
	if !w.calm && w.rng.Intn(60) == 0 {
		for _, f := range w.files {
			f.unknown = true
		}
		w.step(BlockFailed{Token: p.Token, Err: errs.E("block.put", errs.NoSpace, "", nil)})
		return
	}
	w.srv.blocks[p.ID] = fakeBlock{bytes.Clone(p.Data), p.Owner}
	ev := BlockStored{Token: p.Token, PG: 7, Epoch: 3, Acked: []chunk.ServerID{1, 2, 3}}
	if w.rng.Intn(2) == 0 {
		ev.Acked, ev.Missing = ev.Acked[:2:2], []chunk.ServerID{3}
		w.lates = append(w.lates, BlockLate{Token: p.Token, Server: 3})
	}
	w.step(ev)
}

func (w *world) endLate() {
	if len(w.lates) == 0 {
		return
	}
	ev := w.lates[0]
	w.lates = w.lates[1:]
	w.step(ev)
}

// tick lets time pass, at most to just beyond the timer.
func (w *world) tick() {
	d := Time(w.rng.Int63n(50e6))
	if w.timer > w.now && w.rng.Intn(2) == 0 {
		d = min(w.timer-w.now, 1e9)
	}
	w.now += d
	if w.connect != nil && w.now >= w.connect.After {
		n := w.connect.Stream
		w.connect = nil
		if !w.calm && w.rng.Intn(4) == 0 {
			w.step(StreamDown{Stream: n, Err: errs.E("dial", errs.Unavailable, "", nil)})
		} else {
			w.stream, w.hello = n, true
			w.step(StreamUp{Stream: n})
		}
	}
	if w.timer != 0 && w.now >= w.timer {
		w.timer = 0
		w.step(Tick{})
	}
}

// fault breaks something now and then.
func (w *world) fault() {
	switch n := w.rng.Intn(40); {
	case w.calm || n > 1:
	case n == 0 && w.stream != 0:
		s := w.stream
		w.cutStream()
		w.step(StreamDown{Stream: s, Err: errs.E("stream", errs.Unavailable, "cut", nil)})
	case n == 1 && w.rng.Intn(8) == 0:
		w.evict()
	}
}

func (w *world) turn() {
	switch w.rng.Intn(14) {
	case 12:
		w.endInval()
	case 13:
		if w.srv.on {
			w.foreigner()
		}
	case 0, 1, 2:
		w.serve()
	case 3, 4:
		w.releaseReply()
	case 5, 6:
		w.deliver()
	case 7:
		w.endPut()
	case 8:
		w.endLate()
	case 9:
		w.tick()
	case 10:
		w.fault()
	case 11:
		w.application()
	}
}

// settle runs without faults until nothing is under way.
func (w *world) settle(what string, until func() bool) {
	w.t.Helper()
	w.calm = true
	for i := 0; ; i++ {
		if until() && (w.session != 0 || w.state == StateEnded) && w.foreign == nil && len(w.invals) == 0 && len(w.toServer)+len(w.held)+len(w.toClient)+len(w.puts)+len(w.lates) == 0 {
			return
		}
		if i > 20000 {
			w.fatal("%s: not settled: %+v, %d calls, state %s, change by another %+v, %d invalidations", what, w.c.Stats(), len(w.calls), w.state, w.foreign, len(w.invals))
		}
		w.serve()
		w.releaseReply()
		w.deliver()
		w.endPut()
		w.endLate()
		w.endInval()
		w.foreigner()
		w.tick()
	}
}

func runSeed(t testing.TB, seed int64, turns int, leases bool) uint64 {
	w := newWorld(t, seed, leases)
	w.step(Tick{})
	for range turns {
		w.turn()
	}
	w.finish()
	return w.hash.Sum64()
}

func TestRandom(t *testing.T) {
	seeds := int64(2500)
	if testing.Short() || raceEnabled {
		seeds = 200
	}
	for seed := int64(1); seed <= seeds; seed++ {
		runSeed(t, seed, 700, false)
		runSeed(t, seed, 700, true)
	}
}

// TestDeterminism: the same events give the same effects.
func TestDeterminism(t *testing.T) {
	for seed := int64(1); seed <= 40; seed++ {
		leases := seed%2 == 0
		if a, b := runSeed(t, seed, 700, leases), runSeed(t, seed, 700, leases); a != b {
			t.Fatalf("seed %d: effects differ between two runs", seed)
		}
	}
}
