package server

import (
	"encoding/binary"
	"io"
	"sync/atomic"
	"time"

	"agentdrive/internal/errs"
	"agentdrive/internal/rpc"
	"agentdrive/metaserver/core"
	"agentdrive/metaserver/meta"
)

// maxQueued bounds the bytes that wait for a client that does not read. A
// client further behind loses its stream and resumes.
const maxQueued = 64 << 20

// clientStream is the server's end of a client's stream.
type clientStream struct {
	id   core.StreamID
	peer string
	out  *mailbox[[]byte] // encoded frames; closed = end the stream after them

	queued atomic.Int64 // bytes in out and being sent

	// room has a place for each message received that the core has not
	// stepped: a client that sends faster than that is not read from.
	room chan struct{}
}

// maxUnstepped bounds the messages of one stream that wait for the core.
const maxUnstepped = 4

// batchEnd is the last frame of a message: its place becomes free.
type batchEnd struct {
	core.StreamFrame
	room <-chan struct{}
}

// send queues a frame. It reports false when the client is too far behind; the
// queue is then closed.
func (s *clientStream) send(f meta.Frame) bool {
	b := meta.EncodeFrame(nil, f)
	if s.queued.Add(int64(len(b))) > maxQueued {
		s.out.close()
		return false
	}
	s.out.put(b)
	return true
}

func (h *host) stream(id core.StreamID) *clientStream {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.streams[id]
}

// serve runs a client's stream until either side ends it.
func (h *host) serve(fs rpc.FrameStream) error {
	h.mu.Lock()
	h.last++
	st := &clientStream{id: core.StreamID(h.last), peer: fs.Peer(), out: newMailbox[[]byte](), room: make(chan struct{}, maxUnstepped)}
	h.streams[st.id] = st
	h.mu.Unlock()
	h.mail.put(core.StreamOpened{Stream: st.id, Peer: st.peer})
	defer func() {
		st.out.close()
		h.mu.Lock()
		delete(h.streams, st.id)
		h.mu.Unlock()
		h.mail.put(core.StreamClosed{Stream: st.id})
	}()
	received := make(chan error, 1)
	go func() { // ends with the stream's context, which ends when serve returns
		received <- h.receive(fs, st)
		st.out.close()
	}()
	if err := st.sendAll(fs); err != nil {
		return err
	}
	select {
	case err := <-received:
		return err
	default:
		return nil // the core closed the stream
	}
}

// receive feeds the core with a client's frames.
func (h *host) receive(fs rpc.FrameStream, st *clientStream) error {
	for {
		b, err := fs.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		frames, err := meta.DecodeBatch(b)
		if err != nil {
			err = errs.E("session.stream", errs.Other, "from "+st.peer, err)
			h.log.Warn("closing a client's stream", "group", h.id, "err", err)
			return err
		}
		if len(frames) == 0 {
			continue
		}
		select {
		case st.room <- struct{}{}:
		case <-fs.Context().Done():
			return fs.Context().Err()
		case <-h.ctx.Done():
			return nil
		}
		last := len(frames) - 1
		for _, f := range frames[:last] {
			h.mail.put(core.StreamFrame{Stream: st.id, Frame: f})
		}
		h.mail.put(batchEnd{core.StreamFrame{Stream: st.id, Frame: frames[last]}, st.room})
	}
}

// sendAll writes queued frames, many to a message, until the queue is closed.
func (s *clientStream) sendAll(fs rpc.FrameStream) error {
	for {
		list := s.out.take()
		if list == nil {
			return nil
		}
		for len(list) > 0 {
			n, size := 0, 0
			for n < len(list) && (n == 0 || size+len(list[n]) <= batchBytes) {
				size += len(list[n]) + binary.MaxVarintLen32
				n++
			}
			if err := fs.Send(meta.EncodeBatch(make([]byte, 0, size), list[:n])); err != nil {
				return err
			}
			for _, b := range list[:n] {
				s.queued.Add(-int64(len(b)))
			}
			list = list[n:]
		}
	}
}

// batchBytes is where a message of frames ends; one frame may be larger.
const batchBytes = 1 << 20

func durationAtLeast(ns int64) time.Duration { return time.Duration(max(ns, 0)) }
