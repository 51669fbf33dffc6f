package cli

import (
	"context"

	"agentdrive/cmd/internal/cluster"
	"agentdrive/cmd/internal/mountd"
)

// Deps is what the verbs stand on; main supplies it.
type Deps struct {
	Version string
	// Connect returns a client of the cluster whose metaservers listen on
	// servers. It need not reach any of them.
	Connect func(servers []string) (Cluster, error)
	Run     cluster.RunFunc  // runs a server
	Serve   mountd.ServeFunc // mounts and serves a drive
}

// Cluster is a client of a cluster. Calls wait for servers until ctx ends:
// errs.Unavailable or errs.Timeout. Safe for concurrent use.
type Cluster interface {
	// Status describes the cluster as far as it answers; servers that do not
	// are listed as StateDown. errs.Unavailable: none answers. Pids and mounts
	// of this host may be left out.
	Status(ctx context.Context) (Status, error)
	// CreateDrive makes a drive. errs.Exist, errs.NameTooLong, errs.Invalid.
	CreateDrive(ctx context.Context, name string) (Drive, error)
	// Drives lists all drives by name.
	Drives(ctx context.Context) ([]Drive, error)
	// Drive returns one drive. errs.NotExist.
	Drive(ctx context.Context, name string) (Drive, error)
	// SetQuota changes the limits of a drive. errs.NotExist.
	SetQuota(ctx context.Context, name string, q Quota) (Drive, error)
	// DeleteDrive removes a drive. errs.NotExist; errs.Busy while it is
	// mounted, unless force.
	DeleteDrive(ctx context.Context, name string, force bool) error
	// Close frees the connections.
	Close() error
}

// States of a server.
const (
	StateUp   = "up"
	StateDown = "down"
)

// Status is the answer of `status --json`. Keys are added, never renamed.
type Status struct {
	Version  string   `json:"version"`
	Cluster  string   `json:"cluster"`  // id in hex
	Healthy  bool     `json:"healthy"`  // all servers up, every group led, repair list empty
	Serving  bool     `json:"serving"`  // majorities live
	Degraded []string `json:"degraded"` // reasons for not being healthy
	Servers  []Server `json:"servers"`
	Drives   []Drive  `json:"drives"`
	Mounts   []Mount  `json:"mounts"`
	Repair   Repair   `json:"repair"`
}

// Server is one server of a Status.
type Server struct {
	Role    string  `json:"role"` // metaserver or chunkserver
	ID      uint32  `json:"id"`
	Pid     int     `json:"pid"`
	Address string  `json:"address"`
	State   string  `json:"state"`  // StateUp, StateDown, or a phase between
	Leader  bool    `json:"leader"` // leads the drives' group
	Groups  []Group `json:"groups"` // Raft groups that it serves
}

// Group is a server's part in one Raft group.
type Group struct {
	ID     uint32 `json:"id"`     // 0 is the cluster's own, 1 and on hold drives
	Leader bool   `json:"leader"` // this server leads it
}

// Drive is one drive.
type Drive struct {
	Name  string `json:"name"`
	ID    uint64 `json:"id"`
	Group uint32 `json:"group"`
	Bytes uint64 `json:"bytes"`
	Files uint64 `json:"files"`
	// Limits of Bytes and Files; 0: there is none.
	MaxBytes uint64 `json:"max_bytes"`
	MaxFiles uint64 `json:"max_files"`
}

// Quota is a change of limits: 0 takes one away, nil leaves it.
type Quota struct{ MaxBytes, MaxFiles *uint64 }

// Mount is one mount, as the servers' session or this host's registry knows
// it.
type Mount struct {
	Drive   string `json:"drive"`
	Path    string `json:"path"`
	Dir     string `json:"dir"`
	Pid     int    `json:"pid"`
	Session uint64 `json:"session"`
	Mode    string `json:"mode"`  // ro or rw
	State   string `json:"state"` // mountd's states
	Why     string `json:"why,omitempty"`
}

// Repair is the repair list.
type Repair struct {
	Blocks uint64 `json:"blocks"`
	Bytes  uint64 `json:"bytes"`
}
