package kernel

import (
	"strconv"
	"time"

	"agentdrive/internal/obs"
)

// OpStats counts the requests of one kind.
type OpStats struct {
	Op      string // as in the FUSE protocol, lower case: "lookup"
	Calls   uint64 // replied to
	Waited  uint64 // times that an answer did not come at once: from the servers, or behind other requests
	Seconds float64
}

// Stats is what a mount has done so far.
type Stats struct {
	Ops           []OpStats // those that occurred, by opcode
	Invalidations uint64    // effects of the Backend
	Notifications uint64    // messages to the kernel, repeats included
	Hung          uint64    // names that hung at a lock and were dropped with all others
}

// opNames name the requests that are counted apart.
var opNames = [opCount]string{
	1: "lookup", 3: "getattr", 4: "setattr", 5: "readlink", 6: "symlink", 8: "mknod", 9: "mkdir", 10: "unlink",
	11: "rmdir", 12: "rename", 13: "link", 14: "open", 15: "read", 16: "write", 17: "statfs", 18: "release",
	20: "fsync", 21: "setxattr", 22: "getxattr", 23: "listxattr", 24: "removexattr", 25: "flush", 27: "opendir",
	28: "readdir", 29: "releasedir", 30: "fsyncdir", 31: "getlk", 32: "setlk", 33: "setlkw", 34: "access",
	35: "create", 39: "ioctl", 43: "fallocate", 44: "readdirplus", 45: "rename2", 46: "lseek",
	47: "copy_file_range", 51: "tmpfile", 52: "statx",
}

// opStats are the instruments of one kind of request.
type opStats struct {
	calls, waited *obs.Counter
	seconds       *obs.Histogram
}

func (o *opStats) took(d time.Duration) {
	o.calls.Inc()
	o.seconds.ObserveDuration(d)
}

// connStats are the instruments of a connection.
type connStats struct {
	ops           [opCount]*opStats
	other         *opStats
	invalidations *obs.Counter
	notifications *obs.Counter
	hung          *obs.Counter
}

func newConnStats(reg *obs.Registry) *connStats {
	make := func(name string) *opStats {
		l := obs.Label{Key: "op", Value: name}
		return &opStats{
			calls:   reg.Counter("agentdrive_fuse_requests_total", "Requests of the kernel that were answered.", l),
			waited:  reg.Counter("agentdrive_fuse_requests_waited_total", "Answers that did not come at once, but from the servers or behind other requests.", l),
			seconds: reg.Histogram("agentdrive_fuse_request_seconds", "Time from reading a request to writing its reply.", obs.LatencyBounds(), l),
		}
	}
	s := &connStats{
		other:         make("other"),
		invalidations: reg.Counter("agentdrive_fuse_invalidations_total", "Times that the kernel was to forget something."),
		notifications: reg.Counter("agentdrive_fuse_notifications_total", "Messages that told the kernel to forget."),
		hung:          reg.Counter("agentdrive_fuse_hung_names_total", "Names that could not be forgotten because of a lock, so that all names were."),
	}
	for i, name := range opNames {
		if s.ops[i] = s.other; name != "" {
			s.ops[i] = make(name)
		}
	}
	return s
}

func (s *connStats) op(code uint32) *opStats {
	if code >= opCount {
		return s.other
	}
	return s.ops[code]
}

// Stats tells what was done so far.
func (m *Mount) Stats() Stats {
	s := m.conn.stats
	out := Stats{Invalidations: s.invalidations.Value(), Notifications: s.notifications.Value(), Hung: s.hung.Value()}
	sums := map[string]float64{}
	for _, x := range m.cfg.Metrics.Snapshot() {
		if x.Name == "agentdrive_fuse_request_seconds" && len(x.Labels) == 1 {
			sums[x.Labels[0].Value] = x.Sum
		}
	}
	add := func(name string, o *opStats) {
		if n := o.calls.Value(); n > 0 {
			out.Ops = append(out.Ops, OpStats{Op: name, Calls: n, Waited: o.waited.Value(), Seconds: sums[name]})
		}
	}
	for i, name := range opNames {
		if name != "" {
			add(name, s.ops[i])
		}
	}
	add("other", s.other)
	return out
}

// String is for logs and debugging.
func (o OpStats) String() string {
	return o.Op + " " + strconv.FormatUint(o.Calls, 10) + " (" + strconv.FormatUint(o.Waited, 10) + " waited)"
}
