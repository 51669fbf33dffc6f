// Package kernel joins the Linux FUSE device to the client of a drive.
//
// It mounts, reads requests of the kernel from /dev/fuse, translates each into
// an operation of the metadata vocabulary (package meta) or of the client core
// (package core), waits for its answer from a Backend and writes the reply. It
// decides nothing about the file system's state: names, attributes, data and
// errors come from the Backend, access modes are checked by the kernel
// (default_permissions), and errors become an errno in package errs alone.
//
// What it owns:
//
//   - The transport (device.go, serve.go). A few goroutines stand in read(2);
//     whoever takes a request off the device first makes sure that somebody
//     still reads, then runs the request to its end. Requests that would be
//     more than Config.MaxRunning at a time are parked, so that FUSE_INTERRUPT
//     and FORGET are always read.
//   - References (nodes.go). A lookup count for each inode that the kernel
//     knows and a count of its open handles. An entry reply counts before it
//     is written and is taken back if the kernel did not take it. When the
//     connection ends, everything still counted is given back to the Backend:
//     the kernel sends no FORGET at unmount.
//   - Interruption (signals.go). FUSE_INTERRUPT cancels a request if the
//     process has a signal pending that means "stop"; other signals (SIGCHLD,
//     SIGALRM, SIGURG, ...) must not make a slow file operation fail, as they
//     do not on a local disk.
//   - Cache lifetimes. Every timeout that the kernel is given comes from the
//     core's answer through one method (fs.go, lifetimes): the attribute
//     timeout of a reply that made an entry is zero whatever the answer says
//     (rule C2), and a reply that was overtaken by an invalidation loses its
//     timeouts just before it is written (ledger.go, rule C1).
//   - Invalidations (notify.go). A Notifier carries them out on goroutines,
//     after the replies answered before them are written (C4, C5, C7), and
//     pages that no lease covers are dropped after the reply that brought
//     them (drop.go, C6).
//   - Locks (fslock.go), if Config.Locks: fcntl(2), F_OFD_SETLK and flock(2)
//     become operations of the Backend, released at close.
//
// Node ids are inode numbers, except that node 1 is the session's root.
// Handles carry no state besides their access mode.
//
// Not promised: NFS export ("." and ".." lookups), fallocate, SEEK_HOLE and
// copy_file_range as server operations (the kernel emulates or refuses them);
// a mount nested below this one is detached by a new epoch.
package kernel

import (
	"log/slog"
	"path/filepath"
	"runtime"
	"time"

	"agentdrive/fuseclient/core"
	"agentdrive/internal/errs"
	"agentdrive/internal/obs"
	"agentdrive/metaserver/meta"
)

// Backend is the client behind a mount. All methods are called concurrently.
type Backend interface {
	// Attach hands over where invalidations go. It is called once, before
	// the first request.
	Attach(n Notifier)
	// Do executes one Op of core.Request and returns its answer. It blocks
	// until there is one and reports to call when it is decided. When the
	// call is cancelled nobody waits any longer and Do returns soon, with
	// errs.Interrupted unless the outcome is certain. An *meta.EntryResult,
	// and each entry of a *meta.DirResult with Plus, carries one pin, which
	// comes back through Forget.
	Do(call *Call, op any) core.Answer
	// ReadData fills dst from a plan and returns how many bytes it filled:
	// the plan's total unless dst is shorter.
	ReadData(call *Call, plan *core.FilePlan, dst []byte) (int, error)
	// Forget returns n pins of an inode. It does not block.
	Forget(ino meta.Ino, n uint64)
	// OpenFile and CloseFile count open handles of files. They do not block.
	// keep: the pages that the kernel has of the file are good.
	OpenFile(ino meta.Ino) (keep bool)
	CloseFile(ino meta.Ino)
}

// Config of a mount. Zero values take the defaults named.
type Config struct {
	Dir        string   // mount point, an existing directory. Required
	Root       meta.Ino // inode shown as Dir; default meta.RootIno
	Source     string   // shown as the device by mount(8); default "agentdrive"
	ReadOnly   bool
	AllowOther bool // users other than the mounting one may enter

	MaxWrite      int           // bytes of a READ or WRITE; default and most 1 MiB
	ReadAhead     int           // bytes read ahead of a sequential reader; default 1 MiB; needs root to exceed 128 KiB
	MaxBackground int           // asynchronous requests of the kernel; default 128
	MaxRunning    int           // requests at the Backend at a time, the rest waits; default 1024
	IdleReaders   int           // goroutines that wait in read(2) at most; default GOMAXPROCS, at least 2
	Spin          time.Duration // how long a reader polls before it sleeps; default 0: not at all

	// Locks makes fcntl(2) and flock(2) locks operations of the Backend.
	// Otherwise they are local to this kernel.
	Locks bool
	// CachedWrites sends write(2) through the kernel's pages. Processes beside
	// the writer then see its bytes before the write is answered, and before
	// other mounts do. Otherwise handles that can write bypass the pages,
	// where the kernel can map such handles all the same (Linux 6.6); their
	// reads come to the Backend.
	CachedWrites bool
	// Metrics receives counters and latencies of requests; nil: they are
	// kept for Stats alone. Mounts that share a registry share them.
	Metrics *obs.Registry

	// Helper mounts through fusermount3 even where mount(2) is allowed.
	Helper bool
	Logger *slog.Logger // default slog.Default()
}

// Limits of Config.
const (
	maxWrite = 1 << 20
	maxSpin  = 50 * time.Microsecond
)

// complete checks c and returns it with defaults filled in.
func (c Config) complete() (Config, error) {
	const op = "kernel.config"
	if c.Dir == "" {
		return c, errs.E(op, errs.Usage, "no mount point", nil)
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return c, errs.E(op, errs.Usage, c.Dir, err)
	}
	c.Dir = dir
	for _, p := range []struct {
		v        *int
		def, max int
		name     string
	}{
		{&c.MaxWrite, maxWrite, maxWrite, "MaxWrite"},
		{&c.ReadAhead, 1 << 20, 64 << 20, "ReadAhead"},
		{&c.MaxBackground, 128, 1<<16 - 1, "MaxBackground"},
		{&c.MaxRunning, 1024, 1 << 20, "MaxRunning"},
		{&c.IdleReaders, max(2, runtime.GOMAXPROCS(0)), 1 << 10, "IdleReaders"},
	} {
		if *p.v == 0 {
			*p.v = p.def
		}
		if *p.v < 1 || *p.v > p.max {
			return c, errs.E(op, errs.Usage, p.name+" out of range", nil)
		}
	}
	if c.MaxWrite < 4096 {
		return c, errs.E(op, errs.Usage, "MaxWrite below a page", nil)
	}
	if c.Spin < 0 || c.Spin > maxSpin {
		return c, errs.E(op, errs.Usage, "Spin must be at most "+maxSpin.String(), nil)
	}
	if c.Root == 0 {
		c.Root = meta.RootIno
	}
	if c.Source == "" {
		c.Source = "agentdrive"
	}
	if c.Metrics == nil {
		c.Metrics = obs.NewRegistry()
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}
