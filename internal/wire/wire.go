// Package wire is the byte format of every record on disk and every message
// on the network.
//
// A type describes its layout once, in a method Wire(*Coder), and that one
// description both encodes and decodes (the idea is XDR's). Encoding is
// canonical: decoding accepts exactly the bytes that encoding produces, so
// for every decoder "decode succeeds" implies "encode gives the same bytes".
// The fuzz tests of this repository rest on that law.
//
// Layout: integers are minimal unsigned LEB128 varints (signed ones zigzag),
// fixed-width integers big endian, byte strings and lists a varint length and
// the content. A top-level record starts with a version byte (see Marshal).
// A new field is appended under "if c.Version() >= n"; decoders refuse
// versions they do not know with errs.Version, and never guess.
package wire

import (
	"encoding/binary"
	"fmt"
	"math"

	"agentdrive/internal/errs"
)

// Message is a type that describes its layout.
type Message interface {
	// Wire encodes or decodes the receiver's fields in order.
	Wire(c *Coder)
}

// Coder walks a layout, writing or reading. Not safe for concurrent use. The
// first failure sticks; later calls do nothing.
type Coder struct {
	buf      []byte
	off      int
	decoding bool
	version  uint8
	err      error
}

// Marshal encodes m as a top-level record of the given version, appended to
// dst. It writes nothing into m: any number may encode one message at once.
func Marshal(dst []byte, version uint8, m Message) []byte {
	c := Coder{buf: append(dst, version), version: version}
	m.Wire(&c)
	if c.err != nil { // an encoder fails only on a programming error
		panic("wire: " + c.err.Error())
	}
	return c.buf
}

// Unmarshal decodes a top-level record into m. Versions from 1 to maxVersion
// are accepted; all bytes must be used. Byte slices in m alias b: the caller
// must not modify b while m lives.
func Unmarshal(b []byte, maxVersion uint8, m Message) error {
	return UnmarshalFrom(b, 1, maxVersion, m)
}

// UnmarshalFrom is Unmarshal for layouts whose versions before minVersion are
// no longer read: errs.Version.
func UnmarshalFrom(b []byte, minVersion, maxVersion uint8, m Message) error {
	if len(b) == 0 {
		return errs.E("wire.decode", errs.Corrupt, "empty record", nil)
	}
	v := b[0]
	if v == 0 {
		return errs.E("wire.decode", errs.Corrupt, "version 0", nil)
	}
	if v > maxVersion {
		return errs.E("wire.decode", errs.Version, fmt.Sprintf("record version %d, this program knows up to %d", v, maxVersion), nil).
			WithHint("upgrade this program to the version that wrote the record")
	}
	if v < minVersion {
		return errs.E("wire.decode", errs.Version, fmt.Sprintf("record version %d, this program reads %d and later", v, minVersion), nil).
			WithHint("use the version of this program that wrote the record")
	}
	c := Coder{buf: b, off: 1, decoding: true, version: v}
	m.Wire(&c)
	if c.err == nil && c.off != len(b) {
		c.Fail("%d bytes left over", len(b)-c.off)
	}
	return c.err
}

// Decoding reports whether the coder reads. A Wire method asks it to validate
// values after they were read.
func (c *Coder) Decoding() bool { return c.decoding }

// Version is the version of the record being coded.
func (c *Coder) Version() uint8 { return c.version }

// Err is the first failure.
func (c *Coder) Err() error { return c.err }

// Fail records a failure at the current offset. Kind errs.Corrupt.
func (c *Coder) Fail(format string, args ...any) {
	if c.err == nil {
		c.err = errs.E("wire.decode", errs.Corrupt, fmt.Sprintf("at byte %d: ", c.off)+fmt.Sprintf(format, args...), nil)
	}
}

func (c *Coder) take(n int) []byte {
	if c.err != nil {
		return nil
	}
	if n > len(c.buf)-c.off {
		c.Fail("%d bytes wanted, %d left", n, len(c.buf)-c.off)
		return nil
	}
	b := c.buf[c.off : c.off+n : c.off+n]
	c.off += n
	return b
}

