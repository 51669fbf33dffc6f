package engine

import (
	"fmt"
	"slices"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
)

// batchBytes bounds one batch; what is queued beyond it goes into the next.
const batchBytes = 16 << 20

// batch is what one sync makes durable.
type batch struct {
	s       *Store
	seg     *segment
	start   int64
	end     int64
	out     writer
	entries []entry
	waiters []*request
	puts    map[chunk.BlockID]*request // by this batch, not deleted again
	dels    map[chunk.BlockID]bool     // by this batch, not put again
}

// committer is the only goroutine that appends. Concurrent requests pile up
// while it syncs and share the next sync.
func (s *Store) committer() {
	for {
		reqs := s.queue.takeAll()
		if reqs == nil {
			return
		}
		for len(reqs) > 0 {
			reqs = s.commit(reqs)
		}
	}
}

// commit makes one batch of the first requests and returns the others.
func (s *Store) commit(reqs []*request) []*request {
	b := &batch{s: s, puts: map[chunk.BlockID]*request{}, dels: map[chunk.BlockID]bool{}}
	for len(reqs) > 0 && b.end-b.start < batchBytes {
		r := reqs[0]
		if r.state.Load() == stateQueued && !r.take() || r.state.Load() == stateWithdrawn {
			reqs = reqs[1:]
			continue
		}
		full, err := b.add(r)
		if full {
			break
		}
		reqs = reqs[1:]
		if err != nil {
			r.done <- err
		}
	}
	b.finish()
	return reqs
}

// add plans and writes one request. full means that it needs a new batch. An
// error, or nil with nothing to wait for, is answered by the caller or here.
func (b *batch) add(r *request) (full bool, err error) {
	if err := b.s.failure(); err != nil {
		return false, err
	}
	switch r.kind {
	case reqPut, reqMove:
		return b.addBlock(r)
	default:
		return b.addTombstone(r)
	}
}

func (b *batch) addBlock(r *request) (full bool, err error) {
	id := r.block.ID
	if first := b.puts[id]; first != nil { // nobody moves what is being put
		if r.kind == reqMove || sameBlock(&first.block, &r.block) {
			b.waiters = append(b.waiters, r)
			return false, nil
		}
		return false, errExist(id)
	}
	it, stored := b.s.find(id)
	stored = stored && !b.dels[id]
	if r.kind == reqMove && (!stored || it.at != r.from) {
		r.done <- nil // deleted or replaced meanwhile
		return false, nil
	}
	if r.kind == reqPut && stored && !(r.replace && it.at == r.from) {
		return false, b.duplicate(r, it)
	}
	size := recordSize(uint32(len(r.block.Data)))
	if full, err := b.reserve(size, 1, r.kind == reqPut); full || err != nil {
		return full, err
	}
	rec := record{kind: kindBlock, id: id, owner: r.block.Owner, length: uint32(len(r.block.Data)), sums: r.block.Sums}
	e := entry{kind: kindBlock, id: id, off: uint32(b.end / sector), length: rec.length, owner: rec.owner}
	b.write(rec, r.block.Data)
	b.entries = append(b.entries, e)
	b.puts[id] = r
	delete(b.dels, id)
	b.waiters = append(b.waiters, r)
	return false, nil
}

// duplicate answers a put of a block that another put stored since the caller
// looked.
func (b *batch) duplicate(r *request, it item) error {
	same, err := b.s.compare(it, &r.block)
	switch {
	case err != nil:
		return err
	case !same:
		return errExist(r.block.ID)
	}
	r.done <- nil
	return nil
}

func (b *batch) addTombstone(r *request) (full bool, err error) {
	ids := make([]chunk.BlockID, 0, len(r.ids))
	seen := make(map[chunk.BlockID]bool, len(r.ids))
	wait := false
	for _, id := range r.ids {
		_, stored := b.s.find(id)
		stored = b.puts[id] != nil || stored && !b.dels[id]
		// A tombstone is written again only while no newer put follows it.
		if stored == (r.kind == reqDelete) && !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
		wait = wait || b.dels[id]
	}
	if len(ids) == 0 {
		if wait {
			b.waiters = append(b.waiters, r)
		} else {
			r.done <- nil
		}
		return false, nil
	}
	data := tombstoneData(ids)
	if full, err := b.reserve(recordSize(uint32(len(data))), len(ids), false); full || err != nil {
		return full, err
	}
	off := uint32(b.end / sector)
	b.write(record{kind: kindTombstone, length: uint32(len(data)), sums: chunk.Sums(data)}, data)
	for _, id := range ids {
		b.entries = append(b.entries, entry{kind: kindTombstone, id: id, off: off})
		delete(b.puts, id)
		b.dels[id] = true
	}
	b.waiters = append(b.waiters, r)
	return false, nil
}

