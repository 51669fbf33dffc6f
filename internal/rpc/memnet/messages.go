package memnet

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"sort"
)

// MessagesConfig says what a link does to messages. The zero value delivers
// each message once, at once, in order.
type MessagesConfig struct {
	// MinDelay and MaxDelay bound the travel time of a message, drawn evenly.
	// The unit is the caller's.
	MinDelay, MaxDelay int64
	// Drop and Duplicate are probabilities for each message. A duplicate has
	// a delay of its own.
	Drop, Duplicate float64
	// Reorder lets a message overtake another of its link.
	Reorder bool
	// Hold keeps the messages that a partition stops and sends them on after
	// Heal, in order, as a connection does. Otherwise they are lost.
	Hold bool
}

func (c MessagesConfig) check() {
	if c.MinDelay < 0 || c.MaxDelay < c.MinDelay || c.Drop < 0 || c.Drop > 1 || c.Duplicate < 0 || c.Duplicate > 1 {
		panic(fmt.Sprintf("memnet: bad message config %+v", c))
	}
}

// Message is one delivered message.
type Message struct {
	From, To string
	Body     []byte // as sent, not copied: neither side may modify it
	Sent     int64  // time of Send
	At       int64  // time of delivery
	Copy     bool   // a duplicate
}

// Stats counts what a Messages did. Sent + Duplicated = Delivered + Dropped +
// what is pending.
type Stats struct{ Sent, Duplicated, Delivered, Dropped uint64 }

// Messages is a network of messages with a time of its own. It does nothing
// by itself: the same seed and the same calls give the same deliveries. Not
// safe for concurrent use.
type Messages struct {
	cfg   MessagesConfig
	rng   *rand.Rand
	now   int64
	seq   uint64
	queue flights
	links map[pair]*messageLink
	stats Stats
}

// messageLink is the state of a directed link that differs from the default
// or has carried something.
type messageLink struct {
	cfg     MessagesConfig
	blocked bool
	last    int64    // latest delivery time given out
	held    []flight // stopped by a partition, in order
}

// flight is a message on its way.
type flight struct {
	Message
	seq uint64 // the order of sending breaks ties
}

// NewMessages makes a network whose links all follow cfg.
func NewMessages(seed uint64, cfg MessagesConfig) *Messages {
	cfg.check()
	return &Messages{cfg: cfg, rng: rand.New(rand.NewPCG(seed, 0x6d656d6e6574)), links: map[pair]*messageLink{}}
}

// SetLink changes what one directed link does to messages sent from now on.
func (m *Messages) SetLink(from, to string, cfg MessagesConfig) {
	cfg.check()
	m.link(from, to).cfg = cfg
}

// Send puts body on its way. It keeps body.
func (m *Messages) Send(from, to string, body []byte) {
	l := m.link(from, to)
	m.stats.Sent++
	// Always the same number of draws, so that a change of one probability
	// does not shift all that follows.
	drop, dup := m.rng.Float64() < l.cfg.Drop, m.rng.Float64() < l.cfg.Duplicate
	first, second := m.delay(l), m.delay(l)
	msg := Message{From: from, To: to, Body: body, Sent: m.now}
	if drop {
		m.stats.Dropped++
	} else {
		m.launch(l, msg, first)
	}
	if dup {
		m.stats.Duplicated++
		msg.Copy = true
		m.launch(l, msg, second)
	}
}

// Now is the time of the last delivery or AdvanceTo.
func (m *Messages) Now() int64 { return m.now }

// Next is the time of the next delivery as the links are now, false if
// nothing on its way can arrive.
func (m *Messages) Next() (int64, bool) {
	at, found := int64(0), false
	for i, f := range m.queue {
		if found && f.At >= at || m.link(f.From, f.To).blocked {
			continue
		}
		at, found = f.At, true
		if i == 0 {
			break // the head of the heap is the earliest of all
		}
	}
	return at, found
}

// Step delivers the next message and moves the time to its arrival. What a
// partition stops before that time is held or lost.
func (m *Messages) Step() (Message, bool) {
	at, ok := m.Next()
	if !ok {
		return Message{}, false
	}
	return m.deliverUntil(at)
}

