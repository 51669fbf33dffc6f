// Package fuseclient mounts drives: it joins the pure client core with the
// FUSE device, the metadata servers and the chunk servers.
//
// A Client is one session with a drive; Mount shows it as a directory. One
// process may hold several, each with a session of its own. No process may
// open files on a mount that it serves itself.
package fuseclient

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"os"
	"slices"
	"time"

	"agentdrive/chunkserver/chunk"
	"agentdrive/fuseclient/cache"
	"agentdrive/fuseclient/core"
	"agentdrive/fuseclient/kernel"
	"agentdrive/internal/clock"
	"agentdrive/internal/errs"
	"agentdrive/internal/rpc"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/metaclient"
	"agentdrive/replication/blockio"
	"agentdrive/replication/members"
)

// Config of a mount.
type Config struct {
	Servers    []string // metadata servers
	Network    rpc.Network
	Drive      string
	Path       string // subtree; "" or "/" is the whole drive
	CreatePath bool   // make the subtree when it is missing
	ReadOnly   bool
	Strict     bool   // changes are durable before they are answered
	Dir        string // mount point, shown by status; used by Mount
	AllowOther bool
	Cache      int64 // bytes of block data in memory; default 256 MiB
	MaxDirty   int   // bytes buffered before writes wait; default 256 MiB
	Log        *slog.Logger
	Clock      clock.Clock
}

// Client is a session with a drive. It implements kernel.Backend.
type Client struct {
	run   *runner
	owner chunk.Owner
	root  meta.Attr
	sess  meta.SessionID
}

var _ kernel.Backend = (*Client)(nil)

// Open opens a session. It waits for the servers until ctx ends.
func Open(ctx context.Context, cfg Config) (*Client, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	if cfg.Cache == 0 {
		cfg.Cache = 256 << 20
	}
	if cfg.Path == "" {
		cfg.Path = "/"
	}
	mc, err := metaclient.New(metaclient.Config{Servers: cfg.Servers, Network: cfg.Network})
	if err != nil {
		return nil, err
	}
	c, err := open(ctx, cfg, mc)
	if err != nil {
		return nil, errors.Join(err, mc.Close())
	}
	return c, nil
}

func open(ctx context.Context, cfg Config, mc *metaclient.Client) (*Client, error) {
	var drive meta.DriveInfo
	if err := mc.Leader(ctx, 0, meta.CallFindDrive, &meta.DriveCall{Name: cfg.Drive}, &drive); err != nil {
		return nil, err
	}
	data, err := newDataPath(ctx, cfg, mc)
	if err != nil {
		return nil, err
	}
	capa := meta.Capability{Drive: drive.ID, Path: cfg.Path, ReadOnly: cfg.ReadOnly}
	r := &runner{
		log: cfg.Log.With("drive", cfg.Drive), clock: cfg.Clock, client: mc, data: data,
		group: drive.Group, id: data.cluster,
		waiting: map[core.ReqID]waiter{}, changed: make(chan struct{}),
	}
	r.ctx, r.stop = context.WithCancel(context.Background())
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	r.keeps = newRecorder(r.log)
	r.core = core.New(core.Config{
		Group: drive.Group, MaxDirty: cfg.MaxDirty, NewBlockID: newBlockID, Strict: cfg.Strict, IncEpoch: kernel.HasIncEpoch(),
		Open: meta.Open{
			Nonce: newBlockID(), Capability: capa, CreatePath: cfg.CreatePath,
			Client: meta.ClientInfo{Host: host, PID: uint32(os.Getpid()), Dir: cfg.Dir},
		},
	})
	r.step(core.Tick{}) // makes the core connect
	w, err := r.awaitWelcome(ctx)
	if err != nil {
		r.close()
		return nil, errors.Join(err, data.close())
	}
	return &Client{
		run: r, root: w.Root, sess: w.Session,
		owner: chunk.Owner{Group: drive.Group, Drive: uint64(drive.ID), Session: uint64(w.Session), Epoch: w.Epoch},
	}, nil
}

