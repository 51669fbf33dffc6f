package engine

import (
	"fmt"
	"log/slog"
	"time"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/disk"
	"agentdrive/internal/errs"
)

// Config describes a store. FS, Dir, Cluster and Server are required.
type Config struct {
	FS      disk.FS
	Dir     string // created if absent
	Cluster [16]byte
	Server  chunk.ServerID

	SegmentBytes int64            // size of new segments, a multiple of 4096; default 64 MiB
	Reserve      int64            // bytes of the filesystem left to others; default min(1 GiB, 5 %), negative for none
	CompactRate  int64            // bytes per second that compaction may rewrite; default 64 MiB
	Log          *slog.Logger     // default: discard
	Now          func() time.Time // for the expiry of grants; default time.Now

	// manual leaves out the maintenance goroutine: tests call maintain, so
	// that a seed gives one sequence of disk calls.
	manual bool
}

const (
	defaultSegment = 64 << 20
	minSegment     = 256 << 10 // takes any tombstone record
	maxSegment     = 1 << 40
	// spareSegments stay out of reach of puts: one takes tombstones, one what
	// compaction moves, so that a full store can always be emptied.
	spareSegments = 2
)

func (c *Config) validate() error {
	if c.SegmentBytes == 0 {
		c.SegmentBytes = defaultSegment
	}
	if c.CompactRate == 0 {
		c.CompactRate = 64 << 20
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	switch {
	case c.FS == nil || c.Dir == "":
		return errs.E("engine.open", errs.Invalid, "no filesystem or directory given", nil)
	case c.Server == 0 || c.Cluster == [16]byte{}:
		return errs.E("engine.open", errs.Invalid, "cluster and server id must not be zero", nil)
	case c.SegmentBytes < minSegment || c.SegmentBytes > maxSegment || c.SegmentBytes%page != 0:
		return errs.E("engine.open", errs.Invalid, fmt.Sprintf("segment size %d is not a multiple of %d from %d to %d", c.SegmentBytes, page, minSegment, int64(maxSegment)), nil)
	case c.CompactRate < 0:
		return errs.E("engine.open", errs.Invalid, "negative compaction rate", nil)
	}
	return nil
}

// reserve is the number of bytes that stay free on a filesystem of that size.
func (c *Config) reserve(total int64) int64 {
	switch {
	case c.Reserve < 0:
		return 0
	case c.Reserve > 0:
		return c.Reserve
	}
	return min(1<<30, total/20)
}
