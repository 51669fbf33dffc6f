package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"agentdrive/internal/errs"
	"agentdrive/replication/store"
)

// Group is this server's member of one Raft group. Safe for concurrent use.
type Group struct {
	cfg     Config
	state   *store.Store
	log     *logStore
	snaps   *snapStore
	fsm     *fsm
	applied *appliedWait

	trans    raft.Transport
	ownTrans *raft.NetworkTransport // nil when Config gave the transport
	raft     *raft.Raft
	notify   chan bool // from Raft: leadership gained or lost

	lead    leadership
	confirm confirmer
	pending pending

	stop     chan struct{} // closed by Shutdown
	stopOnce sync.Once
	stopErr  error // result of the first Shutdown
	bg       sync.WaitGroup

	raftStop    sync.Once
	raftStopped raft.Future // see stopRaft

	failOnce sync.Once
	failCh   chan struct{}
	failErr  error // written before failCh closes
}

func newGroup(cfg Config, st *store.Store) *Group {
	g := &Group{
		cfg: cfg, state: st, applied: newAppliedWait(0),
		notify: make(chan bool, 16), // Raft waits when it is full
		stop:   make(chan struct{}), failCh: make(chan struct{}),
	}
	g.lead.init()
	g.confirm.g = g
	g.pending.futures = map[*Future]struct{}{}
	return g
}

// run starts the group's own goroutines.
func (g *Group) run() {
	g.bg.Add(3)
	go g.watchLeadership()
	go g.verify()
	go func() {
		defer g.bg.Done()
		select {
		case <-g.failCh:
			g.stopRaft()
		case <-g.stop:
		}
	}()
}

// verify reads the whole state once, beside the work: see store.Verify.
func (g *Group) verify() {
	defer g.bg.Done()
	if err := g.state.Verify(); err != nil && !errs.Is(err, errs.Unavailable) {
		g.failed(err)
	}
}

// failed stops the group because of err: a server that cannot apply must not
// vote for entries it forgets or answer from a state that stands still.
func (g *Group) failed(err error) {
	g.failOnce.Do(func() {
		g.failErr = err
		g.cfg.Log.Error("group stops", "err", err, "hint", errs.HintOf(err))
		close(g.failCh) // run sees it and stops Raft
		g.applied.stop(errs.E("consensus.wait", errs.Unavailable, "the group has stopped", err))
		g.pending.close(errs.E("consensus.propose", errs.Unavailable, "the group has stopped; the outcome is unknown", err))
	})
}

// stopRaft tells Raft to stop; waiting for the result waits for its
// goroutines. The library gives that result to the first caller only.
func (g *Group) stopRaft() raft.Future {
	g.raftStop.Do(func() { g.raftStopped = g.raft.Shutdown() })
	return g.raftStopped
}

// Failed is closed when the group has stopped by itself; Err says why. It
// must then be shut down; other members go on.
func (g *Group) Failed() <-chan struct{} { return g.failCh }

// Err is the reason of Failed, nil before.
func (g *Group) Err() error {
	select {
	case <-g.failCh:
		return g.failErr
	default:
		return nil
	}
}

// raftError gives an error of the library its kind.
func (g *Group) raftError(op string, err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return g.notLeader(op)
	case errors.Is(err, raft.ErrRaftShutdown):
		return errs.E(op, errs.Unavailable, "the group has stopped; the outcome is unknown", g.Err())
	}
	return errs.E(op, errs.Unavailable, "the outcome is unknown", err)
}

func (g *Group) notLeader(op string) error {
	id, addr := g.Leader()
	if id == 0 || id == g.cfg.ID {
		return errs.E(op, errs.NotLeader, fmt.Sprintf("group %d: server %d does not lead, nobody is known to", g.cfg.Group, g.cfg.ID), nil)
	}
	return errs.E(op, errs.NotLeader, fmt.Sprintf("group %d: server %d does not lead, %d does", g.cfg.Group, g.cfg.ID, id), nil).WithHint(addr)
}

// View opens the state as of the last applied entry of this server. For a
// linearizable read, Confirm and WaitApplied first. Shutdown waits for its
// Release.
func (g *Group) View() (*store.View, error) { return g.state.View() }

// WaitApplied waits until the state contains entry index, which is one that
// this server's Confirm or Propose named. Kinds errs.Canceled, errs.Timeout
// (ctx), errs.Unavailable (group stopped).
func (g *Group) WaitApplied(ctx context.Context, index uint64) error {
	return g.applied.wait(ctx, index)
}

