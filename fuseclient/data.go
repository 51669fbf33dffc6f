package fuseclient

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"agentdrive/chunkserver/chunk"
	"agentdrive/fuseclient/cache"
	"agentdrive/fuseclient/core"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/metaclient"
	"agentdrive/replication/blockio"
	"agentdrive/replication/members"
)

// mapRetry is the pause between attempts to find a place for a block.
const mapRetry = 200 * time.Millisecond

// dataPath reads and writes blocks on the chunk servers.
type dataPath struct {
	log     *slog.Logger
	client  *metaclient.Client
	cluster [16]byte
	servers *members.Registry
	reader  *blockio.Reader
	writer  *blockio.Writer
	cache   *cache.Cache

	mu   sync.Mutex // guards the fields below; leaf
	view *meta.MapReply
	late map[chunk.BlockID]*lateAcks
}

// lateAcks are the copies of one block that became durable after the quorum.
// They are held back until the core knows of the quorum.
type lateAcks struct {
	pending int // reports still to come; known once stored
	early   []blockio.Late
	deliver func(chunk.ServerID) // nil until stored
}

func (d *dataPath) currentMap() *meta.MapReply {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.view
}

// refresh fetches the cluster map.
func (d *dataPath) refresh(ctx context.Context) error {
	m, err := d.client.Map(ctx)
	if err != nil {
		return err
	}
	addrs := map[chunk.ServerID]string{}
	for _, s := range m.ChunkServers {
		addrs[s.ID] = s.Address
	}
	d.mu.Lock()
	changed := d.view == nil || d.view.Version != m.Version
	d.view = m
	d.mu.Unlock()
	if changed {
		return d.servers.Set(addrs)
	}
	return nil
}

// put stores a block on a write quorum. The caller then calls stored.
func (d *dataPath) put(ctx context.Context, ef core.PutBlock) (blockio.Ack, error) {
	p, err := d.place(ctx, ef.ID)
	if err != nil {
		return blockio.Ack{}, err
	}
	d.mu.Lock()
	d.late[ef.ID] = &lateAcks{}
	d.mu.Unlock()
	b := chunk.Block{ID: ef.ID, Owner: ef.Owner, Sums: chunk.Sums(ef.Data), Data: ef.Data}
	return d.writer.Put(ctx, d.grant(ef.Owner, chunk.RightWrite), p, b)
}

// stored says that late copies of a block may be reported now, and how many
// reports are to come.
func (d *dataPath) stored(id chunk.BlockID, pending int, deliver func(chunk.ServerID)) {
	d.mu.Lock()
	l := d.late[id]
	if l == nil {
		d.mu.Unlock()
		return
	}
	l.pending, l.deliver = pending-len(l.early), deliver
	early := l.early
	if l.pending <= 0 {
		delete(d.late, id)
	}
	d.mu.Unlock()
	for _, x := range early {
		if x.Err == nil && deliver != nil {
			deliver(x.Member)
		}
	}
}

// place finds the members for a block, and waits while too few servers have
// joined.
func (d *dataPath) place(ctx context.Context, id chunk.BlockID) (blockio.Placement, error) {
	for first := true; ; first = false {
		m := d.currentMap()
		pg, epoch, to, err := m.Place(id)
		if err == nil {
			return blockio.Placement{PG: pg, Epoch: epoch, Members: to, Quorum: m.Quorum, MinCopies: m.MinCopies}, nil
		}
		if first {
			d.log.Warn("writes wait for chunk servers", "err", err)
		}
		t := time.NewTimer(mapRetry)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return blockio.Placement{}, err
		}
		if err := d.refresh(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("cannot fetch the cluster map", "err", err)
		}
	}
}

func (d *dataPath) grant(o chunk.Owner, rights uint8) chunk.Grant {
	return chunk.Grant{Cluster: d.cluster, Owner: o, Rights: rights}
}

// onLate is the writer's callback.
func (d *dataPath) onLate(x blockio.Late) {
	d.mu.Lock()
	l := d.late[x.Block]
	if l == nil {
		d.mu.Unlock()
		return
	}
	if l.deliver == nil {
		l.early = append(l.early, x)
		d.mu.Unlock()
		return
	}
	if l.pending--; l.pending <= 0 {
		delete(d.late, x.Block)
	}
	deliver := l.deliver
	d.mu.Unlock()
	if x.Err == nil {
		deliver(x.Member)
	}
}

// fill assembles a read.
func (d *dataPath) fill(ctx context.Context, owner chunk.Owner, plan *core.FilePlan, dst []byte) (int, error) {
	total := 0
	for i := range plan.Pieces {
		total += int(plan.Pieces[i].Len)
	}
	if total > len(dst) { // told before anything writes into dst
		return 0, errs.E("mount.read", errs.Corrupt, "plan is longer than the request", nil)
	}
	var wg sync.WaitGroup
	var once sync.Once
	var failed error
	n := 0
	for i := range plan.Pieces {
		p := &plan.Pieces[i]
		part := dst[n : n+int(p.Len)]
		n += int(p.Len)
		switch {
		case p.Block != nil:
			wg.Add(1)
			go func() {
				defer wg.Done()
				if err := d.readBlock(ctx, owner, p, part); err != nil {
					once.Do(func() { failed = err })
				}
			}()
		case p.Data != nil:
			copy(part, p.Data)
		default:
			clear(part)
		}
	}
	wg.Wait()
	if failed != nil {
		return 0, failed
	}
	return n, nil
}

// readBlock reads a range of a block, and waits while no server that has it
// answers: a read is late rather than wrong.
func (d *dataPath) readBlock(ctx context.Context, owner chunk.Owner, p *core.Piece, dst []byte) error {
	fetch := func(ctx context.Context, id chunk.BlockID, off, length uint32) ([]byte, error) {
		from := d.holders(p.Block)
		if len(from) == 0 {
			// Written under an epoch newer than our map, which is fetched again.
			return nil, errs.E("mount.read", errs.Unavailable, fmt.Sprintf("the cluster map does not know placement epoch %d of block %s", p.Block.Epoch, id), nil)
		}
		return d.reader.Get(ctx, d.grant(owner, chunk.RightRead), from, id, off, length)
	}
	for first := true; ; first = false {
		err := d.cache.Read(ctx, p.Block.ID, p.Block.Len, p.BlockOff, dst, fetch)
		if err == nil || !errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.Timeout) {
			return err
		}
		if first {
			d.log.Warn("a read waits for chunk servers", "block", p.Block.ID.String(), "err", err)
		}
		t := time.NewTimer(mapRetry)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return errs.E("mount.read", errs.Interrupted, "", err)
		}
		if err := d.refresh(ctx); err != nil && ctx.Err() == nil {
			d.log.Debug("cannot fetch the cluster map", "err", err)
		}
	}
}

// holders lists the members that have a block; those that lack it come last,
// because they may have been repaired meanwhile.
func (d *dataPath) holders(b *meta.BlockRef) []chunk.ServerID {
	m := d.currentMap()
	all := m.Members(b.PG, b.Epoch)
	var have, lack []chunk.ServerID
	for _, id := range all {
		missing := false
		for _, x := range b.Missing {
			missing = missing || x == id
		}
		if missing {
			lack = append(lack, id)
		} else {
			have = append(have, id)
		}
	}
	return append(have, lack...)
}

func (d *dataPath) close() error {
	err := d.writer.Close()
	if cerr := d.servers.Close(); err == nil {
		err = cerr
	}
	return err
}
