// Package mountd is everything about a mount that is not the filesystem: the
// daemon that serves it, the registry in which it is found again, and the
// ways to end it.
//
// # Registry
//
// In DATA/mounts, KEY being 16 hex digits of SHA-256 of the mount point:
//
//	KEY.json   Record: drive, path, mode, pid; written after the mount stands
//	KEY.lock   flock of the daemon, for its life; its file stays
//	KEY.start  flock of whoever decides about that directory; its file stays
//	KEY.sock   control socket (package ctl): status, flush, sync, stats, umount
//
// A Record whose lock is free was left by a daemon that died. After a lazy
// unmount the daemon lives on under the key KEY-PID until the last open file
// is closed, and the directory is free for a new mount.
//
// # Control operations
//
//	status         -> Status
//	flush          everything buffered is published
//	sync           everything published is durable
//	stats          -> list of Metric
//	umount {mode}  -> Outcome, sent when it is done
//
// umount modes: "" flushes and unmounts, errs.Busy when files are open;
// "lazy" flushes, detaches, and serves what is open until it is closed;
// "force" discards what is buffered and cuts the connection; "stop" flushes
// and unmounts, and cuts off whoever still has files open.
//
// # Failures
//
//	daemon killed          the mount answers ENOTCONN; umount and mount clean
//	                       it up and say so
//	servers away           a flush waits until its context ends: errs.Timeout,
//	                       and the mount stays
//	unmounted by hand      the daemon notices, flushes, ends
package mountd

import (
	"context"
	"io"
	"time"

	"agentdrive/internal/obs"
)

// FSType is the type of our mounts in mountinfo.
const FSType = "fuse.agentdrive"

// Config says what to mount where.
type Config struct {
	Drive      string
	Path       string // subtree, absolute and clean; "/" is the drive's root
	Dir        string // mount point, absolute, free of symlinks
	ReadOnly   bool
	AllowOther bool     // other users may enter
	Strict     bool     // changes are durable before they are answered
	Servers    []string // addresses of the metaservers
	Log        io.Writer
	LogLevel   string // debug, info, warn or error
	LogFormat  string // text or json
	Metrics    string // address for GET /metrics, "" = none
}

// Mode is "ro" or "rw".
func (c Config) Mode() string {
	if c.ReadOnly {
		return "ro"
	}
	return "rw"
}

// Filesystem is a mounted, served filesystem. Safe for concurrent use.
type Filesystem interface {
	// Flush publishes everything buffered: an open elsewhere sees it.
	Flush(ctx context.Context) error
	// Sync makes everything durable that was written before the call.
	Sync(ctx context.Context) error
	// Health describes the mount; it never waits for a server.
	Health() Health
	// Stats are the mount's metrics; it never waits for a server.
	Stats() []obs.Sample
	// Wait returns when the kernel has ended the connection and every request
	// was answered; an error if that was not an unmount.
	Wait() error
	// Close ends the connection, if it stands, and the session, and drops
	// what was not flushed. A second Close does nothing.
	Close() error
}

// ServeFunc mounts c.Dir with filesystem type FSType and source
// "agentdrive:DRIVE", and returns when it answers. The mount ends by
// umount(2), not by ctx.
type ServeFunc func(ctx context.Context, c Config) (Filesystem, error)

// States of a mount.
const (
	StateMounted  = "mounted"
	StateWaiting  = "waiting"  // servers are away, operations wait
	StateDetached = "detached" // unmounted lazily, files are still open
	StateDead     = "dead"     // its daemon has ended without unmounting
)

// Health is what a Filesystem says about itself.
type Health struct {
	Session    uint64 `json:"session"`
	State      string `json:"state"`         // StateMounted or StateWaiting
	Why        string `json:"why,omitempty"` // reason for StateWaiting
	DirtyBytes int64  `json:"dirty_bytes"`   // written, not yet published
	DirtyFiles int64  `json:"dirty_files"`
}

// Record is the registry's entry of a mount.
type Record struct {
	Version    int       `json:"version"`
	Drive      string    `json:"drive"`
	Path       string    `json:"path"`
	Dir        string    `json:"dir"`
	ReadOnly   bool      `json:"read_only"`
	AllowOther bool      `json:"allow_other"`
	Pid        int       `json:"pid"`
	Started    time.Time `json:"started"`
	Detached   bool      `json:"detached,omitempty"`
}

// Status is a Record with what its daemon says now.
type Status struct {
	Record
	Health
}

// Mode names the way to unmount.
type Mode string

// The modes; see the package comment.
const (
	Plain Mode = ""
	Lazy  Mode = "lazy"
	Force Mode = "force"
	Stop  Mode = "stop"
)

// Outcome tells what an unmount did.
type Outcome struct {
	Dead           bool     `json:"dead,omitempty"`     // the daemon had died before
	Detached       bool     `json:"detached,omitempty"` // still served for Users
	Users          []string `json:"users,omitempty"`    // who had files open, "name (pid)"
	DiscardedBytes int64    `json:"discarded_bytes"`    // buffered data thrown away
	DiscardedFiles int64    `json:"discarded_files"`
}
