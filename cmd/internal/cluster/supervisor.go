package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"sync"
	"time"

	"agentdrive/cmd/internal/ctl"
	"agentdrive/cmd/internal/lockfile"
	"agentdrive/internal/errs"
)

// Delays of the supervisor.
const (
	DefaultRespawnDelay = 10 * time.Second // pause before a dead server is started again
	DefaultReadyTimeout = 60 * time.Second // limit of a start
	stopGrace           = 10 * time.Second // from SIGTERM to SIGKILL
	inheritWait         = 15 * time.Second // for the servers of a killed supervisor to end
	askTimeout          = 2 * time.Second  // for a supervisor to say that it lives
)

// Peer is another server of the cluster.
type Peer struct {
	ID      uint32
	Address string // host:port
}

// ServerConfig says how to start one server.
type ServerConfig struct {
	Role    string   // Metaserver or Chunkserver
	ID      uint32   // from 1, unique in its role
	Cluster [16]byte // id of the cluster; zero: take the directory's, or the peers'
	Data    string   // the server's own directory
	Listen  string   // host:port
	Peers   []Peer   // all metaservers; for a metaserver, itself among them
	Copies  int      // copies of each block that new drives keep: 3 or 1
	Groups  int      // Raft groups that hold drives; 0: one
	Log     io.Writer

	LogLevel  string // debug, info, warn or error
	LogFormat string // text or json
}

// RunFunc runs one server until ctx ends, then stops it in order and returns
// nil. An error before that means that the server could not start or go on.
type RunFunc func(ctx context.Context, c ServerConfig) error

// Options configure a Supervisor. The zero value of a field is its default.
type Options struct {
	Data         string        // data directory, absolute
	Nodes        int           // servers of each role; 0: as the directory was created, or 1
	Groups       int           // Raft groups that hold drives; 0: as the directory was created, or 1
	NoRespawn    bool          // leave dead servers dead
	LogLevel     string        // of the servers
	RespawnDelay time.Duration // default DefaultRespawnDelay
	ReadyTimeout time.Duration // default DefaultReadyTimeout

	Run  RunFunc                                      // runs a server of a one-node cluster
	Args func(c ServerConfig) []string                // command line of a child server
	Up   func(ctx context.Context, c Config) error    // returns when the cluster serves
	Hope func(exitCode int) (kind errs.Kind, ok bool) // ok: a server that ended so may do better next time
	Log  io.Writer                                    // the supervisor's own messages
}

// Supervisor runs the servers of one data directory.
type Supervisor struct {
	opt    Options
	dir    Dir
	config Config
	exe    string
	log    *log.Logger
	lock   *lockfile.Lock
	ready  chan struct{} // closed when the cluster serves

	mu      sync.Mutex // guards servers' contents; leaf
	servers []*server
}

// server is the supervisor's view of one server.
type server struct {
	Entry
	pid      int    // 0: not running
	restarts int    // times started again
	last     string // how it ended last
}

// ServerState is one server as the supervisor sees it.
type ServerState struct {
	Role     string `json:"role"`
	ID       uint32 `json:"id"`
	Pid      int    `json:"pid"`
	Restarts int    `json:"restarts"`
	Last     string `json:"last,omitempty"`
}

// State is the answer to the control operation "status".
type State struct {
	Pid     int           `json:"pid"`
	Nodes   int           `json:"nodes"`
	Ready   bool          `json:"ready"`
	Servers []ServerState `json:"servers"`
}

// Open locks the data directory, creating it and its cluster if needed.
// errs.Locked: a supervisor runs there already. errs.Refused: made for
// another number of nodes. The caller must Run the result, or Close it.
func Open(ctx context.Context, opt Options) (*Supervisor, error) {
	if opt.RespawnDelay == 0 {
		opt.RespawnDelay = DefaultRespawnDelay
	}
	if opt.ReadyTimeout == 0 {
		opt.ReadyTimeout = DefaultReadyTimeout
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, errs.E("cluster.open", errs.IO, "", err)
	}
	d := Dir(opt.Data)
	if err := d.Make(); err != nil {
		return nil, err
	}
	lock, err := lockDir(ctx, d)
	if err != nil {
		return nil, err
	}
	config, err := loadOrCreate(d, opt.Nodes, opt.Groups)
	if err != nil {
		lock.Close()
		return nil, err
	}
	s := &Supervisor{
		opt: opt, dir: d, config: config, exe: exe, lock: lock,
		log:   log.New(opt.Log, "up: ", log.LstdFlags|log.Lmsgprefix),
		ready: make(chan struct{}),
	}
	for _, e := range config.Servers {
		s.servers = append(s.servers, &server{Entry: e})
	}
	return s, nil
}

// lockDir takes the lock, waiting for the last servers of a supervisor that
// was killed, but not for one that lives.
func lockDir(ctx context.Context, d Dir) (*lockfile.Lock, error) {
	l, err := lockfile.Try(d.Lock())
	if !errs.Is(err, errs.Locked) {
		return l, err
	}
	if st, serr := Ask(ctx, d); serr == nil {
		return nil, errs.E("cluster.open", errs.Locked, fmt.Sprintf("already running as process %d", st.Pid), nil).
			WithHint("see it with `agentdrive status`, stop it with `agentdrive down`")
	}
	ctx, cancel := context.WithTimeout(ctx, inheritWait)
	defer cancel()
	l, err = lockfile.Wait(ctx, d.Lock())
	if err != nil {
		return nil, errs.E("cluster.open", errs.Locked, "another process holds the data directory", err).
			WithHint("`agentdrive down` ends what is left of it")
	}
	return l, nil
}

