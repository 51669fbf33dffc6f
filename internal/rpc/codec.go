package rpc

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the fallback of RawCodec
	"google.golang.org/grpc/mem"
)

// CodecName is the content subtype of RawCodec: "application/grpc+adraw".
const CodecName = "adraw"

// BufferMessage is a message that lays itself out without copying.
type BufferMessage interface {
	// MarshalBuffers returns the message's bytes. Each buffer carries a
	// reference that gRPC frees; what they point at must not change after.
	MarshalBuffers() (mem.BufferSlice, error)
	// UnmarshalBuffers reads the message. data is freed when it returns: a
	// receiver that keeps it takes references.
	UnmarshalBuffers(data mem.BufferSlice) error
}

// RawCodec sends bytes as they are. It takes
//
//   - *[]byte: encoding lends the slice to gRPC for good (the caller must not
//     modify it afterwards), decoding makes a slice of its own;
//   - BufferMessage: no copy on either side.
//
// Everything else is left to gRPC's protobuf codec, so that a server forced
// to RawCodec still serves health checks and reflection. Stateless.
type RawCodec struct{}

var _ encoding.CodecV2 = RawCodec{}

// Name implements encoding.CodecV2.
func (RawCodec) Name() string { return CodecName }

// Marshal implements encoding.CodecV2.
func (RawCodec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case *[]byte:
		return mem.BufferSlice{mem.SliceBuffer(*m)}, nil
	case BufferMessage:
		return m.MarshalBuffers()
	}
	if c := encoding.GetCodecV2("proto"); c != nil {
		return c.Marshal(v)
	}
	return nil, fmt.Errorf("rpc: cannot encode %T", v)
}

// Unmarshal implements encoding.CodecV2.
func (RawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	switch m := v.(type) {
	case *[]byte:
		*m = data.Materialize()
		return nil
	case BufferMessage:
		return m.UnmarshalBuffers(data)
	}
	if c := encoding.GetCodecV2("proto"); c != nil {
		return c.Unmarshal(data, v)
	}
	return fmt.Errorf("rpc: cannot decode %T", v)
}
