package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"agentdrive/internal/errs"
	"agentdrive/internal/rpc"
	"agentdrive/internal/rpc/memnet"
)

// testErrorCodec carries the kind's number as a gRPC code beyond the known ones.
func testErrorCodec() rpc.ErrorCodec {
	return rpc.ErrorCodec{
		ToWire: func(err error) error { return status.Error(codes.Code(1000+int(errs.KindOf(err))), err.Error()) },
		FromWire: func(err error) error {
			s := status.Convert(err)
			if s.Code() < 1000 {
				return errs.E("test", errs.Unavailable, "", err)
			}
			return errs.E("test", errs.Kind(s.Code()-1000), s.Message(), nil)
		},
	}
}

// serve runs a gRPC server behind a Mux on network and returns a client.
func serve(t *testing.T, network rpc.Network, addr string, register func(s *grpc.Server)) *grpc.ClientConn {
	t.Helper()
	lis, err := network.Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	m, err := rpc.NewMux(rpc.MuxConfig{Network: network, Cluster: cluster(1)}, lis)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(rpc.ServerOptions()...)
	register(s)
	ended := make(chan error, 2)
	go func() { ended <- m.Serve() }()
	go func() { ended <- s.Serve(m.GRPC()) }()
	cc, err := rpc.NewClient(network, lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cc.Close()
		s.Stop()
		m.Close()
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("serving ended with %v", err)
			}
		}
	})
	return cc
}

func grpcNetworks(t *testing.T) map[string]func() (rpc.Network, string) {
	return map[string]func() (rpc.Network, string){
		"tcp":    func() (rpc.Network, string) { return rpc.TCP{}, "127.0.0.1:0" },
		"unix":   func() (rpc.Network, string) { return rpc.TCP{}, "unix:" + filepath.Join(socketDir(t), "s") },
		"memnet": func() (rpc.Network, string) { return memnet.New().Host("m1"), "m1:0" },
	}
}

func echoFrames(s rpc.FrameStream) error {
	for {
		b, err := s.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if string(b) == "fail" {
			return errs.E("echo", errs.Quota, "as told", nil)
		}
		if err := s.Send(b); err != nil {
			return err
		}
	}
}

func TestFrames(t *testing.T) {
	for name, mk := range grpcNetworks(t) {
		t.Run(name, func(t *testing.T) {
			network, addr := mk()
			cc := serve(t, network, addr, func(s *grpc.Server) { rpc.RegisterFrames(s, testErrorCodec(), echoFrames) })
			s, err := rpc.OpenFrames(t.Context(), cc, testErrorCodec())
			if err != nil {
				t.Fatal(err)
			}
			frames := [][]byte{[]byte("a"), nil, bytes.Repeat([]byte("0123456789abcdef"), 400<<10/16), []byte("z")}
			for _, f := range frames {
				if err := s.Send(f); err != nil {
					t.Fatal(err)
				}
			}
			for i, f := range frames {
				got, err := s.Recv()
				if err != nil || !bytes.Equal(got, f) {
					t.Fatalf("frame %d of %d bytes came back with %d: %v", i, len(f), len(got), err)
				}
			}
			if err := s.CloseSend(); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Recv(); err != io.EOF {
				t.Errorf("Recv after the server ended: %v", err)
			}

			s, err = rpc.OpenFrames(t.Context(), cc, testErrorCodec())
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Send([]byte("fail")); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Recv(); !errs.Is(err, errs.Quota) || !strings.Contains(err.Error(), "as told") {
				t.Errorf("Recv after the server failed: %v", err)
			}
			if err := s.Send([]byte("more")); err != io.EOF {
				t.Errorf("Send after the server failed: %v", err)
			}
		})
	}
}

