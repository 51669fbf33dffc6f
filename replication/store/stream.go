package store

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"agentdrive/internal/errs"
	"agentdrive/internal/wire"
)

// The snapshot stream. A magic, then frames; every frame is
//
//	length of payload  4 bytes, big endian, 1..maxFrame
//	CRC32C of payload  4 bytes, big endian
//	payload            a wire record of version 1 (type frame)
//
// The first frame is a header, then chunks numbered from 1, then the end
// frame, which repeats the number of chunks and pairs. Nothing follows it.
const (
	streamMagic   = "agdrsnp1"
	streamVersion = 1
	chunkTarget   = 256 << 10 // bytes of pairs in a chunk before it is closed
	maxFrame      = chunkTarget + MaxKey + MaxValue + 4096
)

// Kinds of frames.
const (
	frameHeader uint8 = 1
	frameChunk  uint8 = 2
	frameEnd    uint8 = 3
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frame is one record of the stream. Only the fields of its kind are coded.
type frame struct {
	Kind    uint8
	Applied Applied // header
	Seq     uint64  // chunk: its number; end: number of chunks
	Pairs   []pair  // chunk
	Count   uint64  // end: number of pairs in all chunks
}

// pair is one key, with its store prefix, and its value.
type pair struct{ Key, Val []byte }

// Wire implements wire.Message.
func (f *frame) Wire(c *wire.Coder) {
	c.U8(&f.Kind)
	switch f.Kind {
	case frameHeader:
		f.Applied.Wire(c)
	case frameChunk:
		c.U64(&f.Seq)
		wire.List(c, &f.Pairs, func(c *wire.Coder, p *pair) {
			c.Bytes(&p.Key)
			c.Bytes(&p.Val)
			if c.Decoding() && (len(p.Key) == 0 || len(p.Key) > MaxKey+1 || len(p.Val) > MaxValue) {
				c.Fail("key of %d bytes, value of %d", len(p.Key), len(p.Val))
			}
		})
	case frameEnd:
		c.U64(&f.Seq)
		c.U64(&f.Count)
	default:
		c.Fail("unknown frame kind %d", f.Kind)
	}
}

// streamWriter writes frames. The caller flushes.
type streamWriter struct {
	w   *bufio.Writer
	buf []byte
}

func newStreamWriter(w io.Writer) (*streamWriter, error) {
	s := &streamWriter{w: bufio.NewWriterSize(w, 64<<10)}
	_, err := s.w.WriteString(streamMagic)
	return s, err
}

func (s *streamWriter) frame(f *frame) error {
	s.buf = wire.Marshal(append(s.buf[:0], make([]byte, 8)...), streamVersion, f)
	payload := s.buf[8:]
	binary.BigEndian.PutUint32(s.buf[0:], uint32(len(payload)))
	binary.BigEndian.PutUint32(s.buf[4:], crc32.Checksum(payload, castagnoli))
	_, err := s.w.Write(s.buf)
	return err
}

// streamReader reads a stream and checks its order. Errors have kind
// errs.Corrupt (naming the offset), errs.Version or errs.IO.
type streamReader struct {
	r      *bufio.Reader
	off    int64
	chunks uint64
	pairs  uint64
}

// newStreamReader reads the magic and the header.
func newStreamReader(r io.Reader) (*streamReader, Applied, error) {
	s := &streamReader{r: bufio.NewReaderSize(r, 64<<10)}
	magic := make([]byte, len(streamMagic))
	if err := s.full(magic); err != nil {
		return nil, Applied{}, err
	}
	if string(magic) != streamMagic {
		return nil, Applied{}, s.corrupt("not a snapshot stream", nil)
	}
	f, err := s.next()
	if err != nil {
		return nil, Applied{}, err
	}
	if f.Kind != frameHeader {
		return nil, Applied{}, s.corrupt("header missing", nil)
	}
	return s, f.Applied, nil
}

func (s *streamReader) corrupt(msg string, cause error) error {
	return errs.E("store.snapshot", errs.Corrupt, fmt.Sprintf("at byte %d: %s", s.off, msg), cause)
}

func (s *streamReader) full(p []byte) error {
	n, err := io.ReadFull(s.r, p)
	if err == nil {
		s.off += int64(n)
		return nil
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return s.corrupt("stream ends early", nil)
	}
	return errs.E("store.snapshot", errs.IO, fmt.Sprintf("read at byte %d", s.off), err)
}

func (s *streamReader) next() (*frame, error) {
	var head [8]byte
	if err := s.full(head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[0:])
	if n == 0 || n > maxFrame {
		return nil, s.corrupt(fmt.Sprintf("frame of %d bytes", n), nil)
	}
	payload := make([]byte, n)
	if err := s.full(payload); err != nil {
		return nil, err
	}
	if crc32.Checksum(payload, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return nil, s.corrupt("checksum of the frame before differs", nil)
	}
	f := new(frame)
	if err := wire.Unmarshal(payload, streamVersion, f); err != nil {
		if errs.Is(err, errs.Version) {
			return nil, err
		}
		return nil, s.corrupt("bad frame", err)
	}
	return f, nil
}

// chunk returns the pairs of the next chunk, or nil after the end frame has
// confirmed that all are there.
func (s *streamReader) chunk() ([]pair, error) {
	f, err := s.next()
	if err != nil {
		return nil, err
	}
	switch {
	case f.Kind == frameChunk && f.Seq == s.chunks+1 && len(f.Pairs) > 0:
		s.chunks++
		s.pairs += uint64(len(f.Pairs))
		return f.Pairs, nil
	case f.Kind == frameEnd && f.Seq == s.chunks && f.Count == s.pairs:
		if _, err := s.r.ReadByte(); !errors.Is(err, io.EOF) {
			return nil, s.corrupt("bytes after the end", err)
		}
		return nil, nil
	}
	return nil, s.corrupt(fmt.Sprintf("frame kind %d number %d after %d chunks and %d pairs", f.Kind, f.Seq, s.chunks, s.pairs), nil)
}
