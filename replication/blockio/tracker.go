package blockio

import (
	"sync"
	"time"

	"agentdrive/chunkserver/chunk"
)

// tracker remembers how members did lately. Safe for concurrent use.
type tracker struct {
	probeMin, probeMax time.Duration // back-off of probes

	mu      sync.Mutex // guards the fields below; leaf
	members map[chunk.ServerID]*member
	changed chan struct{} // closed and replaced when a member gets usable
}

type member struct {
	backoff time.Duration // 0: the last call went well
	retryAt time.Time     // no probe before
	probing bool          // a probe is under way
	calls   int           // under way
	bytes   int64         // under way

	// Latency of good answers, as TCP estimates round trips.
	mean, dev time.Duration
}

func newTracker(probeMin, probeMax time.Duration) *tracker {
	return &tracker{probeMin: probeMin, probeMax: probeMax,
		members: map[chunk.ServerID]*member{}, changed: make(chan struct{})}
}

// get returns a member's record. Caller holds mu.
func (t *tracker) get(id chunk.ServerID) *member {
	m := t.members[id]
	if m == nil {
		m = &member{}
		t.members[id] = m
	}
	return m
}

// begin admits a call that holds n bytes, unless the member is down and no
// probe is due, or has more than limit bytes under way. A refused caller learns
// when to ask again; zero means when changed is closed.
func (t *tracker) begin(id chunk.ServerID, n, limit int64) (ok bool, again time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.get(id)
	switch {
	case m.calls > 0 && m.bytes+n > limit:
		return false, time.Time{}
	case m.backoff == 0:
	case m.probing:
		return false, time.Time{}
	case time.Now().Before(m.retryAt):
		return false, m.retryAt
	default:
		m.probing = true
	}
	m.calls++
	m.bytes += n
	return true, time.Time{}
}

// outcome is what a call tells about a member.
type outcome uint8

const (
	well    outcome = iota // it answered, be it with a refusal
	failed                 // it did not
	unknown                // nobody waited for it
)

// end notes the outcome of a call that was admitted or started.
func (t *tracker) end(id chunk.ServerID, n int64, o outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.get(id)
	m.calls--
	m.bytes -= n
	m.probing = false
	switch o {
	case well:
		m.backoff = 0
	case failed:
		t.mark(m)
	}
	close(t.changed)
	t.changed = make(chan struct{})
}

// mark puts a member off. Failures of calls that began before it was put off
// do not lengthen the back-off. Caller holds mu.
func (t *tracker) mark(m *member) {
	now := time.Now()
	if m.backoff > 0 && now.Before(m.retryAt) {
		return
	}
	m.backoff = min(max(2*m.backoff, t.probeMin), t.probeMax)
	m.retryAt = now.Add(m.backoff)
}

// watch returns a channel that is closed at the next end of a call.
func (t *tracker) watch() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// start counts a call that is made whatever the member's state.
func (t *tracker) start(id chunk.ServerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.get(id).calls++
}

// answered notes a good answer's latency.
func (t *tracker) answered(id chunk.ServerID, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.get(id)
	if m.mean == 0 {
		m.mean, m.dev = took, took/2
		return
	}
	m.dev += (max(took-m.mean, m.mean-took) - m.dev) / 4
	m.mean += (took - m.mean) / 8
}

// late puts off a member that another one overtook.
func (t *tracker) late(id chunk.ServerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mark(t.get(id))
}

// patience is how long an answer of the member usually takes at most.
func (t *tracker) patience(id chunk.ServerID) (d time.Duration, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.get(id)
	return m.mean + 4*m.dev, m.mean > 0
}

// load describes a member for the order of reads.
func (t *tracker) load(id chunk.ServerID) (putOff bool, calls int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.get(id)
	return m.backoff > 0 && time.Now().Before(m.retryAt), m.calls
}
