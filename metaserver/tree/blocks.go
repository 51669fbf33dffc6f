package tree

import (
	"bytes"
	"slices"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/internal/wire"
	"agentdrive/metaserver/meta"
)

// BlockState tells where a block is in its life.
type BlockState uint8

// States of a block.
const (
	BlockLive  BlockState = 1 // extents name it
	BlockFreed BlockState = 2 // none does; it waits for deletion under F|
)

// BlockRec is the record of a published block.
type BlockRec struct {
	PG      uint32
	Epoch   uint64 // of the placement group when written
	Len     uint32 // bytes
	Live    uint64 // bytes that extents refer to
	Layer   meta.LayerID
	State   BlockState
	Missing []chunk.ServerID // members without a copy, ascending
}

// Wire codes the fields in order.
func (x *BlockRec) Wire(c *wire.Coder) {
	c.U32(&x.PG)
	c.U64(&x.Epoch)
	c.U32(&x.Len)
	c.U64(&x.Live)
	wire.Uint(c, &x.Layer)
	wire.Uint(c, &x.State)
	wire.List(c, &x.Missing, wire.Uint[chunk.ServerID])
	if c.Decoding() && c.Err() == nil && (x.State != BlockLive && x.State != BlockFreed || x.Len == 0 || x.Len > chunk.MaxBlock) {
		c.Fail("block of %d bytes in state %d", x.Len, x.State)
	}
}

// repair is the record of a missing copy.
type repair struct {
	PG    uint32
	Epoch uint64
	Len   uint32
}

// Wire codes the fields in order.
func (x *repair) Wire(c *wire.Coder) {
	c.U32(&x.PG)
	c.U64(&x.Epoch)
	c.U32(&x.Len)
}

// freed is the record of a block that waits for deletion.
type freed struct {
	At    int64
	PG    uint32
	Epoch uint64
	Len   uint32
}

// Wire codes the fields in order.
func (x *freed) Wire(c *wire.Coder) {
	c.I64(&x.At)
	c.U32(&x.PG)
	c.U64(&x.Epoch)
	c.U32(&x.Len)
}

// totals is the record of the sums over the repair list.
type totals struct{ Copies, Bytes uint64 }

// Wire codes the fields in order.
func (x *totals) Wire(c *wire.Coder) {
	c.U64(&x.Copies)
	c.U64(&x.Bytes)
}

// block reads the record of a block.
func block(v kv.View, id chunk.BlockID) (rec BlockRec, ok bool, err error) {
	ok, err = get(v, blockKey(id), &rec)
	return rec, ok, err
}

// Block reads the record of a published block.
func Block(v kv.View, id chunk.BlockID) (rec BlockRec, ok bool, err error) { return block(v, id) }

// BlockExists reports whether a record of the block exists: it was published,
// and its deletion has not been confirmed (ForgetFreed).
func BlockExists(v kv.View, id chunk.BlockID) (bool, error) {
	_, ok, err := v.Get(blockKey(id))
	return ok, err
}

// publish checks the blocks that a Write brings and notes the new ones.
func (u *unit) publish(list []meta.NewBlock) ([]newBlock, error) {
	var fresh []newBlock
	for i := range list {
		b := &list[i]
		if b.Len == 0 || b.Len > chunk.MaxBlock || len(b.Acked) == 0 {
			return nil, fail("tree.publish", errs.Invalid, "block %v of %d bytes with %d copies", b.ID, b.Len, len(b.Acked))
		}
		for j := range list[:i] {
			if list[j].ID == b.ID {
				return nil, fail("tree.publish", errs.Invalid, "block %v comes twice", b.ID)
			}
		}
		rec, ok, err := block(u.tx, b.ID)
		if err != nil {
			return nil, err
		}
		if ok {
			if rec.State != BlockLive || rec.PG != b.PG || rec.Epoch != b.Epoch || rec.Len != b.Len || rec.Layer != u.Layer {
				return nil, fail("tree.publish", errs.Exist, "block %v was published with other facts", b.ID)
			}
			continue
		}
		missing := slices.Compact(slices.Sorted(slices.Values(b.Missing)))
		fresh = append(fresh, newBlock{b.ID, BlockRec{
			PG: b.PG, Epoch: b.Epoch, Len: b.Len, Layer: u.Layer, State: BlockLive, Missing: missing,
		}})
	}
	return fresh, nil
}

// newBlock is a block about to be published.
type newBlock struct {
	id  chunk.BlockID
	rec BlockRec
}

// delta is a change of a block's live bytes.
type delta struct {
	id   chunk.BlockID
	live int64
}

// net sums deltas by block, in order of ids, and leaves out those that cancel.
func net(list []delta) []delta {
	slices.SortFunc(list, func(a, b delta) int { return bytes.Compare(a.id[:], b.id[:]) })
	out := list[:0]
	for i := 0; i < len(list); {
		d := list[i]
		for i++; i < len(list) && list[i].id == d.id; i++ {
			d.live += list[i].live
		}
		if d.live != 0 {
			out = append(out, d)
		}
	}
	return out
}