// TestFramesTooBig: one frame over the limit ends its stream, nothing else.
func TestFramesTooBig(t *testing.T) {
	cc := serve(t, memnet.New().Host("m1"), "m1:0", func(s *grpc.Server) { rpc.RegisterFrames(s, testErrorCodec(), echoFrames) })
	s, err := rpc.OpenFrames(t.Context(), cc, rpc.ErrorCodec{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(make([]byte, rpc.MaxMessage+1)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("Send of too much: %v", err)
	}
	s, err = rpc.OpenFrames(t.Context(), cc, rpc.ErrorCodec{})
	if err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte{7}, rpc.MaxMessage)
	if err := s.Send(big); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Recv(); err != nil || !bytes.Equal(got, big) {
		t.Errorf("the largest frame: %d bytes, %v", len(got), err)
	}
}

// TestFramesPartition: a stream survives a partition and ends with its
// connection.
func TestFramesPartition(t *testing.T) {
	n := memnet.New()
	ended := make(chan error, 1)
	peer := make(chan string, 1)
	serve(t, n.Host("m1"), "m1:7000", func(s *grpc.Server) {
		rpc.RegisterFrames(s, testErrorCodec(), func(s rpc.FrameStream) error {
			peer <- s.Peer()
			err := echoFrames(s)
			<-s.Context().Done()
			ended <- err
			return err
		})
	})
	cc, err := rpc.NewClient(n.Host("c"), "m1:7000")
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	s, err := rpc.OpenFrames(t.Context(), cc, testErrorCodec())
	if err != nil {
		t.Fatal(err)
	}
	echo := func(msg string) {
		t.Helper()
		if err := s.Send([]byte(msg)); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Recv(); err != nil || string(got) != msg {
			t.Fatalf("%q came back as %q, %v", msg, got, err)
		}
	}
	echo("one")
	if p := <-peer; !strings.HasPrefix(p, "c:") || !strings.Contains(s.Peer(), "m1:7000") {
		t.Errorf("peers are %s and %s", p, s.Peer())
	}
	n.PartitionOneWay("m1", "c")
	if err := s.Send([]byte("two")); err != nil {
		t.Fatal(err)
	}
	n.Heal("m1", "c")
	if got, err := s.Recv(); err != nil || string(got) != "two" {
		t.Fatalf("after the partition: %q, %v", got, err)
	}
	if n.Cut("m1", "c") == 0 {
		t.Fatal("no connection to cut")
	}
	if _, err := s.Recv(); !errs.Is(err, errs.Unavailable) {
		t.Errorf("Recv after the cut: %v", err)
	}
	if err := <-ended; err == nil {
		t.Error("the server saw a good end")
	}
}

func TestUnary(t *testing.T) {
	method := rpc.Method{Service: "test.Echo", Name: "Echo"}
	methods := map[string]rpc.UnaryHandler{
		"Echo": func(_ context.Context, req []byte) ([]byte, error) { return append([]byte("re: "), req...), nil },
		"Fail": func(context.Context, []byte) ([]byte, error) { return nil, errs.E("x", errs.NotExist, "gone", nil) },
	}
	for name, mk := range grpcNetworks(t) {
		t.Run(name, func(t *testing.T) {
			network, addr := mk()
			cc := serve(t, network, addr, func(s *grpc.Server) {
				rpc.RegisterUnary(s, testErrorCodec(), method.Service, methods)
				healthpb.RegisterHealthServer(s, health.NewServer())
			})
			for _, req := range []string{"hello", ""} {
				got, err := rpc.CallUnary(t.Context(), cc, testErrorCodec(), method, []byte(req))
				if err != nil || string(got) != "re: "+req {
					t.Errorf("%q is answered %q, %v", req, got, err)
				}
			}
			if _, err := rpc.CallUnary(t.Context(), cc, testErrorCodec(), rpc.Method{Service: method.Service, Name: "Fail"}, nil); !errs.Is(err, errs.NotExist) {
				t.Errorf("Fail: %v", err)
			}
			if _, err := rpc.CallUnary(t.Context(), cc, rpc.ErrorCodec{}, rpc.Method{Service: "none", Name: "X"}, nil); status.Code(err) != codes.Unimplemented {
				t.Errorf("unknown service: %v", err)
			}
			// Protobuf services work on the same server.
			if r, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil || r.Status != healthpb.HealthCheckResponse_SERVING {
				t.Errorf("health check: %v, %v", r, err)
			}
		})
	}
}

func TestUnaryInterceptor(t *testing.T) {
	var seen string
	n := memnet.New().Host("m1")
	lis, err := n.Listen("m1:1")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(append(rpc.ServerOptions(), grpc.UnaryInterceptor(
		func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			seen = info.FullMethod
			return next(ctx, req)
		}))...)
	rpc.RegisterUnary(s, rpc.ErrorCodec{}, "svc", map[string]rpc.UnaryHandler{
		"M": func(context.Context, []byte) ([]byte, error) { return []byte("ok"), nil }})
	go s.Serve(lis)
	defer s.Stop()
	cc, err := rpc.NewClient(n, "m1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	got, err := rpc.CallUnary(t.Context(), cc, rpc.ErrorCodec{}, rpc.Method{Service: "svc", Name: "M"}, nil)
	if err != nil || string(got) != "ok" || seen != "/svc/M" {
		t.Errorf("got %q, %v; the interceptor saw %q", got, err, seen)
	}
}

// bufferMessage passes its buffers through.
type bufferMessage struct{ data []byte }

func (m *bufferMessage) MarshalBuffers() (mem.BufferSlice, error) {
	if m.data == nil {
		return nil, errors.New("nothing to send")
	}
	return mem.BufferSlice{mem.SliceBuffer(m.data)}, nil
}

func (m *bufferMessage) UnmarshalBuffers(b mem.BufferSlice) error {
	m.data = b.Materialize()
	return nil
}

func TestRawCodec(t *testing.T) {
	c := rpc.RawCodec{}
	if c.Name() != rpc.CodecName {
		t.Errorf("name is %s", c.Name())
	}
	raw := []byte("bytes")
	parts := mem.BufferSlice{mem.SliceBuffer("by"), mem.SliceBuffer("tes")}
	var back []byte
	for _, v := range []any{&raw, &bufferMessage{raw}} {
		b, err := c.Marshal(v)
		if err != nil || string(b.Materialize()) != "bytes" {
			t.Errorf("%T encodes as %q, %v", v, b.Materialize(), err)
		}
	}
	into := &bufferMessage{}
	if err := c.Unmarshal(parts, &back); err != nil || string(back) != "bytes" {
		t.Errorf("decoded %q, %v", back, err)
	}
	if err := c.Unmarshal(parts, into); err != nil || string(into.data) != "bytes" {
		t.Errorf("decoded %q, %v", into.data, err)
	}
	for _, v := range []any{raw, 7, &bufferMessage{}} {
		if _, err := c.Marshal(v); err == nil {
			t.Errorf("%T was encoded", v)
		}
	}
	if err := c.Unmarshal(parts, 7); err == nil {
		t.Error("decoded into a number")
	}
}

func TestNewClientBadAddress(t *testing.T) {
	if _, err := rpc.NewClient(rpc.TCP{}, "nonsense"); !errs.Is(err, errs.Usage) {
		t.Errorf("NewClient: %v", err)
	}
}