// U64 codes an unsigned integer as a varint.
func (c *Coder) U64(p *uint64) {
	if !c.decoding {
		c.buf = binary.AppendUvarint(c.buf, *p)
		return
	}
	if c.err != nil {
		return
	}
	v, n := binary.Uvarint(c.buf[c.off:])
	if n <= 0 || (n > 1 && c.buf[c.off+n-1] == 0) {
		c.Fail("bad varint")
		return
	}
	c.off += n
	*p = v
}

// I64 codes a signed integer as a zigzag varint.
func (c *Coder) I64(p *int64) {
	u := uint64(*p)<<1 ^ uint64(*p>>63)
	c.U64(&u)
	if c.decoding && c.err == nil {
		*p = int64(u>>1) ^ -int64(u&1)
	}
}

// ranged codes *p and tells whether the caller shall keep it: only what was
// decoded, for encoders of one value run at once.
func (c *Coder) ranged(p *uint64, max uint64) bool {
	c.U64(p)
	if c.decoding && c.err == nil && *p > max {
		c.Fail("%d is out of range", *p)
	}
	return c.decoding && c.err == nil
}

// U32 codes an unsigned integer as a varint.
func (c *Coder) U32(p *uint32) {
	u := uint64(*p)
	if c.ranged(&u, math.MaxUint32) {
		*p = uint32(u)
	}
}

// U16 codes an unsigned integer as a varint.
func (c *Coder) U16(p *uint16) {
	u := uint64(*p)
	if c.ranged(&u, math.MaxUint16) {
		*p = uint16(u)
	}
}

// U8 codes one byte.
func (c *Coder) U8(p *uint8) {
	if !c.decoding {
		c.buf = append(c.buf, *p)
		return
	}
	if b := c.take(1); b != nil {
		*p = b[0]
	}
}

// Bool codes a byte that must be 0 or 1.
func (c *Coder) Bool(p *bool) {
	var b uint8
	if *p {
		b = 1
	}
	c.U8(&b)
	if c.decoding && c.err == nil {
		if b > 1 {
			c.Fail("boolean is %d", b)
			return
		}
		*p = b == 1
	}
}

// Fixed codes exactly len(p) bytes without a length.
func (c *Coder) Fixed(p []byte) {
	if !c.decoding {
		c.buf = append(c.buf, p...)
		return
	}
	if b := c.take(len(p)); b != nil {
		copy(p, b)
	}
}

// Bytes codes a byte string. Decoded, *p aliases the input; an empty string
// decodes as nil.
func (c *Coder) Bytes(p *[]byte) {
	n := c.Len(len(*p))
	if !c.decoding {
		c.buf = append(c.buf, *p...)
		return
	}
	b := c.take(n)
	if n == 0 {
		b = nil
	}
	*p = b
}

// String codes a string. Decoded, it is a copy.
func (c *Coder) String(p *string) {
	n := c.Len(len(*p))
	if !c.decoding {
		c.buf = append(c.buf, *p...)
		return
	}
	*p = string(c.take(n))
}

// Len codes a length or count; decoded it is at most the number of bytes
// left, so that a hostile count cannot ask for memory it does not pay for.
func (c *Coder) Len(n int) int {
	u := uint64(n)
	c.U64(&u)
	if c.decoding {
		if c.err == nil && u > uint64(len(c.buf)-c.off) {
			c.Fail("count %d exceeds the %d bytes left", u, len(c.buf)-c.off)
		}
		if c.err != nil {
			return 0
		}
	}
	return int(u)
}

// List codes a slice element by element; each element must take at least one
// byte. An empty list decodes as nil.
func List[T any](c *Coder, p *[]T, elem func(*Coder, *T)) {
	n := c.Len(len(*p))
	if c.decoding {
		*p = nil
		if n > 0 {
			*p = make([]T, 0, min(n, 4096))
		}
		for i := 0; i < n && c.err == nil; i++ {
			var v T
			elem(c, &v)
			*p = append(*p, v)
		}
		return
	}
	for i := range *p {
		elem(c, &(*p)[i])
	}
}

// Uint codes any unsigned integer type as a varint, so that named types need
// no conversion at the call.
func Uint[T ~uint8 | ~uint16 | ~uint32 | ~uint64](c *Coder, p *T) {
	u := uint64(*p)
	if c.ranged(&u, uint64(^T(0))) {
		*p = T(u)
	}
}
