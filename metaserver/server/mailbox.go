package server

import "sync"

// mailbox is an unbounded FIFO between many senders and one receiver. Senders
// never block, so that a step machine can feed loops that feed it.
type mailbox[T any] struct {
	mu     sync.Mutex // guards items and closed; leaf
	ready  sync.Cond  // signalled when either changes
	items  []T
	closed bool
}

func newMailbox[T any]() *mailbox[T] {
	m := new(mailbox[T])
	m.ready.L = &m.mu
	return m
}

// put appends v; after close it is dropped.
func (m *mailbox[T]) put(v T) {
	m.mu.Lock()
	if !m.closed {
		m.items = append(m.items, v)
	}
	m.mu.Unlock()
	m.ready.Signal()
}

// take waits for something and returns all there is; nil after close.
func (m *mailbox[T]) take() []T {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.items) == 0 && !m.closed {
		m.ready.Wait()
	}
	list := m.items
	m.items = nil
	return list
}

// close wakes the receiver; what was put before is still taken.
func (m *mailbox[T]) close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.ready.Broadcast()
}
