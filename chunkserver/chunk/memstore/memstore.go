// Package memstore keeps blocks in memory: the reference implementation of
// chunk.Store, for tests of everything that uses one.
package memstore

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
)

// Capacity is what Status reports as the space of a Store, bytes.
const Capacity = 1 << 40

// Store implements chunk.Store. Safe for concurrent use.
type Store struct {
	cluster [16]byte

	mu     sync.RWMutex // guards blocks; a leaf
	blocks map[chunk.BlockID]chunk.Block
}

var _ chunk.Store = (*Store)(nil)

// New returns an empty store of a cluster.
func New(cluster [16]byte) *Store {
	return &Store{cluster: cluster, blocks: map[chunk.BlockID]chunk.Block{}}
}

func (s *Store) admit(ctx context.Context, op string, g chunk.Grant, rights uint8) error {
	if err := chunk.Ended(op, ctx); err != nil {
		return err
	}
	return g.Check(op, s.cluster, rights, time.Now())
}

// Put implements chunk.Store.
func (s *Store) Put(ctx context.Context, g chunk.Grant, b chunk.Block) error {
	const op = "chunk.put"
	if err := s.admit(ctx, op, g, chunk.RightWrite); err != nil {
		return err
	}
	if err := b.Check(op); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.blocks[b.ID]; ok && chunk.BadStride(old.Data, old.Sums) < 0 {
		if !bytes.Equal(old.Data, b.Data) {
			return errs.E(op, errs.Exist, fmt.Sprintf("block %s is stored with other content", b.ID), nil)
		}
		return nil
	}
	b.Data, b.Sums = bytes.Clone(b.Data), slices.Clone(b.Sums)
	s.blocks[b.ID] = b
	return nil
}

// Get implements chunk.Store.
func (s *Store) Get(ctx context.Context, g chunk.Grant, id chunk.BlockID, off, length uint32) ([]byte, error) {
	const op = "chunk.get"
	if err := s.admit(ctx, op, g, chunk.RightRead); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	b, ok := s.blocks[id]
	if !ok {
		return nil, errs.E(op, errs.NotExist, fmt.Sprintf("block %s", id), nil)
	}
	if err := chunk.CheckRange(op, id, off, length, uint32(len(b.Data))); err != nil {
		return nil, err
	}
	first, last := off/chunk.SumStride, (off+length-1)/chunk.SumStride
	if chunk.BadStride(b.Data[first*chunk.SumStride:], b.Sums[first:last+1]) >= 0 {
		return nil, errs.E(op, errs.Corrupt, fmt.Sprintf("block %s", id), nil)
	}
	return bytes.Clone(b.Data[off : off+length]), nil
}

// Has implements chunk.Store.
func (s *Store) Has(ctx context.Context, g chunk.Grant, ids []chunk.BlockID) ([]bool, error) {
	const op = "chunk.has"
	if err := s.admit(ctx, op, g, chunk.RightRead|chunk.RightWrite); err != nil {
		return nil, err
	}
	if err := chunk.CheckCount(op, len(ids)); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	has := make([]bool, len(ids))
	for i, id := range ids {
		_, has[i] = s.blocks[id]
	}
	return has, nil
}

// Delete implements chunk.Store.
func (s *Store) Delete(ctx context.Context, g chunk.Grant, ids []chunk.BlockID) error {
	const op = "chunk.delete"
	if err := s.admit(ctx, op, g, chunk.RightDelete); err != nil {
		return err
	}
	if err := chunk.CheckCount(op, len(ids)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		delete(s.blocks, id)
	}
	return nil
}

// List implements chunk.Store.
func (s *Store) List(ctx context.Context, g chunk.Grant, owner *chunk.Owner, after chunk.BlockID, limit int) ([]chunk.Info, error) {
	const op = "chunk.list"
	if err := s.admit(ctx, op, g, chunk.RightRead); err != nil {
		return nil, err
	}
	if err := chunk.CheckLimit(op, limit); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var infos []chunk.Info
	for id, b := range s.blocks {
		if bytes.Compare(id[:], after[:]) > 0 && (owner == nil || *owner == b.Owner) {
			infos = append(infos, chunk.Info{ID: id, Owner: b.Owner, Len: uint32(len(b.Data))})
		}
	}
	slices.SortFunc(infos, func(a, b chunk.Info) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return infos[:min(len(infos), limit)], nil
}

// Status implements chunk.Store.
func (s *Store) Status(ctx context.Context) (chunk.Status, error) {
	if err := chunk.Ended("chunk.status", ctx); err != nil {
		return chunk.Status{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	st := chunk.Status{Blocks: uint64(len(s.blocks))}
	for _, b := range s.blocks {
		st.Live += uint64(len(b.Data))
	}
	st.Used, st.Free = st.Live, Capacity-st.Live
	return st, nil
}

// Rot flips a bit of a stored block, as a failing disk does; false if the
// block is not there.
func (s *Store) Rot(id chunk.BlockID, off uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.blocks[id]
	if !ok || int(off) >= len(b.Data) {
		return false
	}
	b.Data[off] ^= 1
	return true
}