func newDataPath(ctx context.Context, cfg Config, mc *metaclient.Client) (*dataPath, error) {
	d := &dataPath{
		log: cfg.Log, client: mc, cache: cache.New(cfg.Cache),
		servers: members.New(cfg.Network.Dial), late: map[chunk.BlockID]*lateAcks{},
	}
	for {
		err := d.refresh(ctx)
		if err == nil {
			break
		}
		if !errs.Is(err, errs.Unavailable) || ctx.Err() != nil {
			return nil, err
		}
		t := time.NewTimer(mapRetry)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, err
		}
	}
	var err error
	if d.cluster, err = metaclient.Cluster(d.view.Cluster); err != nil {
		return nil, err
	}
	if d.writer, err = blockio.NewWriter(blockio.WriterConfig{
		Stores: d.servers, OnLate: d.onLate,
		OnWaiting: func(w blockio.Waiting) {
			d.log.Warn("a write waits for chunk servers", "block", w.Block.String(), "durable", w.Durable, "need", w.Need, "err", w.Err)
		},
	}); err != nil {
		return nil, err
	}
	d.reader, err = blockio.NewReader(blockio.ReaderConfig{
		Stores: d.servers,
		OnCorrupt: func(c blockio.Corrupt) {
			d.log.Error("a copy of a block is corrupt; another is read", "block", c.Block.String(), "server", c.Member, "err", c.Err)
		},
	})
	return d, err
}

// newBlockID makes a random id. crypto/rand.Read does not fail.
func newBlockID() (id chunk.BlockID) {
	rand.Read(id[:])
	return id
}

// LogFD is the descriptor of the memory that holds the log of local operations
// which are answered and not durable yet (package ring), for a process that
// shall keep it beyond this one. It stays the client's; -1: there is none.
func (c *Client) LogFD() int {
	if c.run.keeps == nil {
		return -1
	}
	return c.run.keeps.ring.FD()
}

// Root is the directory at which the session is rooted.
func (c *Client) Root() meta.Attr { return c.root }

// Session is the id of the first session.
func (c *Client) Session() meta.SessionID { return c.sess }

// State is what status shows of the session.
func (c *Client) State() (core.State, string) {
	c.run.mu.Lock()
	defer c.run.mu.Unlock()
	text := c.run.state.Text
	if c.run.state.Err != nil {
		text += ": " + c.run.state.Err.Error()
	}
	return c.run.state.State, text
}

// Stats describes the session and what it has done. It scans the table of
// known inodes: not for every operation.
func (c *Client) Stats() core.Stats {
	c.run.mu.Lock()
	defer c.run.mu.Unlock()
	return c.run.core.Stats()
}

// Unpublished tells how many files have data that the servers do not have yet,
// and how many bytes that is.
func (c *Client) Unpublished() (files, bytes int) {
	c.run.mu.Lock()
	defer c.run.mu.Unlock()
	s := c.run.core.Stats()
	return s.UnpublishedFiles, s.UnpublishedBytes
}

// Attach implements kernel.Backend.
func (c *Client) Attach(n kernel.Notifier) { c.run.attach(n) }

// Do implements kernel.Backend.
func (c *Client) Do(call *kernel.Call, op any) core.Answer { return c.run.do(call, op) }

// Exec runs an operation that no kernel asked for.
func (c *Client) Exec(op any) (any, error) {
	a := c.run.do(nil, op)
	return a.Result, a.Err
}

// ReadData implements kernel.Backend.
func (c *Client) ReadData(call *kernel.Call, plan *core.FilePlan, dst []byte) (int, error) {
	cancel := call.Cancel()
	ctx := c.run.ctx
	if cancel != nil && slices.ContainsFunc(plan.Pieces, func(p core.Piece) bool { return p.Block != nil }) {
		var stop context.CancelFunc
		ctx, stop = context.WithCancel(ctx)
		defer stop()
		done := ctx.Done()
		go func() { // ends with the call
			select {
			case <-cancel:
				stop()
			case <-done:
			}
		}()
	}
	return c.run.data.fill(ctx, c.owner, plan, dst)
}

// Forget implements kernel.Backend.
func (c *Client) Forget(ino meta.Ino, n uint64) { c.run.step(core.Forget{Ino: ino, N: n}) }

// OpenFile implements kernel.Backend.
func (c *Client) OpenFile(ino meta.Ino) (keep bool) { return c.run.openFile(ino) }

// CloseFile implements kernel.Backend.
func (c *Client) CloseFile(ino meta.Ino) { c.run.step(core.CloseFile{Ino: ino}) }

// Sync publishes everything buffered; nil means durable.
func (c *Client) Sync(ctx context.Context) error {
	return c.run.do(kernel.NewCall(ctx.Done()), core.SyncAll{}).Err
}

// Close publishes everything and ends the session. If ctx ends before, what
// was not published is lost and the error says so.
func (c *Client) Close(ctx context.Context) error {
	err := c.run.do(kernel.NewCall(ctx.Done()), core.Shutdown{}).Err
	c.run.close()
	return errors.Join(err, c.run.data.close(), c.run.client.Close())
}
