package consensus

import (
	"strconv"
	"time"

	"agentdrive/internal/obs"
)

// metrics are the instruments of one group; nil measures nothing.
type metrics struct {
	storeSeconds *obs.Histogram
	storeEntries *obs.Histogram
	commit       *obs.Histogram
	commitBytes  *obs.Histogram
}

func newMetrics(r *obs.Registry, group uint32) *metrics {
	if r == nil {
		return nil
	}
	g := obs.Label{Key: "group", Value: strconv.FormatUint(uint64(group), 10)}
	return &metrics{
		storeSeconds: r.Histogram("agentdrive_raft_log_store_seconds", "Time to bring a batch of entries of the Raft log to stable storage", obs.LatencyBounds(), g),
		storeEntries: r.Histogram("agentdrive_raft_log_store_entries", "Entries in a batch of the Raft log", countBounds(), g),
		commit:       r.Histogram("agentdrive_raft_commit_seconds", "Time from proposing an entry to its result here, on the leader", obs.LatencyBounds(), g),
		commitBytes:  r.Histogram("agentdrive_raft_entry_bytes", "Bytes of an entry proposed here", obs.SizeBounds(), g),
	}
}

func countBounds() []float64 { return []float64{1, 2, 4, 8, 16, 32, 64, 128, 256} }

func (m *metrics) stored(entries int, took time.Duration) {
	if m != nil {
		m.storeSeconds.ObserveDuration(took)
		m.storeEntries.Observe(float64(entries))
	}
}

func (m *metrics) committed(bytes int, took time.Duration) {
	if m != nil {
		m.commit.ObserveDuration(took)
		m.commitBytes.Observe(float64(bytes))
	}
}
