package kernel

import (
	"errors"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"agentdrive/internal/errs"
)

const devicePath = "/dev/fuse"

// fuseDevIocClone is FUSE_DEV_IOC_CLONE, _IOR(229, 0, uint32_t).
const fuseDevIocClone = 0x8004e500

// device is an open connection of /dev/fuse.
//
// Where spinning is on there are two descriptors of the one connection: one is
// polled without blocking, on the other a reader sleeps when the poll found
// nothing for a while. A reply must be written to the descriptor its request
// was read from.
type device struct {
	fd       int // blocking
	poll     int // non-blocking clone, or -1
	spin     time.Duration
	spinning atomic.Bool // one reader spins at a time
}

// newDevice takes fd over, also on error.
func newDevice(fd int, spin time.Duration) (*device, error) {
	d := &device{fd: fd, poll: -1, spin: spin}
	if spin == 0 {
		return d, nil
	}
	clone, err := unix.Open(devicePath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		// Without the right to open the device again there is no spinning.
		d.spin = 0
		return d, nil
	}
	from := uint32(fd)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(clone), fuseDevIocClone, uintptr(unsafe.Pointer(&from))); e != 0 {
		return nil, errs.E("kernel.clone", errs.IO, "second descriptor of the connection",
			errors.Join(e, unix.Close(clone), unix.Close(fd)))
	}
	d.poll = clone
	return d, nil
}

// read takes a request off the device into buf, waiting for one. from is the
// descriptor to answer on. Any error means that the connection is over.
func (d *device) read(buf []byte) (n, from int, err error) {
	if d.spin > 0 && d.spinning.CompareAndSwap(false, true) {
		n, err := d.pollRead(buf)
		d.spinning.Store(false)
		if n > 0 || err != nil {
			return n, d.poll, err
		}
	}
	for {
		n, err := unix.Read(d.fd, buf)
		switch {
		case err == nil:
			return n, d.fd, nil
		case again(err):
		default:
			return 0, d.fd, err
		}
	}
}

// again reports whether a read failed for a passing reason: a signal, or a
// request that was withdrawn while it was being copied.
func again(err error) bool {
	return errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EAGAIN)
}

// pollRead tries for d.spin and returns 0 when nothing came.
func (d *device) pollRead(buf []byte) (int, error) {
	start := time.Now()
	for i := 1; ; i++ {
		n, _, e := unix.RawSyscall(unix.SYS_READ, uintptr(d.poll), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
		switch {
		case e == 0:
			return int(n), nil
		case !again(e):
			return 0, e
		}
		if i%16 == 0 && time.Since(start) > d.spin {
			return 0, nil
		}
	}
}

// sever lets go of the connection while the descriptors stay valid: they become
// /dev/null, so that a late reply goes nowhere. The kernel ends the connection
// once the last reader has left read(2).
func (d *device) sever() error {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = unix.Dup3(null, d.fd, unix.O_CLOEXEC)
	if d.poll >= 0 {
		err = errors.Join(err, unix.Dup3(null, d.poll, unix.O_CLOEXEC))
	}
	return errors.Join(err, unix.Close(null))
}

// close closes the descriptors; no reader may be left. The last close of a
// live connection aborts it.
func (d *device) close() error {
	err := unix.Close(d.fd)
	if d.poll >= 0 {
		err = errors.Join(err, unix.Close(d.poll))
	}
	return err
}
