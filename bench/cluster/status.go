package cluster

import (
	"encoding/json"
	"slices"
)

// Status is what `status --json` prints.
type Status struct {
	Version  string   `json:"version"`
	Healthy  bool     `json:"healthy"`
	Serving  bool     `json:"serving"`
	Degraded []string `json:"degraded"`
	Servers  []Server `json:"servers"`
	Drives   []Drive  `json:"drives"`
	Mounts   []Mount  `json:"mounts"`
	Repair   Repair   `json:"repair"`
}

// Server is one server of a Status.
type Server struct {
	Role    string  `json:"role"`
	ID      uint32  `json:"id"`
	Pid     int     `json:"pid"`
	Address string  `json:"address"`
	State   string  `json:"state"`
	Leader  bool    `json:"leader"` // leads the drives' group
	Groups  []Group `json:"groups"`
}

// Group is a metaserver's part in one Raft group.
type Group struct {
	ID     uint32 `json:"id"`
	Leader bool   `json:"leader"`
}

// Drive is one drive of a Status.
type Drive struct {
	Name  string `json:"name"`
	ID    uint64 `json:"id"`
	Group uint32 `json:"group"`
	Bytes uint64 `json:"bytes"`
	Files uint64 `json:"files"`
}

// Mount is one mount of a Status.
type Mount struct {
	Drive string `json:"drive"`
	Path  string `json:"path"`
	Dir   string `json:"dir"`
	Pid   int    `json:"pid"`
	Mode  string `json:"mode"`
	State string `json:"state"`
}

// Repair is the repair list of a Status.
type Repair struct {
	Blocks uint64 `json:"blocks"`
	Bytes  uint64 `json:"bytes"`
}

// Roles of servers.
const (
	Meta  = "metaserver"
	Chunk = "chunkserver"
)

// Status asks for the state of the cluster; the test ends when there is no
// answer that can be read. A degraded cluster is an answer.
func (c *Cluster) Status() Status {
	c.t.Helper()
	r := c.Run("status", "--json")
	var st Status
	if err := json.Unmarshal([]byte(r.Stdout), &st); err != nil {
		c.t.Fatalf("status --json: %v\n%v", err, r)
	}
	return st
}

// Servers returns the servers of one role by id, as status lists them.
func (st Status) ByRole(role string) []Server {
	var out []Server
	for _, s := range st.Servers {
		if s.Role == role {
			out = append(out, s)
		}
	}
	return out
}

// Server returns one server as status shows it.
func (c *Cluster) Server(role string, id uint32) Server {
	c.t.Helper()
	for _, s := range c.Status().Servers {
		if s.Role == role && s.ID == id {
			return s
		}
	}
	c.t.Fatalf("status shows no %s-%d", role, id)
	return Server{}
}

// Leader returns the metaserver that leads the drives' group, waiting until
// there is one.
func (c *Cluster) Leader() Server {
	c.t.Helper()
	return c.metaserver("a leader of the drives' group", func(s Server) bool { return s.Leader })
}

// LeaderOf returns the metaserver that leads a group, waiting until there is
// one.
func (c *Cluster) LeaderOf(group uint32) Server {
	c.t.Helper()
	return c.metaserver("a leader of the group", func(s Server) bool { return slices.Contains(s.Groups, Group{group, true}) })
}

// Follower returns a live metaserver that does not lead.
func (c *Cluster) Follower() Server {
	c.t.Helper()
	return c.metaserver("a follower", func(s Server) bool { return !s.Leader })
}

func (c *Cluster) metaserver(what string, ok func(Server) bool) Server {
	c.t.Helper()
	var found Server
	c.Eventually(what, func() bool {
		for _, s := range c.Status().ByRole(Meta) {
			if s.State == "up" && s.Pid != 0 && ok(s) {
				found = s
				return true
			}
		}
		return false
	})
	return found
}
