package metaclient

import (
	"context"

	"agentdrive/internal/errs"
	"agentdrive/internal/rpc"
	"agentdrive/metaserver/meta"
)

// Stream is a client's stream of frames to the presumed leader of a group.
// One goroutine may send while another receives.
type Stream struct {
	fs     rpc.ClientFrameStream
	cancel context.CancelFunc
	client *Client
	group  uint32
	addr   string
	moved  bool // NotLeader came; the receiver's own
}

// OpenStream opens a stream to the leader of a group: at hint if given, else
// at whoever is presumed. It lives until ctx ends, Close, or either side
// breaks it. Whether the server leads shows in the frames: the first may be
// NotLeader.
func (c *Client) OpenStream(ctx context.Context, cluster [16]byte, group uint32, hint string) (*Stream, error) {
	addr := c.believed(hint)
	if addr == "" {
		addr = c.presumed(group)
	}
	cc, err := c.conn(addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	fs, err := rpc.OpenFrames(ctx, cc, codecFor(addr))
	if err == nil {
		err = fs.Send(meta.EncodeGreeting(meta.Greeting{Cluster: cluster, Group: group}))
	}
	if err != nil {
		cancel()
		c.unanswered(group, addr)
		return nil, err
	}
	return &Stream{fs: fs, cancel: cancel, client: c, group: group, addr: addr}, nil
}

// Addr is the server's address.
func (s *Stream) Addr() string { return s.addr }

// Send sends encoded frames as one message.
func (s *Stream) Send(frames [][]byte) error {
	return s.fs.Send(meta.EncodeBatch(nil, frames))
}

// Recv returns the frames of the next message. When the stream is over, the
// client learns where to go next.
func (s *Stream) Recv() ([]meta.Frame, error) {
	b, err := s.fs.Recv()
	if err != nil {
		if !s.moved { // else it did answer, and the caller hung up
			s.client.unanswered(s.group, s.addr)
		}
		return nil, err
	}
	frames, err := meta.DecodeBatch(b)
	if err != nil {
		return nil, errs.E("metaclient.recv", errs.Other, "from "+s.addr, err)
	}
	for _, f := range frames {
		switch f := f.(type) {
		case *meta.NotLeader:
			s.moved = true
			s.client.learn(s.group, s.addr, f.Address)
		case *meta.Welcome:
			s.client.remember(s.group, s.addr)
		}
	}
	return frames, nil
}

// Close abandons the stream; a blocked Recv returns.
func (s *Stream) Close() { s.cancel() }
