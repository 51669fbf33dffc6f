package rpc

import (
	"context"

	"google.golang.org/grpc"
)

// UnaryHandler answers one request. It owns req; gRPC keeps the reply.
type UnaryHandler func(ctx context.Context, req []byte) ([]byte, error)

// RegisterUnary serves methods as unary calls of service on s.
func RegisterUnary(s grpc.ServiceRegistrar, ec ErrorCodec, service string, methods map[string]UnaryHandler) {
	desc := &grpc.ServiceDesc{ServiceName: service, HandlerType: (*any)(nil)}
	for name, h := range methods {
		desc.Methods = append(desc.Methods, grpc.MethodDesc{
			MethodName: name,
			Handler:    unaryHandler("/"+service+"/"+name, ec, h),
		})
	}
	s.RegisterService(desc, nil)
}

func unaryHandler(full string, ec ErrorCodec, h UnaryHandler) grpc.MethodHandler {
	call := func(ctx context.Context, req any) (any, error) {
		reply, err := h(ctx, *req.(*[]byte))
		if err != nil {
			return nil, ec.toWire(err)
		}
		return &reply, nil
	}
	return func(srv any, ctx context.Context, dec func(any) error, mw grpc.UnaryServerInterceptor) (any, error) {
		req := new([]byte)
		if err := dec(req); err != nil {
			return nil, err
		}
		if mw == nil {
			return call(ctx, req)
		}
		return mw(ctx, req, &grpc.UnaryServerInfo{Server: srv, FullMethod: full}, call)
	}
}

// CallUnary calls service/method. gRPC keeps req: the caller must not modify
// it afterwards. The reply is the caller's.
func CallUnary(ctx context.Context, cc grpc.ClientConnInterface, ec ErrorCodec, method Method, req []byte) ([]byte, error) {
	var reply []byte
	if err := cc.Invoke(ctx, method.full(), &req, &reply, grpc.ForceCodecV2(RawCodec{})); err != nil {
		return nil, ec.fromWire(err)
	}
	return reply, nil
}

// Method names a unary method.
type Method struct{ Service, Name string }

func (m Method) full() string { return "/" + m.Service + "/" + m.Name }
