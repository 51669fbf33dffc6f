package rpc

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"agentdrive/internal/errs"
)

// MaxMessage is the largest gRPC message either way, bytes: a 4 MiB block
// with its header, or a batch, with room.
const MaxMessage = 8 << 20

// Ping times. A server answers pings more frequent than minPing with GOAWAY,
// so minPing stays well below clientPing.
const (
	clientPing  = 10 * time.Second
	serverPing  = 15 * time.Second
	pingTimeout = 5 * time.Second
	minPing     = 5 * time.Second
)

// Start windows, bytes: a 1 MiB message must not wait for a window update.
// Any window setting turns gRPC's growth by measured bandwidth-delay product
// off, and one alone would pin the other to 64 KiB, so both are set. They bound
// what a receiver that does not read makes its sender buffer.
const (
	streamWindow = 4 << 20
	connWindow   = 16 << 20
	ioBuffer     = 128 << 10
)

// ServerOptions are the options of every gRPC server of Agent Drive. The
// connections come from Mux.GRPC; TLS, where it is used, is below it.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(RawCodec{}),
		grpc.MaxRecvMsgSize(MaxMessage),
		grpc.MaxSendMsgSize(MaxMessage),
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(connWindow),
		grpc.ReadBufferSize(ioBuffer),
		grpc.WriteBufferSize(ioBuffer),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: serverPing, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
	}
}

// DialOptions are the options of every gRPC client of Agent Drive, whose
// connections go through network.
func DialOptions(network Network) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return network.Dial(ctx, addr)
		}),
		grpc.WithAuthority("agentdrive"), // a unix path makes no valid one
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithInitialWindowSize(streamWindow),
		grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithReadBufferSize(ioBuffer),
		grpc.WithWriteBufferSize(ioBuffer),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: clientPing, Timeout: pingTimeout, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			// A server that restarts must be found within P4's 3 s.
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 3 * time.Second,
		}),
	}
}

// NewClient makes a client connection to addr, an address of this package. It
// connects on first use. extra options come last.
func NewClient(network Network, addr string, extra ...grpc.DialOption) (*grpc.ClientConn, error) {
	if _, _, err := SplitAddr(addr); err != nil {
		return nil, err
	}
	cc, err := grpc.NewClient("passthrough:///"+addr, append(DialOptions(network), extra...)...)
	if err != nil {
		return nil, errs.E("rpc.client", errs.Usage, addr, err)
	}
	return cc, nil
}