// AdvanceTo delivers everything that arrives up to t, in order, also what
// deliver itself sends, and moves the time to t.
func (m *Messages) AdvanceTo(t int64, deliver func(Message)) {
	if t < m.now {
		panic(fmt.Sprintf("memnet: time goes back from %d to %d", m.now, t))
	}
	for {
		msg, ok := m.deliverUntil(t)
		if !ok {
			break
		}
		deliver(msg)
	}
	m.now = t
}

// deliverUntil takes the first message that arrives at t or before. Messages
// that meet a partition on the way there are held or lost.
func (m *Messages) deliverUntil(t int64) (Message, bool) {
	for len(m.queue) > 0 && m.queue[0].At <= t {
		f := heap.Pop(&m.queue).(flight)
		l := m.link(f.From, f.To)
		if !l.blocked {
			m.now = f.At
			m.stats.Delivered++
			return f.Message, true
		}
		if l.cfg.Hold {
			l.held = append(l.held, f)
		} else {
			m.stats.Dropped++
		}
	}
	return Message{}, false
}

// PartitionOneWay stops what arrives at to from from, also what is on its way.
func (m *Messages) PartitionOneWay(from, to string) { m.link(from, to).blocked = true }

// Partition stops both directions.
func (m *Messages) Partition(a, b string) {
	m.PartitionOneWay(a, b)
	m.PartitionOneWay(b, a)
}

// Heal opens both directions. Held messages start anew, in order.
func (m *Messages) Heal(a, b string) {
	m.heal(a, b)
	if a != b {
		m.heal(b, a)
	}
}

func (m *Messages) heal(from, to string) {
	l := m.link(from, to)
	if !l.blocked {
		return
	}
	l.blocked = false
	if len(l.held) == 0 {
		return
	}
	// What is still on its way was sent after what is held and stays behind.
	later := m.take(func(f flight) bool { return f.From == from && f.To == to })
	sort.Sort(flights(later))
	held := l.held
	l.held = nil
	l.last = m.now
	for _, f := range held {
		m.launch(l, f.Message, m.delay(l))
	}
	for _, f := range later {
		m.launch(l, f.Message, f.At-m.now)
	}
}

// take removes the matching messages from the queue.
func (m *Messages) take(match func(flight) bool) []flight {
	var taken []flight
	kept := m.queue[:0]
	for _, f := range m.queue {
		if match(f) {
			taken = append(taken, f)
		} else {
			kept = append(kept, f)
		}
	}
	m.queue = kept
	heap.Init(&m.queue)
	return taken
}

// Discard loses everything on its way or held between a and b, as the end of
// a connection does, and returns how many messages that were.
func (m *Messages) Discard(a, b string) int {
	lost := len(m.take(func(f flight) bool { return f.From == a && f.To == b || f.From == b && f.To == a }))
	for _, p := range []pair{{a, b}, {b, a}} {
		l := m.link(p.from, p.to)
		lost += len(l.held)
		l.held = nil
		l.last = m.now
	}
	m.stats.Dropped += uint64(lost)
	return lost
}

// Stats returns the counters.
func (m *Messages) Stats() Stats { return m.stats }

// Pending is the number of messages on their way or held.
func (m *Messages) Pending() int {
	n := len(m.queue)
	for _, l := range m.links {
		n += len(l.held)
	}
	return n
}

func (m *Messages) link(from, to string) *messageLink {
	l := m.links[pair{from, to}]
	if l == nil {
		l = &messageLink{cfg: m.cfg}
		m.links[pair{from, to}] = l
	}
	return l
}

func (m *Messages) delay(l *messageLink) int64 {
	return l.cfg.MinDelay + m.rng.Int64N(l.cfg.MaxDelay-l.cfg.MinDelay+1)
}

func (m *Messages) launch(l *messageLink, msg Message, delay int64) {
	msg.At = m.now + delay
	if !l.cfg.Reorder {
		msg.At = max(msg.At, l.last)
	}
	l.last = max(l.last, msg.At)
	m.seq++
	heap.Push(&m.queue, flight{Message: msg, seq: m.seq})
}

// flights is a heap by (arrival, order of sending).
type flights []flight

func (q flights) Len() int { return len(q) }
func (q flights) Less(i, j int) bool {
	if q[i].At != q[j].At {
		return q[i].At < q[j].At
	}
	return q[i].seq < q[j].seq
}
func (q flights) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *flights) Push(x any)   { *q = append(*q, x.(flight)) }
func (q *flights) Pop() any {
	old := *q
	f := old[len(old)-1]
	*q = old[:len(old)-1]
	return f
}