// Ask returns the state of the supervisor of d. errs.Unavailable: none runs.
func Ask(ctx context.Context, d Dir) (State, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var st State
	return st, ctl.Call(ctx, d.Socket(), "status", nil, &st)
}

// WaitReady waits until the running supervisor of d says that its cluster
// serves.
func WaitReady(ctx context.Context, d Dir) error {
	return ctl.Call(ctx, d.Socket(), "ready", nil, nil)
}

// Config is the cluster that the supervisor runs.
func (s *Supervisor) Config() Config { return s.config }

// Close gives up a Supervisor that was not Run.
func (s *Supervisor) Close() error { return s.lock.Close() }

// Run starts the servers, calls ready once the cluster serves, and returns
// after ctx ended or somebody asked to stop, with all servers gone. It returns
// an error if the cluster did not come to serve or, with one node, if a server
// failed.
func (s *Supervisor) Run(ctx context.Context, ready func()) (err error) {
	defer func() {
		if cerr := s.lock.Close(); err == nil && cerr != nil {
			err = errs.E("cluster.run", errs.IO, "", cerr)
		}
	}()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	fail := func(err error) { stop(failed{err}) }
	control, err := ctl.Listen(s.dir.Socket(), s.handler(ctx, stop))
	if err != nil {
		return err
	}
	defer func() {
		control.Close()
		os.Remove(s.dir.Socket())
	}()

	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		s.awaitReady(ctx, fail, ready)
	}()
	if s.config.Nodes == 1 {
		s.runInside(ctx, fail)
	} else {
		s.runChildren(ctx, fail)
	}
	wg.Wait()
	var f failed
	if errors.As(context.Cause(ctx), &f) {
		return f.error
	}
	return nil // somebody asked us to stop
}

// failed is the cause of a context that ended because of an error, as opposed
// to a signal or a request to stop.
type failed struct{ error }

func (s *Supervisor) awaitReady(ctx context.Context, fail func(error), ready func()) {
	rctx, cancel := context.WithTimeout(ctx, s.opt.ReadyTimeout)
	defer cancel()
	err := s.opt.Up(rctx, s.config)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		fail(errs.E("cluster.run", errs.Other, "the cluster does not come to serve", err))
	default:
		close(s.ready)
		ready()
	}
}

func (s *Supervisor) isReady() bool {
	select {
	case <-s.ready:
		return true
	default:
		return false
	}
}

func (s *Supervisor) handler(run context.Context, stop context.CancelCauseFunc) ctl.Handler {
	return func(ctx context.Context, op string, _ json.RawMessage) (any, error) {
		switch op {
		case "status":
			return s.state(), nil
		case "ready":
			select {
			case <-s.ready:
				return nil, nil
			case <-run.Done():
				return nil, errs.E("cluster", errs.Unavailable, "the cluster is stopping", context.Cause(run))
			case <-ctx.Done():
				return nil, errs.E("cluster", errs.Timeout, "", ctx.Err())
			}
		case "stop":
			s.log.Print("asked to stop")
			stop(nil)
			return nil, nil
		}
		return nil, errs.E("cluster", errs.Unsupported, "control operation "+op, nil)
	}
}

func (s *Supervisor) state() State {
	st := State{Pid: os.Getpid(), Nodes: s.config.Nodes, Ready: s.isReady()}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.servers {
		st.Servers = append(st.Servers, ServerState{Role: v.Role, ID: v.ID, Pid: v.pid, Restarts: v.restarts, Last: v.last})
	}
	return st
}

// serverConfig spells out how to start e.
func (s *Supervisor) serverConfig(e Entry) ServerConfig {
	c := ServerConfig{
		Role: e.Role, ID: e.ID, Cluster: s.config.ClusterID(),
		Data: filepath.Join(string(s.dir), e.Dir), Listen: e.Address,
		Copies: min(s.config.Nodes, 3), Groups: max(s.config.Groups, 1), LogLevel: s.opt.LogLevel, LogFormat: "text",
	}
	for _, p := range s.config.Of(Metaserver) {
		c.Peers = append(c.Peers, Peer{ID: p.ID, Address: p.Address})
	}
	return c
}

// setPid records that v runs as pid, or ended (0) in the way that last tells.
func (s *Supervisor) setPid(v *server, pid int, last string) {
	s.mu.Lock()
	if pid != 0 && v.last != "" {
		v.restarts++
	}
	v.pid = pid
	if last != "" {
		v.last = last
	}
	s.mu.Unlock()
	var err error
	if pid == 0 {
		err = os.Remove(s.dir.PidFile(v.Entry))
	} else {
		err = os.WriteFile(s.dir.PidFile(v.Entry), []byte(fmt.Sprintln(pid)), 0o600)
	}
	if err != nil { // the file is for people only
		s.log.Printf("pid file of %s: %v", v.Name(), err)
	}
}
