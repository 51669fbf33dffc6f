package server

import (
	"strconv"
	"time"

	"agentdrive/internal/obs"
	"agentdrive/metaserver/core"
	"agentdrive/metaserver/meta"
)

// metrics are the instruments of one group; nil measures nothing. Only the
// goroutine that steps the core uses it.
type metrics struct {
	handOver *obs.Histogram
	counters []counted
	holders  *obs.Gauge
	pending  *obs.Gauge
	sessions *obs.Gauge

	last core.Stats
	at   int64 // monotonic nanoseconds of the last publication
}

// counted is a counter with its place in the core's statistics.
type counted struct {
	to   *obs.Counter
	read func(*core.Stats) uint64
}

// metricsEvery is how often the core's counters are copied.
const metricsEvery = int64(250 * time.Millisecond)

func newMetrics(r *obs.Registry, group uint32) *metrics {
	if r == nil {
		return nil
	}
	g := obs.Label{Key: "group", Value: strconv.FormatUint(uint64(group), 10)}
	m := &metrics{
		handOver: r.Histogram("agentdrive_meta_handover_seconds", "Time from a recall until its answer counts", obs.LatencyBounds(), g),
		holders:  r.Gauge("agentdrive_meta_leases", "Leases held by sessions", g),
		pending:  r.Gauge("agentdrive_meta_recalls_pending", "Recalls without an answer that counts", g),
		sessions: r.Gauge("agentdrive_meta_sessions", "Open sessions", g),
	}
	add := func(name, help string, read func(*core.Stats) uint64, labels ...obs.Label) {
		m.counters = append(m.counters, counted{r.Counter(name, help, append(labels, g)...), read})
	}
	for kind, word := range []string{"none", "read", "write"} {
		add("agentdrive_meta_grants_total", "Inodes of answers by what was granted on them", func(s *core.Stats) uint64 { return s.Grants[kind] }, obs.Label{Key: "kind", Value: word})
	}
	for mode, word := range map[meta.RecallMode]string{
		meta.RecallQuery: "query", meta.RecallDowngrade: "downgrade", meta.RecallRelease: "release",
		meta.RecallNames: "names", meta.RecallAttr: "attr", meta.RecallDrain: "drain",
	} {
		add("agentdrive_meta_recalls_total", "Recalled leases by mode", func(s *core.Stats) uint64 { return s.Recalls[mode] }, obs.Label{Key: "mode", Value: word})
	}
	add("agentdrive_meta_evictions_total", "Sessions ended for recalls without an answer, or for claiming or logging what they do not hold", func(s *core.Stats) uint64 { return s.Evictions })
	add("agentdrive_meta_standstills_total", "Times that the leader was stopped for more than a fifteenth of a session's life; that time does not count against sessions", func(s *core.Stats) uint64 { return s.Standstills })
	add("agentdrive_meta_contended_total", "Inodes that became contended", func(s *core.Stats) uint64 { return s.Contended })
	add("agentdrive_meta_gate_waits_total", "Operations that waited for another one on the same inode or name", func(s *core.Stats) uint64 { return s.GateWaits })
	add("agentdrive_meta_acquires_total", "Acquires received", func(s *core.Stats) uint64 { return s.Acquires })
	add("agentdrive_meta_acquires_refused_total", "Leases wanted by Acquires and not granted", func(s *core.Stats) uint64 { return s.Refused })
	add("agentdrive_meta_lock_waits_total", "Lock requests that had to wait", func(s *core.Stats) uint64 { return s.LockWaits })
	return m
}

// publish copies the core's counters, now and then.
func (m *metrics) publish(c *core.Server, now int64) {
	if m == nil || now-m.at < metricsEvery {
		return
	}
	st := c.Stats()
	for i := range m.counters {
		m.counters[i].to.Add(m.counters[i].read(&st) - m.counters[i].read(&m.last))
	}
	m.holders.Set(int64(st.Holders))
	m.pending.Set(int64(st.Pending))
	m.sessions.Set(int64(st.Sessions))
	m.last, m.at = st, now
}

// handedOver notes how long a recall took.
func (m *metrics) handedOver(took core.Time) {
	if m != nil {
		m.handOver.ObserveDuration(time.Duration(took))
	}
}
