package core

import (
	"container/list"

	"github.com/tidwall/btree"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/locks"
	"agentdrive/metaserver/meta"
)

// Delays that nobody needs to tune.
const (
	unpinDelay   = Time(100e6) // pins given back wait so long for company
	ackDelay     = Time(1e9)   // acknowledgements wait so long for a frame to ride on
	lateDelay    = Time(200e6) // late copies wait so long for company
	againDelay   = Time(20e6)  // first pause after errs.Again; doubles to maxDelay
	maxDelay     = Time(1e9)   // longest pause between attempts of anything else
	quotaDelay   = Time(640e6) // until the room of what was given back is certain to be there
	maxRetry     = Time(250e6) // longest pause between streams: a new leader is found at once
	quietDelay   = Time(1e9)   // silence of a stream that owes an answer before it is questioned
	helloPeriods = 2           // RenewEvery periods to wait for Welcome
)

// Client is the step machine. It is not safe for concurrent use.
//
// Determinism: the effects depend on nothing but the configuration and the
// sequence of (now, event) pairs. Go maps are used for look-up only; whatever
// is iterated is a slice, a list or a B-tree.
type Client struct {
	cfg     Config
	now     Time
	started bool
	out     []Effect
	timerAt Time // of the last Timer effect; 0 = none pending

	ses    session
	ops    ops
	reqs   btree.Map[ReqID, *request]
	pins   pins
	names  names
	files  btree.Map[meta.Ino, *file]
	buf    buffers
	puts   puts
	late   late
	leases leases
	log    logbook
	epochs epochs
	credit credit
	use    driveUse
	writes uint64       // changes asked for so far
	locks  *locks.Table // granted to this mount, as session 0
	stats  leaseStats
	maps   maps

	shutdown *request // the Shutdown under way
	stopErr  error    // first data error during it
}

// buffers account for the data held for all files.
type buffers struct {
	held     int        // cost of all buffered data
	untaken  int        // part of it that no publication has taken yet
	parts    int        // parts under way
	aged     *list.List // *file with untaken data, by the age of the oldest
	queue    *list.List // *part under way, by age
	room     []*request // writes that wait for room, in order
	lingered []linger   // files kept for reads that are older than a publication
}

// New makes a client that is not connected; the first Step asks for a stream.
func New(cfg Config) *Client {
	if cfg.NewBlockID == nil {
		panic("core: Config.NewBlockID is required")
	}
	setDefault(&cfg.MaxDirty, 256<<20)
	setDefault(&cfg.BlockSize, chunk.MaxBlock)
	setDefault(&cfg.MaxPuts, 16)
	setDefault(&cfg.DirtyAge, Time(5e8))
	setDefault(&cfg.RenewEvery, Time(5e9))
	setDefault(&cfg.RetryAfter, Time(50e6))
	setDefault(&cfg.MaxNodes, 1<<20)
	cfg.Open.Leases = !cfg.NoLeases
	c := &Client{cfg: cfg}
	c.leases.init()
	c.locks = locks.New()
	c.ses.nonce = cfg.Open.Nonce
	if c.ses.nonce == ([16]byte{}) {
		c.ses.nonce = [16]byte(cfg.NewBlockID())
	}
	c.ses.backoff = cfg.RetryAfter
	c.buf.aged, c.buf.queue = list.New(), list.New()
	c.maps.lru = list.New()
	c.names.init()
	c.puts.byToken = make(map[uint64]*put)
	return c
}

func setDefault[T int | Time](p *T, v T) {
	if *p == 0 {
		*p = v
	}
}

// Step takes one event and returns what is to be done about it, in order. The
// slice is valid until the next Step. now never goes back; a smaller value is
// taken for the last one.
func (c *Client) Step(now Time, ev Event) []Effect {
	c.now = max(c.now, now)
	clear(c.out)
	c.out = c.out[:0]
	if !c.started {
		c.started = true
		c.say(StateConnecting, nil, "looking for the leader")
		c.connect("", 0)
	}
	c.handle(ev)
	c.due()
	c.admit()
	c.startPuts()
	c.flushUnpins(false)
	c.pumpAll()
	c.finishShutdown()
	c.expect()
	c.setTimer()
	return c.out
}

// pumpAll sends what may be sent: the log before the operations that come after
// it, and before the answers to recalls that name it.
func (c *Client) pumpAll() {
	c.invalsDue()
	c.sendAcquires()
	c.pumpLog()
	c.recallsDue()
	c.releaseDead()
	c.pump()
}

