package kernel

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"agentdrive/internal/errs"
)

// fsType is the subtype shown by mount(8): "fuse.agentdrive".
const fsType = "agentdrive"

// Mount is a mounted file system that is being served.
type Mount struct {
	cfg    Config
	log    *slog.Logger
	conn   *conn
	dev    string // of the mount, as in mountinfo: "0:57"
	direct bool   // mounted by mount(2), not by fusermount3
	proto  Protocol
	done   chan struct{} // closed when all is given back
}

// Protocol is what the kernel offered at INIT.
type Protocol struct {
	Major, Minor uint32
	Flags        uint64 // FUSE_INIT flags, both words
}

// New mounts the Backend's file system at cfg.Dir and serves it until it is
// unmounted. The caller must not use files below Dir itself: a page fault or a
// poll there would wait for this very process.
func New(b Backend, cfg Config) (*Mount, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	if cfg.Dir, err = mountPoint(cfg.Dir); err != nil {
		return nil, err
	}
	fd, direct, err := attach(cfg)
	if err != nil {
		return nil, err
	}
	m := &Mount{cfg: cfg, log: cfg.Logger.With("mount", cfg.Dir), direct: direct, done: make(chan struct{})}
	if err := m.serve(b, fd); err != nil {
		return nil, errors.Join(err, m.detach(true))
	}
	return m, nil
}

// serve speaks INIT and starts the workers; it takes fd over.
func (m *Mount) serve(b Backend, fd int) error {
	dev, err := newDevice(fd, m.cfg.Spin)
	if err != nil {
		return err
	}
	m.conn = newConn(dev, b, m.cfg)
	fs := &fileSystem{RawFileSystem: fuse.NewDefaultRawFileSystem(), backend: b, conn: m.conn}
	m.conn.ps = fuse.NewProtocolServer(fs, m.protocolOptions())
	if err := m.init(); err != nil {
		return errors.Join(err, dev.close())
	}
	m.conn.probeEpoch()
	m.conn.directWrites = !m.cfg.CachedWrites && m.proto.Flags&fuse.CAP_DIRECT_IO_ALLOW_MMAP != 0
	b.Attach(m.conn)
	m.conn.start()
	go func() {
		if err := m.conn.settle(); err != nil {
			m.log.Error("fuse: closing the device", "err", err)
		}
		close(m.done)
	}()
	if m.dev, err = findMount(m.cfg.Dir); err != nil {
		return err // unmounting ends the workers
	}
	m.raiseReadAhead()
	return nil
}

func (m *Mount) protocolOptions() *fuse.MountOptions {
	return &fuse.MountOptions{
		MaxWrite:      m.cfg.MaxWrite,
		MaxReadAhead:  m.cfg.ReadAhead,
		MaxBackground: m.cfg.MaxBackground,
		Name:          fsType,
		// READDIRPLUS, ASYNC_READ, PARALLEL_DIROPS, MAX_PAGES and
		// AUTO_INVAL_DATA are go-fuse's own choice. Not asked for:
		// WRITEBACK_CACHE (cannot be coherent), ATOMIC_O_TRUNC (truncation
		// arrives as SETATTR), DONT_MASK (the kernel applies umask).
		EnableLocks: m.cfg.Locks,
		ExtraCapabilities: fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_READDIRPLUS_AUTO |
			fuse.CAP_ASYNC_DIO | fuse.CAP_DIRECT_IO_ALLOW_MMAP,
		DisabledCapabilities: fuse.CAP_PASSTHROUGH,
		Logger:               slog.NewLogLogger(m.log.Handler(), slog.LevelDebug),
		PanicHandler: func(v any) fuse.Status {
			m.log.Error("fuse: panic in a request", "panic", v, "stack", string(debug.Stack()))
			return fuse.EIO
		},
	}
}

