package server

import (
	"context"
	"sync/atomic"

	"agentdrive/chunkserver/chunkclient"
	"agentdrive/metaserver/meta"
)

// spacePasses is the number of passes from one measurement of the space on
// chunk servers to the next.
const spacePasses = 10

// space is how many bytes files may still take, by the newest measurement; 0:
// there was none yet. Safe for concurrent use.
type space struct{ free atomic.Uint64 }

// fill completes the answer to a StatFS. Before the first measurement the
// space is said to be more than can be: programs that look for room before
// they begin must not be turned away by a leader that is new.
func (s *space) fill(res meta.Result) {
	if st, ok := res.(*meta.StatFSResult); ok {
		if st.FreeBytes = s.free.Load(); st.FreeBytes == 0 {
			st.FreeBytes = meta.MaxSize
		}
	}
}

// measure asks the chunk servers for their free space. One that does not
// answer has none: nothing can be written there.
func (m *maintainer) measure(ctx context.Context) error {
	if m.passes++; m.passes%spacePasses != 1 {
		return nil
	}
	var sum uint64
	for _, c := range m.view.ChunkServers {
		err := m.ask(ctx, c.ID, func(ctx context.Context, cc *chunkclient.Client) error {
			st, err := cc.Status(ctx)
			if err == nil && !st.ReadOnly {
				sum += st.Free
			}
			return err
		})
		if err != nil && !away(err) {
			return err
		}
	}
	if len(m.view.ChunkServers) > 0 {
		// A full cluster says 1: 0 means that nobody knows.
		m.h.space.free.Store(max(sum/uint64(max(m.view.Copies, 1)), 1))
	}
	return nil
}
