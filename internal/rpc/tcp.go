package rpc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"agentdrive/internal/errs"
)

// TCP is the real Network: TCP with TCP_NODELAY and keepalive, and unix
// sockets. The zero value is ready.
type TCP struct {
	// UnixMode is the mode of a unix socket that Listen creates. Default
	// 0600. Whoever must not even connect belongs outside the socket's
	// directory: between bind and chmod the umask decides.
	UnixMode fs.FileMode
}

var _ Network = TCP{}

// keepAlive finds a dead peer of an idle connection after 15 + 3 * 5 seconds,
// two lease periods.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}
}

// Listen implements Network.
func (t TCP) Listen(addr string) (net.Listener, error) {
	network, address, err := SplitAddr(addr)
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		return t.listenUnix(addr, address)
	}
	lc := net.ListenConfig{KeepAliveConfig: keepAlive()}
	lis, err := lc.Listen(context.Background(), network, address)
	if err != nil {
		return nil, listenError(addr, err)
	}
	return lis, nil // Go sets TCP_NODELAY on accepted connections
}

// Dial implements Network.
func (t TCP) Dial(ctx context.Context, addr string) (net.Conn, error) {
	network, address, err := SplitAddr(addr)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{KeepAliveConfig: keepAlive()}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, dialError(ctx, addr, err)
	}
	return conn, nil // Go sets TCP_NODELAY
}

// listenUnix binds path, replacing a socket file that nobody listens on.
//
// Looking, removing and binding are one step under a lock on path+".lock":
// otherwise of two servers started together the second could remove the
// socket that the first has just bound. The lock file stays; removing it
// would bring the race back.
func (t TCP) listenUnix(addr, path string) (net.Listener, error) {
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, listenError(addr, err)
	}
	defer lock.Close() // closing releases the lock; nothing was written
	if err := removeStale(addr, path); err != nil {
		return nil, err
	}
	lis, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, listenError(addr, err)
	}
	mode := t.UnixMode
	if mode == 0 {
		mode = 0o600
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(listenError(addr, err), lis.Close())
	}
	return unixListener{UnixListener: lis, addr: Addr(addr)}, nil
}

func lockFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// removeStale removes the socket file at path when a connection to it is
// refused. Anything else that stands there is left alone and reported.
func removeStale(addr, path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return listenError(addr, err)
	}
	if fi.Mode().Type() != fs.ModeSocket {
		return errs.E("rpc.listen", errs.Busy, fmt.Sprintf("%s: a file that is not a socket is in the way", addr), nil).
			WithHint("move the file away, or choose another address with --listen")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		return errors.Join(busyError(addr, nil), conn.Close())
	case errors.Is(err, unix.ECONNREFUSED):
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return listenError(addr, err)
		}
		return nil
	case errors.Is(err, fs.ErrNotExist): // its owner has just closed it
		return nil
	}
	return busyError(addr, err) // a full backlog answers EAGAIN: somebody lives there
}

// unixListener gives the address in our form.
type unixListener struct {
	*net.UnixListener
	addr Addr
}

func (l unixListener) Addr() net.Addr { return l.addr }

func busyError(addr string, cause error) error {
	return errs.E("rpc.listen", errs.Busy, fmt.Sprintf("%s is in use by another process", addr), cause).
		WithHint("stop that process, or choose another address with --listen")
}

func listenError(addr string, err error) error {
	kind := errs.Unavailable
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return busyError(addr, err)
	case errors.Is(err, fs.ErrPermission):
		kind = errs.Access
	case errors.Is(err, fs.ErrNotExist):
		kind = errs.NotExist
	}
	return errs.E("rpc.listen", kind, "cannot listen on "+addr, err)
}

func dialError(ctx context.Context, addr string, err error) error {
	switch ctx.Err() {
	case context.DeadlineExceeded:
		return errs.E("rpc.dial", errs.Timeout, fmt.Sprintf("no answer from %s in time", addr), err)
	case context.Canceled:
		return errs.E("rpc.dial", errs.Canceled, "connecting to "+addr, err)
	}
	var ne net.Error
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return errs.E("rpc.dial", errs.Unavailable, fmt.Sprintf("nobody listens on %s", addr), err)
	case errors.As(err, &ne) && ne.Timeout():
		return errs.E("rpc.dial", errs.Timeout, fmt.Sprintf("no answer from %s in time", addr), err)
	case errors.Is(err, fs.ErrPermission):
		return errs.E("rpc.dial", errs.Access, "cannot connect to "+addr, err)
	}
	return errs.E("rpc.dial", errs.Unavailable, "cannot connect to "+addr, err)
}
