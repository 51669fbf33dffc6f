package roles

import (
	"sync"
	"time"

	"agentdrive/fuseclient"
	"agentdrive/fuseclient/core"
	"agentdrive/internal/obs"
)

// statsAge is how old a client's numbers may be: one look serves all metrics of
// a snapshot.
const statsAge = 100 * time.Millisecond

// clientStats remembers the last look at a client.
type clientStats struct {
	client *fuseclient.Client

	mu   sync.Mutex // guards the fields below; above the client's lock
	at   time.Time
	last core.Stats
}

func (c *clientStats) get() core.Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.at) > statsAge {
		c.last, c.at = c.client.Stats(), time.Now()
	}
	return c.last
}

// registerClient shows what a mount's session does.
func registerClient(reg *obs.Registry, client *fuseclient.Client) {
	st := &clientStats{client: client}
	counter := func(name, help string, read func(core.Stats) float64, labels ...obs.Label) {
		reg.CounterFunc("agentdrive_client_"+name, help, func() float64 { return read(st.get()) }, labels...)
	}
	gauge := func(name, help string, read func(core.Stats) float64, labels ...obs.Label) {
		reg.GaugeFunc("agentdrive_client_"+name, help, func() float64 { return read(st.get()) }, labels...)
	}
	counter("local_total", "Requests answered at once, without the servers", func(s core.Stats) float64 { return float64(s.Local) })
	counter("waits_total", "Replies of servers that requests waited for", func(s core.Stats) float64 { return float64(s.Waits) })
	counter("recalls_total", "Recalls received", func(s core.Stats) float64 { return float64(s.Recalls) })
	counter("hand_over_seconds_total", "Time from recalls to their answers, summed", func(s core.Stats) float64 { return float64(s.HandOver) / 1e9 })
	gauge("hand_over_max_seconds", "Longest time from a recall to its answer", func(s core.Stats) float64 { return float64(s.HandOverMax) / 1e9 })
	gauge("leases", "Leases held", func(s core.Stats) float64 { return float64(s.ReadLeases) }, obs.Label{Key: "kind", Value: "read"})
	gauge("leases", "Leases held", func(s core.Stats) float64 { return float64(s.WriteLeases) }, obs.Label{Key: "kind", Value: "write"})
	gauge("nodes", "Inodes that something is known of", func(s core.Stats) float64 { return float64(s.Nodes) })
	gauge("pins", "Inodes that the kernel references", func(s core.Stats) float64 { return float64(s.Pins) })
	gauge("log_records", "Delegated operations that are not durable yet", func(s core.Stats) float64 { return float64(s.LogRecords) })
	gauge("log_bytes", "Their bytes", func(s core.Stats) float64 { return float64(s.LogBytes) })
	gauge("dirty_bytes", "Memory that buffered data costs", func(s core.Stats) float64 { return float64(s.Dirty) })
	gauge("unpublished_bytes", "Bytes that the servers do not have yet", func(s core.Stats) float64 { return float64(s.UnpublishedBytes) })
	gauge("in_flight", "Operations sent and unanswered", func(s core.Stats) float64 { return float64(s.InFlight) })
}
