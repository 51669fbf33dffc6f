package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"agentdrive/cmd/internal/procfs"
	"agentdrive/internal/errs"
)

// Roles of servers.
const (
	Metaserver  = "metaserver"
	Chunkserver = "chunkserver"
)

// MaxNodes bounds --nodes: more than this on one machine is a mistake.
const MaxNodes = 9

// MaxGroups bounds the drive groups of a cluster: each costs a log, a store and
// heartbeats on every metaserver.
const MaxGroups = 64

const configVersion = 1

// Ports are chosen below the kernel's default ephemeral range, so that no
// outgoing connection takes one while the cluster is down.
const (
	firstPort = 20000
	lastPort  = 32000
)

// Config is the content of cluster.json.
type Config struct {
	Version int     `json:"version"`
	Cluster string  `json:"cluster"` // id: 16 bytes in hex
	Nodes   int     `json:"nodes"`
	Groups  int     `json:"groups,omitempty"` // Raft groups that hold drives; 0: one
	Servers []Entry `json:"servers"`
}

// Entry is one server of a Config.
type Entry struct {
	Role    string `json:"role"`
	ID      uint32 `json:"id"`      // from 1 in each role
	Dir     string `json:"dir"`     // relative to the data directory
	Address string `json:"address"` // host:port
}

// Name is the server's name in files and messages, like "metaserver-1".
func (e Entry) Name() string { return e.Role + "-" + strconv.FormatUint(uint64(e.ID), 10) }

// ClusterID decodes the cluster id.
func (c Config) ClusterID() [16]byte {
	var id [16]byte
	_, _ = hex.Decode(id[:], []byte(c.Cluster)) // checked by validate
	return id
}

// Of lists the servers of a role in order of their ids.
func (c Config) Of(role string) []Entry {
	var out []Entry
	for _, e := range c.Servers {
		if e.Role == role {
			out = append(out, e)
		}
	}
	return out
}

// Metaservers lists the addresses of all metaservers.
func (c Config) Metaservers() []string {
	var out []string
	for _, e := range c.Of(Metaserver) {
		out = append(out, e.Address)
	}
	return out
}

// Dir is the path of a data directory.
type Dir string

