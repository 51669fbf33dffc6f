package kernel

import "sync"

// node counts what the kernel holds of an inode.
type node struct {
	lookups uint64 // entry replies not yet forgotten
	opens   uint64 // handles not yet released
	paged   bool   // it may have pages: there was a READ
}

// nodes is the table of inodes known to the kernel, by node id.
type nodes struct {
	mu sync.Mutex // guards m; a leaf: nothing is called under it
	m  map[uint64]node
}

func (t *nodes) change(id uint64, f func(*node)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.m[id]
	f(&n)
	if n.lookups == 0 && n.opens == 0 {
		delete(t.m, id)
		return
	}
	t.m[id] = n
}

// add counts a gift. It is called before the reply is written: a FORGET may
// overtake the writer's next step.
func (t *nodes) add(g gift) {
	for _, id := range g.nodes {
		t.change(id, func(n *node) { n.lookups++ })
	}
	if g.opened != 0 {
		t.change(g.opened, func(n *node) { n.opens++ })
	}
}

// forget uncounts n lookups.
func (t *nodes) forget(id, n uint64) {
	t.change(id, func(x *node) { x.lookups -= min(n, x.lookups) })
}

// close uncounts a handle.
func (t *nodes) close(id uint64) {
	t.change(id, func(x *node) { x.opens -= min(1, x.opens) })
}

// lookups tells how many references the kernel holds.
func (t *nodes) lookups(id uint64) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.m[id].lookups
}

// page notes that the kernel may have pages of an inode from now on.
func (t *nodes) page(id uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, ok := t.m[id]; ok && !n.paged {
		n.paged = true
		t.m[id] = n
	}
}

// paged reports whether the kernel may have pages of an inode.
func (t *nodes) paged(id uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.m[id].paged
}

// drain empties the table and returns what it held.
func (t *nodes) drain() map[uint64]node {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.m
	t.m = make(map[uint64]node)
	return m
}