// init answers the kernel's first request. It runs before any worker, so that
// what go-fuse learns from it is ordered before all else.
func (m *Mount) init() error {
	const op = "kernel.init"
	buf := make([]byte, m.cfg.MaxWrite+8192)
	n, fd, err := m.conn.dev.read(buf)
	if err != nil {
		return errs.E(op, errs.IO, "no first request", err)
	}
	if n < inHeaderBytes+16 {
		return errs.E(op, errs.IO, "first request too short", nil)
	}
	h := parseHeader(buf)
	if h.op != opInit {
		return errs.E(op, errs.IO, fmt.Sprintf("first request is %d", h.op), nil)
	}
	m.proto = Protocol{
		Major: uint32(uint32At(buf[:n], inHeaderBytes)),
		Minor: uint32(uint32At(buf[:n], inHeaderBytes+4)),
		Flags: uint64(uint32At(buf[:n], inHeaderBytes+12)) | uint64(uint32At(buf[:n], inHeaderBytes+16))<<32,
	}
	out := make([]byte, replyRoom(h.op, buf[:n]))
	w, st := m.conn.ps.HandleRequest([][]byte{buf[:n]}, [][]byte{out})
	if !st.Ok() || w < outHeaderBytes || uint32At(out, 4) != 0 {
		return errs.E(op, errs.Unsupported, fmt.Sprintf("protocol %d.%d of this kernel", m.proto.Major, m.proto.Minor), nil)
	}
	if !m.conn.write(fd, out[:w]) {
		return errs.E(op, errs.IO, "kernel refused the answer", nil)
	}
	return nil
}

// Protocol tells what the kernel offered.
func (m *Mount) Protocol() Protocol { return m.proto }

// Dir is the mount point, absolute and without symbolic links.
func (m *Mount) Dir() string { return m.cfg.Dir }

// mountPoint resolves dir and checks that it is a directory.
func mountPoint(dir string) (string, error) {
	const op = "kernel.mount"
	real, err := filepath.EvalSymlinks(dir)
	switch {
	case errors.Is(err, unix.ENOTCONN):
		return "", errs.E(op, errs.Busy, dir+" is a mount whose server is gone", err).
			WithHint("umount -l " + dir)
	case errors.Is(err, os.ErrNotExist):
		return "", errs.E(op, errs.NotExist, dir, err)
	case err != nil:
		return "", errs.E(op, errs.IO, dir, err)
	}
	st, err := os.Stat(real)
	if err != nil {
		return "", errs.E(op, errs.IO, dir, err)
	}
	if !st.IsDir() {
		return "", errs.E(op, errs.NotDir, dir, nil)
	}
	return real, nil
}

// attach opens the device and mounts it. Without the right to mount it asks
// fusermount3.
func attach(cfg Config) (fd int, direct bool, err error) {
	if !cfg.Helper && os.Geteuid() == 0 {
		fd, err = mountDirect(cfg)
		if err == nil || !errors.Is(err, unix.EPERM) {
			return fd, true, err
		}
		// Root of a container without CAP_SYS_ADMIN.
	}
	fd, err = mountHelper(cfg)
	return fd, false, err
}

// mountDirect uses mount(2).
func mountDirect(cfg Config) (int, error) {
	const op = "kernel.mount"
	fd, err := unix.Open(devicePath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, errs.E(op, errs.Unavailable, devicePath, err).
			WithHint("modprobe fuse; in a container, add --device /dev/fuse --cap-add SYS_ADMIN")
	}
	opts := []string{
		fmt.Sprintf("fd=%d", fd), "rootmode=40000",
		fmt.Sprintf("user_id=%d", os.Geteuid()), fmt.Sprintf("group_id=%d", os.Getegid()),
		"default_permissions", fmt.Sprintf("max_read=%d", cfg.MaxWrite),
	}
	if cfg.AllowOther {
		opts = append(opts, "allow_other")
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if cfg.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount(cfg.Source, cfg.Dir, "fuse."+fsType, flags, strings.Join(opts, ",")); err != nil {
		return -1, errors.Join(errs.E(op, errs.IO, cfg.Dir, err), unix.Close(fd))
	}
	return fd, nil
}

// raiseReadAhead lifts the kernel's read-ahead window for this mount above the
// 128 KiB it offers at INIT. Only root may; others read with the smaller one.
func (m *Mount) raiseReadAhead() {
	if os.Geteuid() != 0 {
		return
	}
	file := "/sys/class/bdi/" + m.dev + "/read_ahead_kb"
	if err := os.WriteFile(file, fmt.Appendf(nil, "%d", m.cfg.ReadAhead>>10), 0); err != nil {
		m.log.Warn("fuse: read-ahead stays small", "err", err)
	}
}
