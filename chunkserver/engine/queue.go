package engine

import (
	"context"
	"sync"
	"sync/atomic"

	"agentdrive/chunkserver/chunk"
)

type reqKind uint8

const (
	reqPut    reqKind = iota // block; replace: only if the index still says from
	reqDelete                // ids
	reqMove                  // compaction: block, only if the index still says from
	reqForget                // compaction: tombstones of ids, written again
)

// request waits for the committer. The committer answers done exactly once,
// unless the request was withdrawn.
type request struct {
	kind    reqKind
	block   chunk.Block
	ids     []chunk.BlockID
	replace bool
	from    location
	done    chan error // buffered
	state   atomic.Uint32
}

const (
	stateQueued = iota
	stateTaken
	stateWithdrawn
)

func newRequest(kind reqKind) *request { return &request{kind: kind, done: make(chan error, 1)} }

// take claims the request for the committer; false if it was withdrawn.
func (r *request) take() bool { return r.state.CompareAndSwap(stateQueued, stateTaken) }

// queue hands requests to the committer.
type queue struct {
	mu     sync.Mutex // rank 3
	list   []*request
	closed bool
	wake   chan struct{} // buffered 1
}

func (q *queue) push(r *request) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.list = append(q.list, r)
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return true
}

// takeAll waits for requests; closed and empty gives nil.
func (q *queue) takeAll() []*request {
	for {
		q.mu.Lock()
		list, closed := q.list, q.closed
		q.list = nil
		q.mu.Unlock()
		if len(list) > 0 || closed {
			return list
		}
		<-q.wake
	}
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.closed = true
		close(q.wake)
	}
}

func (q *queue) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}

// submit hands a request over and waits for its outcome. When ctx ends first
// the request is withdrawn if the committer has not yet begun; else its
// outcome, some disk writes away, is the answer: the caller's data are in use.
func (s *Store) submit(ctx context.Context, op string, r *request) error {
	if !s.queue.push(r) {
		return errClosed(op)
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
	}
	if r.state.CompareAndSwap(stateQueued, stateWithdrawn) {
		return chunk.Ended(op, ctx)
	}
	return <-r.done
}