func (c *Client) handle(ev Event) {
	switch ev := ev.(type) {
	case Request:
		c.request(ev)
	case Cancel:
		c.cancel(ev.ID)
	case Forget:
		c.forget(ev.Ino, ev.N)
	case OpenFile:
		c.openFile(ev.Ino)
	case CloseFile:
		c.closeFile(ev.Ino)
	case StreamUp:
		c.streamUp(ev.Stream)
	case StreamDown:
		c.streamDown(ev)
	case FrameIn:
		c.frameIn(ev)
	case BlockStored:
		c.blockStored(ev)
	case BlockLate:
		c.blockLate(ev)
	case BlockFailed:
		c.blockFailed(ev)
	case Invalidated:
		c.invalidated(ev.Token)
	case Tick:
		if now := c.now; now >= c.timerAt {
			c.timerAt = 0
		}
	default:
		panic("core: unknown event")
	}
}

func (c *Client) emit(e Effect) { c.out = append(c.out, e) }

func (c *Client) send(f meta.Frame) { c.emit(Send{Stream: c.ses.stream, Frame: f}) }

// due does what the time asks for. Whatever has a moment is checked here on
// every step, so a late or missing Tick delays but never loses anything.
func (c *Client) due() {
	c.sessionDue()
	c.leasesDue()
	c.opsDue()
	c.lateDue()
	c.expire()
}

// setTimer asks for a Tick at the nearest moment that has work.
func (c *Client) setTimer() {
	var at Time
	want := func(t Time) {
		if t != 0 && (at == 0 || t < at) {
			at = t
		}
	}
	c.sessionTimers(want)
	if !c.cfg.NoLeases && c.ses.phase != phaseEnded {
		c.leaseTimers(want)
		c.invalTimers(want)
		c.logTimers(want)
	}
	if c.ses.phase != phaseEnded {
		if e := c.buf.aged.Front(); e != nil {
			want(e.Value.(*file).since + c.cfg.DirtyAge)
		}
		if len(c.ops.delayed) > 0 {
			want(c.ops.delayed[0].at)
		}
	}
	if c.ses.phase == phaseReady {
		want(c.pins.flushAt)
		want(c.ops.ackAt)
		want(c.late.flushAt)
	}
	if at == 0 || at == c.timerAt {
		return
	}
	c.timerAt = at
	c.emit(Timer{At: at})
}

// say emits a Notice unless it repeats the last one.
func (c *Client) say(s State, err *errs.Error, text string) {
	n := Notice{State: s, Err: err, Text: text}
	last := c.ses.said
	if last.State == n.State && last.Text == n.Text && (last.Err == nil) == (err == nil) &&
		(err == nil || last.Err.Kind == err.Kind) {
		return
	}
	c.ses.said = n
	c.emit(n)
}

// Stats are numbers for status and for tests.
type Stats struct {
	State    State
	Session  meta.SessionID
	Requests int // without an answer
	InFlight int // operations sent and unanswered
	Dirty    int // bytes of memory that buffered data costs
	Files    int // file records
	Pins     int // inodes that the kernel references

	UnpublishedFiles int // files with data that the servers do not have yet
	UnpublishedBytes int // bytes of it

	Nodes       int    // inodes that something is known of
	ReadLeases  int    // held
	WriteLeases int    // held
	Local       uint64 // requests answered at once
	Waits       uint64 // replies that requests waited for
	LogRecords  int    // delegated operations that are not durable yet
	LogBytes    int
	Recalls     uint64 // received
	HandOver    Time   // from recalls to their answers, summed
	HandOverMax Time   // the longest of them
}

// leaseStats are the counters of Stats that only grow.
type leaseStats struct {
	Local, Waits, Recalls uint64
	HandOver, HandOverMax Time
}

// Stats describes the client now.
func (c *Client) Stats() Stats {
	s := Stats{
		State: c.ses.state(), Session: c.ses.id, Requests: c.reqs.Len(), InFlight: c.ops.flight.Len(),
		Dirty: c.buf.held, Files: c.files.Len(), Pins: c.pins.table.Len(),
	}
	s.Local, s.Waits, s.Recalls = c.stats.Local, c.stats.Waits, c.stats.Recalls
	s.HandOver, s.HandOverMax = c.stats.HandOver, c.stats.HandOverMax
	s.LogRecords, s.LogBytes = len(c.log.recs), c.log.bytes
	s.Nodes = c.leases.table.Len()
	c.leases.table.Scan(func(_ meta.Ino, n *node) bool {
		switch n.lease {
		case meta.LeaseRead:
			s.ReadLeases++
		case meta.LeaseWrite:
			s.WriteLeases++
		}
		return true
	})
	c.files.Scan(func(_ meta.Ino, f *file) bool {
		n := f.dirty.bytes
		for _, p := range f.parts {
			n += p.bytes
		}
		if n > 0 {
			s.UnpublishedFiles++
			s.UnpublishedBytes += n
		}
		return true
	})
	return s
}