func (d Dir) join(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

// ConfigFile, Lock, Socket, Logs, Run and Mounts name the parts of the layout.
func (d Dir) ConfigFile() string { return d.join("cluster.json") }

// Lock is the lock file of the supervisor and its servers.
func (d Dir) Lock() string { return d.join("supervisor.lock") }

// Run is the directory of pid files and the control socket.
func (d Dir) Run() string { return d.join("run") }

// Socket is the supervisor's control socket.
func (d Dir) Socket() string { return d.join("run", "up.sock") }

// Logs is the directory of log files.
func (d Dir) Logs() string { return d.join("logs") }

// LogOf is the log file of a server, or of "up".
func (d Dir) LogOf(name string) string { return d.join("logs", name+".log") }

// Mounts is the directory of the mount registry.
func (d Dir) Mounts() string { return d.join("mounts") }

// PidFile is the pid file of a server.
func (d Dir) PidFile(e Entry) string { return d.join("run", e.Name()+".pid") }

// Pid reads the pid of a server; 0 when it does not run. It is for display:
// right after a crash it may be out of date.
func (d Dir) Pid(e Entry) int {
	b, err := os.ReadFile(d.PidFile(e))
	if err != nil {
		return 0
	}
	var pid int
	if _, err := fmt.Sscan(string(b), &pid); err != nil {
		return 0
	}
	if !procfs.Runs(pid) {
		return 0
	}
	return pid
}

// Make creates the directories of the layout.
func (d Dir) Make() error {
	for _, p := range []string{string(d), d.Run(), d.Logs(), d.Mounts()} {
		if err := os.MkdirAll(p, 0o700); err != nil {
			return errs.E("cluster", errs.IO, "", err)
		}
	}
	return nil
}

// Load reads cluster.json. errs.NotExist: no cluster was ever started there.
func Load(d Dir) (Config, error) {
	var c Config
	b, err := os.ReadFile(d.ConfigFile())
	if errors.Is(err, os.ErrNotExist) {
		return c, errs.E("cluster", errs.NotExist, "no cluster in "+string(d), nil).
			WithHint("start one with `agentdrive up`, or name the right directory with --data, or a remote cluster with --servers")
	}
	if err != nil {
		return c, errs.E("cluster", errs.IO, "", err)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, errs.E("cluster", errs.Corrupt, d.ConfigFile(), err)
	}
	if c.Version > configVersion {
		return c, errs.E("cluster", errs.Version, fmt.Sprintf("%s has version %d, this program knows up to %d", d.ConfigFile(), c.Version, configVersion), nil).
			WithHint("use the newer agentdrive that wrote it")
	}
	if why := c.flaw(); why != "" {
		return c, errs.E("cluster", errs.Corrupt, d.ConfigFile()+": "+why, nil).
			WithHint("restore the file from a backup; the servers' directories hold the data, this file only says where they are")
	}
	return c, nil
}

func (c Config) flaw() string {
	id, err := hex.DecodeString(c.Cluster)
	switch {
	case c.Version < 1:
		return "no version"
	case err != nil || len(id) != 16:
		return "cluster id is not 16 bytes in hex"
	case c.Nodes < 1 || len(c.Servers) != 2*c.Nodes:
		return fmt.Sprintf("%d servers for %d nodes", len(c.Servers), c.Nodes)
	}
	seen := map[string]bool{}
	for _, e := range c.Servers {
		_, _, err := net.SplitHostPort(e.Address)
		switch {
		case e.Role != Metaserver && e.Role != Chunkserver:
			return "unknown role " + strconv.Quote(e.Role)
		case e.ID == 0 || seen[e.Name()]:
			return "server id missing or twice: " + e.Name()
		case !filepath.IsLocal(e.Dir):
			return "directory of " + e.Name() + " leaves the data directory"
		case err != nil:
			return "address of " + e.Name() + " is not host:port"
		}
		seen[e.Name()] = true
	}
	return ""
}

// loadOrCreate returns the cluster of d, made for nodes and groups if there is
// none. 0 takes what is there, or one.
func loadOrCreate(d Dir, nodes, groups int) (Config, error) {
	c, err := Load(d)
	if err == nil {
		if err = checkNodes(d, c, nodes); err == nil && groups != 0 && groups != max(c.Groups, 1) {
			err = errs.E("cluster", errs.Refused, fmt.Sprintf("%s was created with --groups %d, not %d", d, max(c.Groups, 1), groups), nil).
				WithHint("start it without --groups, or use another --data directory for a new cluster")
		}
		return c, err
	}
	if !errs.Is(err, errs.NotExist) {
		return c, err
	}
	if c, err = newConfig(max(nodes, 1)); err != nil {
		return c, err
	}
	c.Groups = groups
	return c, c.store(d)
}

func checkNodes(d Dir, c Config, nodes int) error {
	if nodes == 0 || nodes == c.Nodes {
		return nil
	}
	return errs.E("cluster", errs.Refused, fmt.Sprintf("%s was created with --nodes %d, not %d", d, c.Nodes, nodes), nil).
		WithHint(fmt.Sprintf("start it with --nodes %d (or without --nodes), or use another --data directory for a new cluster", c.Nodes))
}

func newConfig(nodes int) (Config, error) {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return Config{}, errs.E("cluster", errs.IO, "random id", err)
	}
	c := Config{Version: configVersion, Cluster: hex.EncodeToString(id[:]), Nodes: nodes}
	ports, err := freePorts(2 * nodes)
	if err != nil {
		return Config{}, err
	}
	for _, role := range []string{Metaserver, Chunkserver} {
		for i := range nodes {
			e := Entry{Role: role, ID: uint32(i + 1), Address: net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))}
			e.Dir = e.Name()
			ports = ports[1:]
			c.Servers = append(c.Servers, e)
		}
	}
	return c, nil
}

// freePorts finds n ports of the loopback interface that nobody listens on.
func freePorts(n int) ([]int, error) {
	var ports []int
	taken := map[int]bool{}
	for try := 0; len(ports) < n; try++ {
		if try > 100*n {
			return nil, errs.E("cluster", errs.Unavailable, fmt.Sprintf("no free port in %d-%d", firstPort, lastPort), nil)
		}
		r, err := rand.Int(rand.Reader, big.NewInt(lastPort-firstPort))
		if err != nil {
			return nil, errs.E("cluster", errs.IO, "random port", err)
		}
		port := firstPort + int(r.Int64())
		if taken[port] {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue // in use
		}
		l.Close()
		taken[port] = true
		ports = append(ports, port)
	}
	return ports, nil
}

func (c Config) store(d Dir) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return errs.E("cluster", errs.Other, "", err)
	}
	return WriteFile(d.ConfigFile(), append(b, '\n'))
}

// WriteFile replaces path atomically and durably: temporary file, fsync,
// rename, fsync of the directory.
func WriteFile(path string, data []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return errs.E("write", errs.IO, "", err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return errs.E("write", errs.IO, path, err)
	}
	df, err := os.Open(dir)
	if err != nil {
		return errs.E("write", errs.IO, "", err)
	}
	defer df.Close()
	if err := df.Sync(); err != nil {
		return errs.E("write", errs.IO, dir, err)
	}
	return nil
}
