package kernel

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"agentdrive/internal/errs"
)

// Wait returns when the connection is over, every request has returned and
// everything that the kernel held was given back to the Backend.
func (m *Mount) Wait() { <-m.done }

// Done is closed when Wait would return.
func (m *Mount) Done() <-chan struct{} { return m.done }

// Unmount detaches the file system if nobody uses it and waits for the end.
// Otherwise it fails with errs.Busy and the mount lives on.
func (m *Mount) Unmount() error {
	if err := m.detach(false); err != nil {
		return err
	}
	m.Wait()
	return nil
}

// UnmountLazy takes the file system out of the tree at once. It is served
// until its last user leaves: see Wait.
func (m *Mount) UnmountLazy() error { return m.detach(true) }

// Abort ends the connection whatever hangs, takes the file system out of the
// tree and waits for the end. Open requests and all later use of open files
// fail with ENOTCONN (ECONNABORTED if under way); what the kernel had not yet written back is lost.
func (m *Mount) Abort() error {
	if err := m.abort(); err != nil {
		return err
	}
	err := m.detach(true)
	m.Wait()
	return err
}

// over reports whether the connection has ended.
func (m *Mount) over() bool {
	select {
	case <-m.done:
		return true
	default:
		return false
	}
}

// mounted reports whether the file system is on top of its directory.
func (m *Mount) mounted() (bool, error) {
	e, ok, err := topMount(m.cfg.Dir)
	if m.dev == "" { // not looked up yet: mounted a moment ago
		return ok && strings.HasPrefix(e.fsType, "fuse"), err
	}
	return ok && e.dev == m.dev, err
}

// detach unmounts. What is not mounted any more is detached already, but while
// somebody uses it a plain unmount says so.
func (m *Mount) detach(lazy bool) error {
	const op = "kernel.unmount"
	there, err := m.mounted()
	if err != nil {
		return err
	}
	if !there {
		if lazy || m.over() {
			return nil
		}
		return errs.E(op, errs.Busy, m.cfg.Dir+" was unmounted lazily and is still in use", nil)
	}
	if !m.direct {
		return m.detachHelper(lazy)
	}
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	switch err := unix.Unmount(m.cfg.Dir, flags); {
	case err == nil:
		return nil
	case errors.Is(err, unix.EBUSY):
		return errs.E(op, errs.Busy, m.cfg.Dir+" is in use", err).WithHint("fuser -vm " + m.cfg.Dir)
	default:
		return errs.E(op, errs.IO, m.cfg.Dir, err)
	}
}

// detachHelper unmounts as an ordinary user. The helper does not say why it
// failed; what is still mounted afterwards is in use, unless lazy.
func (m *Mount) detachHelper(lazy bool) error {
	err := unmountHelper(m.cfg.Dir, lazy)
	if err == nil {
		return nil
	}
	there, lookErr := m.mounted()
	switch {
	case lookErr != nil:
		return errors.Join(err, lookErr)
	case !there:
		return nil
	case lazy:
		return errs.E("kernel.unmount", errs.IO, m.cfg.Dir, err)
	}
	return errs.E("kernel.unmount", errs.Busy, m.cfg.Dir+" is in use", err).WithHint("fuser -vm " + m.cfg.Dir)
}

// fusectl is where Linux keeps its switches for FUSE connections.
const fusectl = "/sys/fs/fuse/connections"

// throwSwitch aborts a connection through fusectl, which is the only way once
// the mount is detached. Where nobody has mounted fusectl, root does.
func throwSwitch(minor string) error {
	name := fusectl + "/" + minor + "/abort"
	err := os.WriteFile(name, []byte("1"), 0)
	if errors.Is(err, unix.ENOENT) && os.Geteuid() == 0 {
		if merr := unix.Mount("fusectl", fusectl, "fusectl", 0, ""); merr != nil {
			return errors.Join(err, merr)
		}
		err = os.WriteFile(name, []byte("1"), 0)
	}
	return err
}

// abort ends the connection: through fusectl, which the mounting user may
// write; else by umount2(MNT_FORCE), which root may; else by letting
// go of the device.
func (m *Mount) abort() error {
	if m.over() {
		return nil
	}
	_, minor, _ := strings.Cut(m.dev, ":")
	err := throwSwitch(minor)
	if err == nil {
		return nil
	}
	there, lookErr := m.mounted()
	if there {
		// EBUSY is the rule: the connection is ended all the same.
		forced := unix.Unmount(m.cfg.Dir, unix.MNT_FORCE|unix.UMOUNT_NOFOLLOW)
		if forced == nil || errors.Is(forced, unix.EBUSY) {
			return nil
		}
		if errors.Is(forced, unix.EPERM) {
			return m.sever()
		}
		err = errors.Join(err, forced)
	}
	return errs.E("kernel.abort", errs.Permission, m.cfg.Dir, errors.Join(err, lookErr)).
		WithHint("mount -t fusectl fusectl /sys/fs/fuse/connections")
}

// sever ends the connection by letting go of the device. A worker that stands
// in read(2) leaves when a request comes; each of the calls of statfs(2) here
// is one, and is never answered: it ends with the connection.
func (m *Mount) sever() error {
	readers := m.conn.abandon()
	if err := m.conn.dev.sever(); err != nil {
		return errs.E("kernel.abort", errs.IO, m.cfg.Dir, err)
	}
	for range readers {
		go func() {
			var st unix.Statfs_t
			if err := unix.Statfs(m.cfg.Dir, &st); err != nil {
				m.log.Debug("fuse: connection ended", "err", err) // as it must
			}
		}()
	}
	return nil
}
