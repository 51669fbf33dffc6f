package meta

import (
	"encoding/binary"
	"fmt"

	"agentdrive/internal/errs"
	"agentdrive/internal/wire"
)

// EncodeBatch appends frames, each behind its length, to dst: the content of
// one message on a client's stream, in both directions.
func EncodeBatch(dst []byte, frames [][]byte) []byte {
	for _, f := range frames {
		dst = binary.AppendUvarint(dst, uint64(len(f)))
		dst = append(dst, f...)
	}
	return dst
}

// DecodeBatch reads a message made by EncodeBatch; the frames alias b.
func DecodeBatch(b []byte) ([]Frame, error) {
	var list []Frame
	for off := 0; off < len(b); {
		n, w := binary.Uvarint(b[off:])
		if w <= 0 || (w > 1 && b[off+w-1] == 0) || n > uint64(len(b)-off-w) {
			return nil, errs.E("frames.decode", errs.Corrupt, fmt.Sprintf("bad frame length at byte %d", off), nil)
		}
		f, err := DecodeFrame(b[off+w : off+w+int(n)])
		if err != nil {
			return nil, err
		}
		list = append(list, f)
		off += w + int(n)
	}
	return list, nil
}

// Greeting is the first message on a client's stream: which cluster and group
// it is for. Batches of frames follow.
type Greeting struct {
	Cluster [16]byte
	Group   uint32
}

// Wire codes the fields in order.
func (x *Greeting) Wire(c *wire.Coder) {
	c.Fixed(x.Cluster[:])
	c.U32(&x.Group)
}

// EncodeGreeting gives the message.
func EncodeGreeting(g Greeting) []byte { return wire.Marshal(nil, FrameVersion, &g) }

// DecodeGreeting reads it.
func DecodeGreeting(b []byte) (Greeting, error) {
	var g Greeting
	err := wire.UnmarshalFrom(b, FrameVersion, FrameVersion, &g)
	return g, err
}
