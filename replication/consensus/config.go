package consensus

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/internal/obs"
)

// Applier is the state machine. Its methods are called by one goroutine at a
// time.
type Applier interface {
	// Apply carries out cmd, the entry at index, on tx, and returns what the
	// proposer gets (only on the server that proposed it). term is the one in
	// which the entry was appended: Propose cannot promise that it is still
	// the one that the proposer meant, since a server may lose its leadership
	// and win it again in between. It must depend on tx, index, term and cmd
	// alone: every server runs it, and a server runs it
	// again after a crash. It must not keep tx or cmd. A failing read of tx
	// stops the group before anything is committed, so Apply may return
	// anything then.
	Apply(tx kv.Tx, index, term uint64, cmd []byte) []byte
}

// RestoreObserver is implemented by Appliers that keep something derived from
// the state in memory.
type RestoreObserver interface {
	// Restored tells that the state was replaced by a snapshot that contains
	// the entries up to index. v is valid during the call.
	Restored(v kv.View, index uint64)
}

// Peer is a member of a group.
type Peer struct {
	ID   uint32 // from 1
	Addr string // of its Raft transport
}

// TermPeers asks members for their term. The answer is Group.CurrentTerm of
// the same group there, taken after the question arrived.
type TermPeers interface {
	AskTerm(ctx context.Context, peer Peer) (term uint64, err error)
}

// MaxEntry is the longest command in bytes.
const MaxEntry = 512 << 10

// Tuning has the knobs; zero fields take the default.
type Tuning struct {
	// Heartbeat is the time without a word from the leader after which a
	// follower asks for votes, at random up to twice as long. Default 400 ms,
	// 50 ms when Bootstrap names one server alone. Failover takes about 1.3 times this.
	Heartbeat time.Duration
	// Election is how long a candidate waits for votes before it tries again.
	// Default: Heartbeat.
	Election time.Duration
	// ConfirmTimeout bounds one round of Confirm. Default 1 s.
	ConfirmTimeout time.Duration
	// MaxAppend is the most entries in one append to the log, one message to
	// a follower and one commit of the state. Default 16: with MaxEntry that
	// is 8 MiB.
	MaxAppend int
	// TrailingLogs is the number of entries kept in the log behind the
	// snapshot, for followers that lag. Default 4096.
	TrailingLogs uint64
	// SnapshotEvery is the number of entries after which the log is cut; a
	// snapshot costs nothing until a follower needs it. Default 2048.
	SnapshotEvery uint64
	// SnapshotInterval is how often that is looked at. Default 5 s.
	SnapshotInterval time.Duration
	// SegmentSize is the size of a log file in bytes. Default 16 MiB.
	SegmentSize int
	// MemTable is that of store.Options. Default there.
	MemTable int64
}

// Config describes one member of one group.
type Config struct {
	Group uint32 // id of the group, for logs and the identity check
	ID    uint32 // this server, from 1, for ever
	Addr  string // address under which peers reach the transport
	Dir   string // of this group alone

	// Bootstrap is the first membership, the same on all its members. It is
	// used only when the directory holds no state; a server with an empty
	// directory and no Bootstrap waits to be added.
	Bootstrap []Peer

	// One of the two; Shutdown closes it.
	Transport raft.Transport
	Stream    raft.StreamLayer

	Terms   TermPeers // may be nil while the group has one voter
	Applier Applier
	Tuning  Tuning
	Log     *slog.Logger  // default: slog.Default()
	Metrics *obs.Registry // nil: nothing is measured
}

func (c *Config) validate() error {
	bad := func(format string, args ...any) error {
		return errs.E("consensus.open", errs.Invalid, fmt.Sprintf(format, args...), nil)
	}
	switch {
	case c.ID == 0:
		return bad("server id 0")
	case c.Dir == "":
		return bad("no directory")
	case c.Applier == nil:
		return bad("no applier")
	case (c.Transport == nil) == (c.Stream == nil):
		return bad("give a transport or a stream layer")
	}
	seen := map[uint32]bool{}
	for _, p := range c.Bootstrap {
		if p.ID == 0 || p.Addr == "" || seen[p.ID] {
			return bad("bootstrap list has server %d at %q", p.ID, p.Addr)
		}
		seen[p.ID] = true
	}
	if len(c.Bootstrap) > 0 && !seen[c.ID] {
		return bad("server %d is not in the bootstrap list", c.ID)
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	c.Log = c.Log.With("group", c.Group, "server", c.ID)
	t := &c.Tuning
	if len(c.Bootstrap) == 1 {
		setDefault(&t.Heartbeat, 50*time.Millisecond) // nobody else can lead: do not wait for them
	}
	setDefault(&t.Heartbeat, 400*time.Millisecond)
	setDefault(&t.Election, t.Heartbeat)
	setDefault(&t.ConfirmTimeout, time.Second)
	setDefault(&t.MaxAppend, 16)
	setDefault(&t.TrailingLogs, 4096)
	setDefault(&t.SnapshotEvery, 2048)
	setDefault(&t.SnapshotInterval, 5*time.Second)
	setDefault(&t.SegmentSize, 16<<20)
	return c
}

func setDefault[T comparable](p *T, def T) {
	var zero T
	if *p == zero {
		*p = def
	}
}

// raftConfig translates to the library.
func (c *Config) raftConfig(notify chan<- bool) *raft.Config {
	t := c.Tuning
	rc := raft.DefaultConfig()
	rc.LocalID = serverID(c.ID)
	rc.HeartbeatTimeout = t.Heartbeat
	rc.ElectionTimeout = t.Election
	rc.LeaderLeaseTimeout = t.Heartbeat
	rc.CommitTimeout = 20 * time.Millisecond // only how soon an idle follower learns the commit index
	rc.MaxAppendEntries = t.MaxAppend
	rc.BatchApplyCh = true
	rc.TrailingLogs = t.TrailingLogs
	rc.SnapshotThreshold = t.SnapshotEvery
	rc.SnapshotInterval = t.SnapshotInterval
	rc.NoSnapshotRestoreOnStart = true
	rc.NoLegacyTelemetry = true
	rc.NotifyCh = notify
	rc.Logger = newHclog(c.Log)
	return rc
}

func serverID(id uint32) raft.ServerID { return raft.ServerID(strconv.FormatUint(uint64(id), 10)) }

// parseID inverts serverID; 0 for anything else.
func parseID(id raft.ServerID) uint32 {
	n, err := strconv.ParseUint(string(id), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}
