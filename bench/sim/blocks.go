package sim

import (
	"math/rand/v2"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"

	client_core "agentdrive/fuseclient/core"
)

const chunkServers = 3

// blockStore is a model of three chunk servers with a write quorum of two. It
// keeps what was acknowledged, so that reads can be verified.
type blockStore struct {
	w       *world
	rng     *rand.Rand
	content map[chunk.BlockID][]byte // look-up only
	stored  []storedBlock            // whose they are, in the order of arrival
	down    bool                     // no quorum: puts wait
	waiting []func()
	refuse  int // puts to refuse for good
}

type storedBlock struct {
	id      chunk.BlockID
	session uint64
}

func newBlockStore(w *world) *blockStore {
	return &blockStore{w: w, rng: w.rand("blocks"), content: map[chunk.BlockID][]byte{}}
}

// put stores a block for a client and tells it the result.
func (b *blockStore) put(c *client, ef client_core.PutBlock) {
	data := append([]byte(nil), ef.Data...)
	b.w.after(span(b.rng, 1*ms, 30*ms), func() {
		if b.refuse > 0 {
			b.refuse--
			b.w.note("refuse block %s of %s", ef.ID, c.name)
			c.blockFailed(ef.Token, errs.E("block.put", errs.NoSpace, "the chunk servers are full", nil))
			return
		}
		b.whenUp(func() { b.store(c, ef, data) })
	})
}

func (b *blockStore) whenUp(fn func()) {
	if b.down {
		b.waiting = append(b.waiting, fn)
		return
	}
	fn()
}

func (b *blockStore) heal() {
	b.down = false
	list := b.waiting
	b.waiting = nil
	for _, fn := range list {
		b.w.after(span(b.rng, 0, 10*ms), func() { b.whenUp(fn) })
	}
}

func (b *blockStore) store(c *client, ef client_core.PutBlock, data []byte) {
	if b.w.rule != AckBeforeDurable || b.rng.IntN(4) != 0 {
		b.content[ef.ID] = data
		b.stored = append(b.stored, storedBlock{ef.ID, ef.Owner.Session})
	}
	ev := client_core.BlockStored{Token: ef.Token, PG: 1, Epoch: 1, Acked: []chunk.ServerID{1, 2, 3}}
	if b.rng.IntN(3) == 0 {
		away := chunk.ServerID(1 + b.rng.IntN(chunkServers))
		ev.Missing = []chunk.ServerID{away}
		ev.Acked = nil
		for id := chunk.ServerID(1); id <= chunkServers; id++ {
			if id != away {
				ev.Acked = append(ev.Acked, id)
			}
		}
		if b.rng.IntN(2) == 0 {
			b.w.after(span(b.rng, 1*ms, 200*ms), func() {
				c.post(client_core.BlockLate{Token: ef.Token, Server: away})
			})
		}
	}
	c.post(ev)
}

// read assembles what a plan names.
func (b *blockStore) read(plan *client_core.FilePlan) ([]byte, error) {
	var out []byte
	for _, p := range plan.Pieces {
		switch {
		case p.Data != nil:
			if uint32(len(p.Data)) != p.Len {
				return nil, errs.E("plan", errs.Corrupt, "a piece is not as long as it says", nil)
			}
			out = append(out, p.Data...)
		case p.Block != nil:
			data, err := b.slice(p.Block, p.BlockOff, p.Len)
			if err != nil {
				return nil, err
			}
			out = append(out, data...)
		default:
			out = append(out, make([]byte, p.Len)...)
		}
	}
	return out, nil
}

func (b *blockStore) slice(ref *meta.BlockRef, off, n uint32) ([]byte, error) {
	data, ok := b.content[ref.ID]
	if !ok {
		return nil, errs.E("plan", errs.NotExist, "block "+ref.ID.String()+" is published and on no server", nil)
	}
	if uint64(off)+uint64(n) > uint64(len(data)) || int(ref.Len) != len(data) {
		return nil, errs.E("plan", errs.Corrupt, "block "+ref.ID.String()+" is shorter than its reference", nil)
	}
	return data[off : off+n], nil
}