// bookBlocks applies deltas to the block table, where fresh blocks are new,
// and frees blocks that nothing refers to any more. All blocks exist: the
// caller has checked.
func (u *unit) bookBlocks(fresh []newBlock, deltas []delta) error {
	var more totals // of the repair list; less is subtracted
	var less totals
	for _, d := range net(deltas) {
		var rec BlockRec
		ok := false
		for i := range fresh {
			if ok = fresh[i].id == d.id; ok {
				rec = fresh[i].rec
				for _, server := range rec.Missing {
					u.set(repairKey(server, d.id), encode(&repair{rec.PG, rec.Epoch, rec.Len}))
				}
				more.add(len(rec.Missing), rec.Len)
				break
			}
		}
		if !ok {
			var err error
			if rec, ok, err = block(u.tx, d.id); err != nil {
				return err
			}
		}
		if !ok || int64(rec.Live)+d.live < 0 {
			return fail("tree.blocks", errs.Corrupt, "block %v has %d live bytes, %d are to be added", d.id, rec.Live, d.live)
		}
		rec.Live = uint64(int64(rec.Live) + d.live)
		if rec.Live == 0 {
			for _, server := range rec.Missing {
				u.del(repairKey(server, d.id))
			}
			less.add(len(rec.Missing), rec.Len)
			rec.State, rec.Missing = BlockFreed, nil
			u.set(freedKey(u.st.Index, d.id), encode(&freed{u.st.Now, rec.PG, rec.Epoch, rec.Len}))
		}
		u.set(blockKey(d.id), encode(&rec))
	}
	k, val, err := changeTotals(u.tx, more, less)
	if k != nil {
		u.set(k, val)
	}
	return err
}

func (t *totals) add(copies int, length uint32) {
	t.Copies += uint64(copies)
	t.Bytes += uint64(copies) * uint64(length)
}

// changeTotals gives the record to write, or a nil key when nothing changes.
func changeTotals(v kv.View, more, less totals) (k, val []byte, err error) {
	if more == less {
		return nil, nil, nil
	}
	var t totals
	if _, err := get(v, totalsKey(), &t); err != nil {
		return nil, nil, err
	}
	t.Copies += more.Copies - less.Copies
	t.Bytes += more.Bytes - less.Bytes
	return totalsKey(), encode(&t), nil
}

// LateAck takes copies that became durable off the repair list. Unknown ones
// are ignored.
func LateAck(tx kv.Tx, copies []meta.BlockCopy) error {
	for _, x := range copies {
		rec, ok, err := block(tx, x.ID)
		if err != nil {
			return err
		}
		i := slices.Index(rec.Missing, x.Server)
		if !ok || i < 0 {
			continue
		}
		rec.Missing = slices.Delete(rec.Missing, i, i+1)
		var less totals
		less.add(1, rec.Len)
		k, val, err := changeTotals(tx, totals{}, less)
		if err != nil {
			return err
		}
		tx.Set(blockKey(x.ID), encode(&rec))
		tx.Delete(repairKey(x.Server, x.ID))
		tx.Set(k, val)
	}
	return nil
}

// RepairItem is a copy that a server lacks.
type RepairItem struct {
	Block chunk.BlockID
	PG    uint32
	Epoch uint64 // of the placement group when written
	Len   uint32 // bytes
}

// RepairList lists up to limit copies that server lacks, of blocks with ids
// above after, ascending.
func RepairList(v kv.View, server chunk.ServerID, after chunk.BlockID, limit int) ([]RepairItem, error) {
	var list []RepairItem
	var failed error
	hi := repairKey(server, chunk.BlockID{})[:5] // the server alone
	lo := append(repairKey(server, after), 0)
	err := v.Scan(lo, keysEnd(hi), func(k, val []byte) bool {
		if len(list) >= limit {
			return false
		}
		var r repair
		if failed = decode(k, val, &r); failed != nil {
			return false
		}
		list = append(list, RepairItem{blockOf(k), r.PG, r.Epoch, r.Len})
		return true
	})
	if err == nil {
		err = failed
	}
	return list, err
}

// blockOf reads the id at the end of a key.
func blockOf(k []byte) (id chunk.BlockID) {
	copy(id[:], k[max(0, len(k)-len(id)):])
	return id
}

// RepairTotals gives the number of missing copies in the group and their
// bytes. They are kept as counters.
func RepairTotals(v kv.View) (blocks, bytes uint64, err error) {
	var t totals
	_, err = get(v, totalsKey(), &t)
	return t.Copies, t.Bytes, err
}

// FreedKey names a block that waits for deletion.
type FreedKey struct {
	Index uint64 // of the entry that freed it
	Block chunk.BlockID
}

// FreedBlock is a block that waits for deletion.
type FreedBlock struct {
	Key   FreedKey
	PG    uint32
	Epoch uint64
	Len   uint32 // bytes
	At    int64  // when it was freed, ns
}

// FreedBlocks lists up to limit blocks behind after that were freed before the
// given time, oldest entry first; the zero key is before all.
func FreedBlocks(v kv.View, after FreedKey, before int64, limit int) ([]FreedBlock, error) {
	var list []FreedBlock
	var failed error
	lo := append(freedKey(after.Index, after.Block), 0)
	err := v.Scan(lo, []byte{prefixFreed + 1}, func(k, val []byte) bool {
		var f freed
		if failed = decode(k, val, &f); failed != nil {
			return false
		}
		if len(list) >= limit || f.At >= before {
			return false
		}
		list = append(list, FreedBlock{FreedKey{keyInt(k, 0), blockOf(k)}, f.PG, f.Epoch, f.Len, f.At})
		return true
	})
	if err == nil {
		err = failed
	}
	return list, err
}

// ForgetFreed removes the records of blocks whose copies are deleted. Unknown
// ones are ignored.
func ForgetFreed(tx kv.Tx, items []FreedKey) error {
	for _, x := range items {
		k := freedKey(x.Index, x.Block)
		if _, ok, err := tx.Get(k); err != nil || !ok {
			if err != nil {
				return err
			}
			continue
		}
		tx.Delete(k)
		tx.Delete(blockKey(x.Block))
	}
	return nil
}
