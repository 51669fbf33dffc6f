package rpc

import (
	"context"
	"fmt"
	"net"
	"strings"

	"agentdrive/internal/errs"
)

// Network opens and accepts byte streams. Safe for concurrent use.
type Network interface {
	// Listen binds addr. Port 0 picks a free port; the listener's Addr, in
	// the form of this package's addresses, tells which.
	Listen(addr string) (net.Listener, error)
	// Dial connects to addr. It returns when ctx ends at the latest.
	Dial(ctx context.Context, addr string) (net.Conn, error)
}

const unixPrefix = "unix:"

// Addr is an address in the form this package uses everywhere.
type Addr string

// Network is "unix" or "tcp".
func (a Addr) Network() string {
	if strings.HasPrefix(string(a), unixPrefix) {
		return "unix"
	}
	return "tcp"
}

// String is the address as it is dialed.
func (a Addr) String() string { return string(a) }

// SplitAddr parses an address into the arguments of net.Dial. errs.Usage when
// it is neither "host:port" nor "unix:/absolute/path".
func SplitAddr(addr string) (network, address string, err error) {
	if path, ok := strings.CutPrefix(addr, unixPrefix); ok {
		if !strings.HasPrefix(path, "/") {
			return "", "", badAddr(addr, "a unix socket needs an absolute path")
		}
		if len(path) > maxUnixPath {
			return "", "", badAddr(addr, fmt.Sprintf("a unix socket path has at most %d bytes", maxUnixPath))
		}
		return "unix", path, nil
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return "", "", badAddr(addr, "neither host:port nor unix:/path")
	}
	return "tcp", addr, nil
}

// maxUnixPath is the room in sockaddr_un.sun_path on Linux without the final
// NUL.
const maxUnixPath = 107

func badAddr(addr, why string) error {
	return errs.E("rpc.address", errs.Usage, fmt.Sprintf("%q: %s", addr, why), nil).
		WithHint("write host:port, or unix: and the absolute path of a socket")
}
