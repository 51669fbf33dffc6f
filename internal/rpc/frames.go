package rpc

import (
	"context"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
)

// ErrorCodec carries errors through gRPC. ToWire runs on the server, before
// an error becomes a status; FromWire runs on the client on whatever gRPC
// returned. A nil function leaves errors as they are; io.EOF of a stream that
// ended well never passes through.
type ErrorCodec struct {
	ToWire   func(error) error
	FromWire func(error) error
}

func (c ErrorCodec) toWire(err error) error {
	if err == nil || c.ToWire == nil {
		return err
	}
	return c.ToWire(err)
}

func (c ErrorCodec) fromWire(err error) error {
	if err == nil || err == io.EOF || c.FromWire == nil {
		return err
	}
	return c.FromWire(err)
}

// FrameStream is a bidirectional stream of opaque frames. One goroutine may
// send while another receives; neither method may be called by two at once.
type FrameStream interface {
	// Send queues one frame of at most MaxMessage bytes. It waits while the
	// peer's window is full. The stream keeps b: the caller must not modify it
	// afterwards. At the client io.EOF means that the stream has ended; Recv
	// tells why.
	Send(b []byte) error
	// Recv returns the next frame, which is the caller's. io.EOF when the
	// peer ended the stream well.
	Recv() ([]byte, error)
	// Context ends with the stream.
	Context() context.Context
	// Peer is the other end's address, for logs.
	Peer() string
}

// ClientFrameStream is the client's end.
type ClientFrameStream interface {
	FrameStream
	// CloseSend ends the sending direction; Recv goes on. To abandon the
	// stream, cancel its context.
	CloseSend() error
}

// The gRPC names of the frame stream.
const (
	FramesService = "agentdrive.meta.v1.Session"
	framesMethod  = "/" + FramesService + "/Stream"
)

func framesDesc() grpc.StreamDesc {
	return grpc.StreamDesc{StreamName: "Stream", ServerStreams: true, ClientStreams: true}
}

// RegisterFrames serves the frame stream on s. handler runs once for each
// stream, in a goroutine of gRPC; the stream ends when it returns, with its
// error.
func RegisterFrames(s grpc.ServiceRegistrar, ec ErrorCodec, handler func(stream FrameStream) error) {
	stream := framesDesc()
	stream.Handler = func(_ any, ss grpc.ServerStream) error {
		return ec.toWire(handler(&serverFrames{ss}))
	}
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: FramesService,
		HandlerType: (*any)(nil),
		Streams:     []grpc.StreamDesc{stream},
	}, nil)
}

type serverFrames struct{ ss grpc.ServerStream }

func (f *serverFrames) Send(b []byte) error { return f.ss.SendMsg(&b) }

func (f *serverFrames) Recv() ([]byte, error) {
	var b []byte
	if err := f.ss.RecvMsg(&b); err != nil {
		return nil, err
	}
	return b, nil
}

func (f *serverFrames) Context() context.Context { return f.ss.Context() }

func (f *serverFrames) Peer() string { return peerOf(f.ss.Context()) }

func peerOf(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		return p.Addr.String()
	}
	return "unknown"
}

// OpenFrames opens a frame stream. It lives until ctx ends, the peer ends it,
// or the connection breaks; a caller that stops using it must end ctx.
func OpenFrames(ctx context.Context, cc *grpc.ClientConn, ec ErrorCodec) (ClientFrameStream, error) {
	desc := framesDesc()
	cs, err := cc.NewStream(ctx, &desc, framesMethod, grpc.ForceCodecV2(RawCodec{}))
	if err != nil {
		return nil, ec.fromWire(err)
	}
	return &clientFrames{cs: cs, ec: ec, target: cc.Target()}, nil
}

type clientFrames struct {
	cs     grpc.ClientStream
	ec     ErrorCodec
	target string
}

// Send returns io.EOF when the stream has ended; Recv tells why.
func (f *clientFrames) Send(b []byte) error { return f.ec.fromWire(f.cs.SendMsg(&b)) }

func (f *clientFrames) Recv() ([]byte, error) {
	var b []byte
	if err := f.cs.RecvMsg(&b); err != nil {
		return nil, f.ec.fromWire(err)
	}
	return b, nil
}

func (f *clientFrames) Context() context.Context { return f.cs.Context() }

func (f *clientFrames) CloseSend() error { return f.ec.fromWire(f.cs.CloseSend()) }

func (f *clientFrames) Peer() string { return f.target }
