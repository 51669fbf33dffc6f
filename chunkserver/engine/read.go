package engine

import (
	"context"
	"fmt"
	"slices"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
)

// Get implements chunk.Store.
func (s *Store) Get(ctx context.Context, g chunk.Grant, id chunk.BlockID, off, length uint32) ([]byte, error) {
	const op = "chunk.get"
	if err := s.admit(ctx, op, g, chunk.RightRead); err != nil {
		return nil, err
	}
	it, seg, err := s.pin(op, id)
	if err != nil {
		return nil, err
	}
	defer s.unpin(seg)
	if err := chunk.CheckRange(op, id, off, length, it.length); err != nil {
		return nil, err
	}
	lo := off / chunk.SumStride * chunk.SumStride
	hi := min(uint32(alignUp(int64(off)+int64(length), chunk.SumStride)), it.length)
	_, data, err := s.readRecord(seg, it, lo, hi)
	if err != nil {
		return nil, errs.E(op, errs.Other, "", err)
	}
	return data[off-lo:][:length:length], nil
}

// pin finds a block and keeps its segment from being recycled until unpin.
func (s *Store) pin(op string, id chunk.BlockID) (item, *segment, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	it, ok := s.index.Get(item{id: id})
	if ok {
		g := s.segs[it.at.seg]
		if g == nil { // only Close empties the table under the index
			return it, nil, errClosed(op)
		}
		g.readers.Add(1)
		return it, g, nil
	}
	if s.lost > 0 {
		i := slices.IndexFunc(s.damage, func(d Damage) bool { return d.Lost })
		d := s.damage[i]
		return it, nil, errs.E(op, errs.Corrupt, fmt.Sprintf("block %s is not known, but may have been in %s at offset %d", id, d.File, d.Offset), d.Err)
	}
	return it, nil, errs.E(op, errs.NotExist, fmt.Sprintf("block %s", id), nil)
}

func (s *Store) unpin(g *segment) { g.readers.Add(-1) }

// readRecord reads the header of a block and its data from lo, a stride
// boundary, to hi, a stride boundary or the end, and verifies both. What
// fails is reported. The caller has pinned the segment.
func (s *Store) readRecord(g *segment, it item, lo, hi uint32) (record, []byte, error) {
	at := int64(it.at.off) * sector
	buf := make([]byte, sector+int64(hi-lo))
	var err error
	if lo == 0 { // header and data are neighbours
		err = readFull(g.file, buf, at)
	} else if err = readFull(g.file, buf[:sector], at); err == nil {
		err = readFull(g.file, buf[sector:], at+sector+int64(lo))
	}
	if err != nil {
		err = errs.E("segment.read", errs.IO, fmt.Sprintf("%s: offset %d: block %s", g.name, at, it.id), err)
		return record{}, nil, err
	}
	rec, err := decodeRecord(buf[:sector])
	switch {
	case err != nil:
	case rec.kind != kindBlock || rec.id != it.id || rec.length != it.length || rec.nonce != g.nonce || rec.offset != at:
		err = errs.E("segment.read", errs.Corrupt, "another record stands here", nil)
	default:
		first := int(lo / chunk.SumStride)
		sums := rec.sums[first:][:chunk.Strides(hi-lo)]
		if i := chunk.BadStride(buf[sector:], sums); i >= 0 {
			err = errs.E("segment.read", errs.Corrupt, fmt.Sprintf("data checksum %d wrong", first+i), nil)
		}
	}
	if err != nil {
		err = errs.E("segment.read", errs.Corrupt, fmt.Sprintf("%s: offset %d: block %s", g.name, at, it.id), err)
		s.report(Damage{File: g.name, Offset: at, ID: it.id, Err: err})
		return record{}, nil, err
	}
	return rec, buf[sector:], nil
}

// readBlock reads and verifies a whole block if it still lies where it says;
// ok=false if it has moved or gone.
func (s *Store) readBlock(it item) (b chunk.Block, ok bool, err error) {
	now, g, err := s.pin("segment.read", it.id)
	if errs.Is(err, errs.NotExist) {
		return b, false, nil
	}
	if err != nil {
		return b, false, err
	}
	defer s.unpin(g)
	if now.at != it.at {
		return b, false, nil
	}
	rec, data, err := s.readRecord(g, now, 0, now.length)
	if err != nil {
		return b, true, err
	}
	return chunk.Block{ID: rec.id, Owner: rec.owner, Sums: rec.sums, Data: data}, true, nil
}

// compare tells whether the stored block it is intact and has b's content;
// kind errs.Corrupt when it is not intact. A block that went away meanwhile
// counts as not intact: the put stores it again.
func (s *Store) compare(it item, b *chunk.Block) (bool, error) {
	stored, ok, err := s.readBlock(it)
	if err != nil {
		return false, err
	}
	if !ok {
		return false, errs.E("chunk.put", errs.Corrupt, fmt.Sprintf("block %s went away", it.id), nil)
	}
	return slices.Equal(stored.Data, b.Data), nil
}