// CurrentTerm is this server's term, on stable storage. It is what TermPeers
// of the others asks for.
func (g *Group) CurrentTerm() uint64 { return g.raft.CurrentTerm() }

// Leader tells who leads as far as this server knows; 0 and "" if unknown.
func (g *Group) Leader() (id uint32, addr string) {
	a, sid := g.raft.LeaderWithID()
	return parseID(sid), string(a)
}

// TransferLeadership hands over to the most up-to-date voter.
func (g *Group) TransferLeadership(ctx context.Context) error {
	return g.await(ctx, "consensus.transfer", g.raft.LeadershipTransfer())
}

// AddVoter adds p to the group or changes its address. Only on the leader.
func (g *Group) AddVoter(ctx context.Context, p Peer) error {
	return g.await(ctx, "consensus.addvoter", g.raft.AddVoter(serverID(p.ID), raft.ServerAddress(p.Addr), 0, 0))
}

// RemoveServer removes a member. Only on the leader.
func (g *Group) RemoveServer(ctx context.Context, id uint32) error {
	return g.await(ctx, "consensus.remove", g.raft.RemoveServer(serverID(id), 0, 0))
}

// await waits for f or ctx; when ctx ends first the outcome is unknown.
func (g *Group) await(ctx context.Context, op string, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		if err != nil {
			return g.raftError(op, err)
		}
		return nil
	case <-ctx.Done():
		return ctxError(op, ctx, "the outcome is unknown")
	case <-g.stop: // the library answers what it has queued only while it runs
		return g.raftError(op, raft.ErrRaftShutdown)
	}
}

// voters lists the voting members of the latest membership.
func (g *Group) voters() []Peer {
	f := g.raft.GetConfiguration()
	if f.Error() != nil { // never: the library answers from memory
		return nil
	}
	var out []Peer
	for _, s := range f.Configuration().Servers {
		if s.Suffrage == raft.Voter {
			out = append(out, Peer{ID: parseID(s.ID), Addr: string(s.Address)})
		}
	}
	return out
}

// Stats describes the member for status pages.
type Stats struct {
	Group, Server uint32
	State         string // "leader", "follower", "candidate", "shutdown"
	Term          uint64
	LastIndex     uint64 // of the log
	Commit        uint64
	Applied       uint64 // in the state
	Durable       uint64 // in the state and on stable storage, as of the last look
	FirstIndex    uint64 // of the log
	Leader        Peer   // zero if unknown
	Voters        []Peer
	LastContact   time.Time         // with the leader, on a follower
	Unreachable   map[uint32]string // on the leader: peers that miss heartbeats, with the time of their last answer
	StoreTables   int
	StoreBytes    int64
}

// Stats takes a look.
func (g *Group) Stats() (Stats, error) {
	first, err := g.log.FirstIndex() // before Durable: the log is cut behind it
	if err != nil {
		return Stats{}, logError("read", "the log", g.log.vfs, err)
	}
	ss, err := g.state.Stats()
	if err != nil {
		return Stats{}, err
	}
	st := Stats{
		Group: g.cfg.Group, Server: g.cfg.ID, State: stateNames[g.raft.State()],
		Term: g.raft.CurrentTerm(), LastIndex: g.raft.LastIndex(), Commit: g.raft.CommitIndex(),
		Applied: ss.Applied.Index, Durable: ss.Durable, FirstIndex: first,
		Voters: g.voters(), LastContact: g.raft.LastContact(), Unreachable: g.lead.unreachable(),
		StoreTables: ss.Tables, StoreBytes: ss.Bytes,
	}
	st.Leader.ID, st.Leader.Addr = g.Leader()
	return st, nil
}

var stateNames = map[raft.RaftState]string{
	raft.Leader: "leader", raft.Follower: "follower", raft.Candidate: "candidate", raft.Shutdown: "shutdown",
}

// Shutdown stops the member and closes its files. It waits for open views.
// Calling it again returns the first result.
func (g *Group) Shutdown() error {
	g.stopOnce.Do(func() {
		err := g.stopRaft().Error()
		close(g.stop)
		g.applied.stop(errs.E("consensus.wait", errs.Unavailable, "the group was shut down", nil))
		g.pending.close(errs.E("consensus.propose", errs.Unavailable, "the group was shut down; the outcome is unknown", nil))
		g.confirm.close()
		g.bg.Wait()
		g.stopErr = errors.Join(err, g.closeFiles())
	})
	return g.stopErr
}
