package sim

import (
	"agentdrive/chunkserver/chunk"
	"agentdrive/metaserver/core"
	"agentdrive/metaserver/state"
	"agentdrive/metaserver/tree"
)

// freeGrace is how long a block stays that nothing refers to any more: a client
// that slept may still hold a map that names it, but no longer than its
// session may live unrenewed.
const freeGrace = 2 * int64(serverTTL)

// chores is what a leader's adapter does besides: it deletes blocks that ended
// sessions left unpublished, and blocks that are freed. A leader that was
// deposed without noticing goes on with what it knows.
func (n *node) chores() {
	n.w.after(span(n.rng, 200*ms, 500*ms), n.chores)
	if !n.up || n.paused || n.coreReign == nil {
		return
	}
	v := n.mem.View()
	closed, err := state.Closed(v, 0, 8)
	if err != nil {
		n.w.fail("closed sessions: %v", err)
	}
	for _, se := range closed {
		for _, id := range n.w.blocks.of(uint64(se.ID)) {
			if ok, err := tree.BlockExists(v, id); err != nil || ok {
				continue
			}
			n.later(n.work(), func() { n.w.blocks.remove(id, "swept") })
		}
		n.submit(&state.Swept{Session: se.ID})
	}
	freed, err := tree.FreedBlocks(v, tree.FreedKey{}, n.w.now+n.clockError-freeGrace, 8)
	if err != nil {
		n.w.fail("freed blocks: %v", err)
	}
	done := &state.ForgetFreed{}
	for _, f := range freed {
		n.later(n.work(), func() { n.w.blocks.remove(f.Key.Block, "freed") })
		done.Keys = append(done.Keys, f.Key)
	}
	if len(done.Keys) > 0 {
		n.submit(done)
	}
}

// submit asks the core for an operation of the server itself.
func (n *node) submit(op state.Internal) {
	n.w.submitted++
	n.submits++
	n.post(core.Submit{Token: core.Token(n.w.submitted), Op: op})
}

// of lists the blocks that a session stored, in the order of their arrival.
func (b *blockStore) of(session uint64) []chunk.BlockID {
	var list []chunk.BlockID
	for _, x := range b.stored {
		if _, there := b.content[x.id]; there && x.session == session {
			list = append(list, x.id)
		}
	}
	return list
}

func (b *blockStore) remove(id chunk.BlockID, why string) {
	if _, there := b.content[id]; there {
		b.w.note("block %s is %s", id, why)
		delete(b.content, id)
		b.w.oracle.stats.Deleted++
	}
}
