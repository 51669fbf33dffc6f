// Package members finds chunk servers by id: it keeps one client for each
// server of the cluster map.
package members

import (
	"errors"
	"fmt"
	"sync"

	"agentdrive/chunkserver/chunk"
	"agentdrive/chunkserver/chunkclient"
	"agentdrive/internal/errs"
)

// Registry maps server ids to clients. Safe for concurrent use.
type Registry struct {
	dial chunkclient.Dialer

	mu      sync.Mutex // guards the fields below; leaf
	addrs   map[chunk.ServerID]string
	clients map[chunk.ServerID]*chunkclient.Client
	closed  bool
}

// New makes an empty registry; connections are made with dial when first
// needed.
func New(dial chunkclient.Dialer) *Registry {
	return &Registry{dial: dial, addrs: map[chunk.ServerID]string{}, clients: map[chunk.ServerID]*chunkclient.Client{}}
}

// Set replaces the addresses. Clients of servers that moved or went are
// closed; calls under way on them fail with errs.Unavailable.
func (r *Registry) Set(addrs map[chunk.ServerID]string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []error
	for id, c := range r.clients {
		if addrs[id] != r.addrs[id] {
			all = append(all, c.Close())
			delete(r.clients, id)
		}
	}
	r.addrs = make(map[chunk.ServerID]string, len(addrs))
	for id, a := range addrs {
		r.addrs[id] = a
	}
	return errors.Join(all...)
}

// Addr returns the address of a server, or "".
func (r *Registry) Addr(id chunk.ServerID) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.addrs[id]
}

// Store returns a server as a block store; errs.Unavailable when the map does
// not know it.
func (r *Registry) Store(id chunk.ServerID) (chunk.Store, error) {
	c, err := r.Client(id)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Client returns the client of a server; errs.Unavailable when the map does
// not know it.
func (r *Registry) Client(id chunk.ServerID) (*chunkclient.Client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.clients[id]; c != nil {
		return c, nil
	}
	addr := r.addrs[id]
	if addr == "" || r.closed {
		return nil, errs.E("members.client", errs.Unavailable, fmt.Sprintf("chunk server %d is not in the cluster map", id), nil)
	}
	c, err := chunkclient.Dial(chunkclient.Config{Addr: addr, Dial: r.dial})
	if err != nil {
		return nil, err
	}
	r.clients[id] = c
	return c, nil
}

// Close closes all clients.
func (r *Registry) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	var all []error
	for id, c := range r.clients {
		all = append(all, c.Close())
		delete(r.clients, id)
	}
	return errors.Join(all...)
}