func sameBlock(a, b *chunk.Block) bool {
	return len(a.Data) == len(b.Data) && slices.Equal(a.Sums, b.Sums)
}

// reserve makes sure that the batch has a segment with room, taking a new one
// for an empty batch.
func (b *batch) reserve(size int64, entries int, put bool) (full bool, err error) {
	s := b.s
	if b.seg == nil {
		if put && s.active != nil {
			if err := s.putsAllowed(); err != nil {
				return false, err
			}
		}
		if s.active == nil || !s.active.room(alignUp(s.active.end, page), size, len(s.active.entries)+entries) {
			if err := s.roll(put); err != nil {
				return false, err
			}
		}
		b.seg = s.active
		b.start = alignUp(b.seg.end, page)
		b.end = b.start
		b.out = writer{file: b.seg.file, off: b.start, buf: s.outBuf[:0]}
	} else if put {
		if err := s.putsAllowed(); err != nil {
			return false, err
		}
	}
	fits := b.seg.room(b.end, size, len(b.seg.entries)+len(b.entries)+entries)
	if !fits && b.end == dataStart {
		return false, errs.E("segment.append", errs.Invalid, fmt.Sprintf("record of %d bytes does not fit into a segment of %d", size, b.seg.size), nil)
	}
	return !fits, nil
}

// write places a record at the end of the batch. A failing write shows in
// finish.
func (b *batch) write(rec record, data []byte) {
	rec.nonce, rec.offset, rec.batch = b.seg.nonce, b.end, b.start
	b.out.add(rec.encode())
	b.out.add(data)
	b.out.pad(sector)
	b.end += recordSize(rec.length)
}

// finish syncs the batch, shows it to readers and answers its requests.
func (b *batch) finish() {
	var err error
	if len(b.entries) > 0 {
		err = b.out.flush(page)
		b.s.outBuf = b.out.buf
		if err == nil {
			err = b.seg.file.Sync()
		}
		if err != nil {
			err = b.s.fail(err)
		} else {
			b.publish()
		}
	}
	for _, r := range b.waiters {
		r.done <- err
	}
}

func (b *batch) publish() {
	s := b.s
	b.seg.entries = append(b.seg.entries, b.entries...)
	b.seg.end = b.end
	s.mu.Lock()
	for _, e := range b.entries {
		s.apply(b.seg, e)
	}
	s.mu.Unlock()
	if len(b.dels) > 0 {
		s.wakeMaintenance()
	}
}

// roll seals the active segment and activates a free one.
func (s *Store) roll(put bool) error {
	next, err := s.takeFree(put)
	if err != nil {
		return err
	}
	if err := s.sealActive(); err != nil {
		s.giveFree(next)
		return err
	}
	s.nextSeq++
	if err := next.activate(s.nextSeq); err != nil {
		return s.fail(err) // its header may be half written
	}
	s.active = next
	s.mu.Lock()
	s.segs[next.num] = next
	s.mu.Unlock()
	s.wakeMaintenance()
	return nil
}

// sealActive closes the active segment, if any.
func (s *Store) sealActive() error {
	g := s.active
	if g == nil {
		return nil
	}
	if err := g.seal(); err != nil {
		return s.fail(err)
	}
	s.active = nil
	g.entries = nil // the footer has them
	s.mu.Lock()
	g.sealed = true
	s.mu.Unlock()
	return nil
}

// writer gathers small pieces into one write and passes large ones through
// without a copy. The first error sticks.
type writer struct {
	file interface {
		WriteAt(p []byte, off int64) (int, error)
	}
	off int64 // of the first byte of buf
	buf []byte
	err error
}

const (
	copyBelow = 128 << 10 // pieces under this are copied together
	flushAt   = 1 << 20
)

func (w *writer) add(p []byte) {
	if len(p) < copyBelow {
		w.buf = append(w.buf, p...)
		if len(w.buf) >= flushAt {
			w.spill()
		}
		return
	}
	w.spill()
	w.put(p)
}

// pad adds zeros up to a multiple of n.
func (w *writer) pad(n int64) {
	at := w.off + int64(len(w.buf))
	w.buf = append(w.buf, make([]byte, alignUp(at, n)-at)...)
}

// flush writes everything, padded to a multiple of n.
func (w *writer) flush(n int64) error {
	w.pad(n)
	w.spill()
	return w.err
}

func (w *writer) spill() {
	w.put(w.buf)
	w.buf = w.buf[:0]
}

func (w *writer) put(p []byte) {
	if w.err != nil || len(p) == 0 {
		return
	}
	n, err := w.file.WriteAt(p, w.off)
	if err == nil && n < len(p) {
		err = errs.E("segment.write", errs.IO, "short write", nil)
	}
	w.off += int64(len(p))
	w.err = err
}
