package roles

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"agentdrive/chunkserver/chunk"
	"agentdrive/chunkserver/chunkclient"
	"agentdrive/internal/errs"
	"agentdrive/internal/rpc"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/metaclient"
)

// askTimeout bounds each question of a status.
const askTimeout = 2 * time.Second

// View is the cluster as far as it answers.
type View struct {
	Map    *meta.MapReply
	Meta   []MetaState
	Chunks []ChunkState
	Groups []GroupView
	Drives []meta.DriveInfo
	// DrivesErr says why Drives is unknown.
	DrivesErr error
}

// MetaState is one metadata server's answer.
type MetaState struct {
	ID      uint32
	Address string
	Reply   *meta.ServerReply // nil: no answer
	Err     error
}

// ChunkState is one chunk server's answer.
type ChunkState struct {
	ID      uint32
	Address string
	Status  *chunk.Status // nil: no answer
	Err     error
}

// GroupView is a group as its leader tells.
type GroupView struct {
	Group uint32
	Reply *meta.GroupReply // nil: no leader answers
	Err   error
}

// Look asks every server of the cluster at once.
func Look(ctx context.Context, mc *metaclient.Client) (*View, error) {
	m, err := mc.Map(ctx)
	if err != nil {
		return nil, err
	}
	v := &View{
		Map: m, Meta: make([]MetaState, len(m.MetaServers)), Chunks: make([]ChunkState, len(m.ChunkServers)),
		Groups: make([]GroupView, m.Groups+1),
	}
	var wg sync.WaitGroup
	ask := func(fn func(ctx context.Context)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			fn(ctx)
		}()
	}
	for i, s := range m.MetaServers {
		ask(func(ctx context.Context) {
			r := new(meta.ServerReply)
			err := mc.At(ctx, s.Address, meta.CallServer, &meta.Empty{}, r)
			v.Meta[i] = MetaState{ID: uint32(s.ID), Address: s.Address, Err: err}
			if err == nil {
				v.Meta[i].Reply = r
			}
		})
	}
	for i, s := range m.ChunkServers {
		ask(func(ctx context.Context) {
			st, err := chunkStatus(ctx, s.Address)
			v.Chunks[i] = ChunkState{ID: uint32(s.ID), Address: s.Address, Err: err}
			if err == nil {
				v.Chunks[i].Status = &st
			}
		})
	}
	for g := range v.Groups {
		ask(func(ctx context.Context) {
			r := new(meta.GroupReply)
			err := mc.Leader(ctx, uint32(g), meta.CallGroup, &meta.GroupCall{Group: uint32(g)}, r)
			v.Groups[g] = GroupView{Group: uint32(g), Err: err}
			if err == nil {
				v.Groups[g].Reply = r
			}
		})
	}
	ask(func(ctx context.Context) {
		var r meta.DrivesReply
		v.DrivesErr = mc.Leader(ctx, 0, meta.CallDrives, &meta.Empty{}, &r)
		v.Drives = r.Drives
	})
	wg.Wait()
	return v, nil
}

func chunkStatus(ctx context.Context, addr string) (st chunk.Status, err error) {
	c, err := chunkclient.Dial(chunkclient.Config{Addr: addr, Dial: rpc.TCP{}.Dial})
	if err != nil {
		return st, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return c.Status(ctx)
}

// Degraded lists what is wrong; nothing means healthy.
func (v *View) Degraded() []string {
	var list []string
	for _, s := range v.Meta {
		if s.Reply == nil {
			list = append(list, fmt.Sprintf("metaserver %d does not answer", s.ID))
		}
	}
	if n := len(v.Chunks); n < v.Map.Copies {
		list = append(list, fmt.Sprintf("%d of %d chunkservers have joined", n, v.Map.Copies))
	}
	for _, s := range v.Chunks {
		switch {
		case s.Status == nil:
			list = append(list, fmt.Sprintf("chunkserver %d does not answer", s.ID))
		case s.Status.ReadOnly:
			list = append(list, fmt.Sprintf("chunkserver %d is out of space", s.ID))
		}
	}
	for _, g := range v.Groups {
		switch {
		case g.Reply == nil:
			list = append(list, fmt.Sprintf("group %d has no leader", g.Group))
		case g.Reply.Repair.Blocks > 0:
			list = append(list, fmt.Sprintf("group %d lacks %d copies of blocks", g.Group, g.Reply.Repair.Blocks))
		}
	}
	return list
}

// Serving reports whether majorities live: every group is led, and enough
// chunk servers answer for writes to go on.
func (v *View) Serving() error {
	for _, g := range v.Groups {
		if g.Reply == nil {
			return errs.E("status", errs.Unavailable, fmt.Sprintf("group %d has no leader", g.Group), g.Err)
		}
	}
	if len(v.Chunks) < v.Map.Copies {
		return errs.E("status", errs.Unavailable, fmt.Sprintf("%d of %d chunkservers have joined", len(v.Chunks), v.Map.Copies), nil)
	}
	live := 0
	for _, s := range v.Chunks {
		if s.Status != nil && !s.Status.ReadOnly {
			live++
		}
	}
	if need := max(v.Map.Quorum, v.Map.MinCopies); live < need {
		return errs.E("status", errs.Unavailable, fmt.Sprintf("%d chunkservers take blocks, %d are needed", live, need), nil)
	}
	return nil
}

// pollPause is the pause between looks at a cluster that is not there yet.
const pollPause = 100 * time.Millisecond

// awaitMap waits until a metadata server knows the cluster's map.
func awaitMap(ctx context.Context, mc *metaclient.Client) (*meta.MapReply, error) {
	for {
		m, err := mc.Map(ctx)
		if err == nil || !errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.Timeout) {
			return m, err
		}
		if pause(ctx, pollPause) != nil {
			return nil, err
		}
	}
}

// AwaitServing waits until the cluster serves.
func AwaitServing(ctx context.Context, mc *metaclient.Client) error {
	for {
		v, err := Look(ctx, mc)
		if err == nil {
			err = v.Serving()
		}
		if err == nil || !errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.Timeout) {
			return err
		}
		if pause(ctx, pollPause) != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func hexID(id [16]byte) string { return hex.EncodeToString(id[:]) }
