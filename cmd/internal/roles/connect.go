package roles

import (
	"context"

	"agentdrive/cmd/internal/cli"
	"agentdrive/cmd/internal/cluster"
	"agentdrive/cmd/internal/mountd"
	"agentdrive/internal/rpc"
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/metaclient"
)

// connection is a cli.Cluster.
type connection struct {
	version string
	mc      *metaclient.Client
}

// Connect returns a client of the cluster whose metadata servers listen on
// servers.
func Connect(version string, servers []string) (cli.Cluster, error) {
	mc, err := metaclient.New(metaclient.Config{Servers: servers, Network: rpc.TCP{}})
	if err != nil {
		return nil, err
	}
	return &connection{version, mc}, nil
}

// Close implements cli.Cluster.
func (c *connection) Close() error { return c.mc.Close() }

// Status implements cli.Cluster.
func (c *connection) Status(ctx context.Context) (cli.Status, error) {
	v, err := Look(ctx, c.mc)
	if err != nil {
		return cli.Status{}, err
	}
	st := cli.Status{
		Version: c.version, Cluster: v.Map.Cluster, Degraded: v.Degraded(),
		Servers: servers(v), Drives: drives(v), Mounts: mounts(v),
	}
	if st.Degraded == nil {
		st.Degraded = []string{}
	}
	st.Healthy = len(st.Degraded) == 0
	if why := v.Serving(); why == nil {
		st.Serving = true
	} else {
		st.Degraded = append(st.Degraded, why.Error())
	}
	for _, g := range v.Groups {
		if g.Reply != nil {
			st.Repair.Blocks += g.Reply.Repair.Blocks
			st.Repair.Bytes += g.Reply.Repair.Bytes
		}
	}
	return st, nil
}

func servers(v *View) []cli.Server {
	list := []cli.Server{}
	for _, s := range v.Meta {
		srv := cli.Server{Role: cluster.Metaserver, ID: s.ID, Address: s.Address, State: cli.StateDown, Groups: []cli.Group{}}
		if s.Reply != nil {
			srv.State, srv.Pid = cli.StateUp, s.Reply.PID
			for _, g := range s.Reply.Groups {
				leads := g.State == "leader"
				srv.Groups = append(srv.Groups, cli.Group{ID: g.Group, Leader: leads})
				srv.Leader = srv.Leader || leads && g.Group == 1
			}
		}
		list = append(list, srv)
	}
	for _, s := range v.Chunks {
		srv := cli.Server{Role: cluster.Chunkserver, ID: s.ID, Address: s.Address, State: cli.StateDown, Groups: []cli.Group{}}
		if s.Status != nil {
			srv.State = cli.StateUp
		}
		list = append(list, srv)
	}
	return list
}

func drives(v *View) []cli.Drive {
	use := map[meta.DriveID]meta.DriveUse{}
	for _, g := range v.Groups {
		if g.Reply != nil {
			for _, d := range g.Reply.Drives {
				use[d.ID] = d
			}
		}
	}
	list := []cli.Drive{}
	for _, d := range v.Drives {
		u := use[d.ID]
		list = append(list, cli.Drive{
			Name: d.Name, ID: uint64(d.ID), Group: d.Group,
			Bytes: u.Bytes, Files: u.Files, MaxBytes: u.MaxBytes, MaxFiles: u.MaxFiles,
		})
	}
	return list
}

func mounts(v *View) []cli.Mount {
	names := map[meta.DriveID]string{}
	for _, d := range v.Drives {
		names[d.ID] = d.Name
	}
	list := []cli.Mount{}
	for _, g := range v.Groups {
		if g.Reply == nil {
			continue
		}
		for _, s := range g.Reply.Sessions {
			m := cli.Mount{
				Drive: names[s.Drive], Path: s.Path, Dir: s.Client.Dir, Pid: int(s.Client.PID),
				Session: uint64(s.ID), Mode: "rw", State: mountd.StateMounted,
			}
			if s.ReadOnly {
				m.Mode = "ro"
			}
			list = append(list, m)
		}
	}
	return list
}

// CreateDrive implements cli.Cluster.
func (c *connection) CreateDrive(ctx context.Context, name string) (cli.Drive, error) {
	var info meta.DriveInfo
	if err := c.mc.Leader(ctx, 0, meta.CallCreate, &meta.DriveCall{Name: name}, &info); err != nil {
		return cli.Drive{}, err
	}
	return c.Drive(ctx, name)
}

// Drives implements cli.Cluster.
func (c *connection) Drives(ctx context.Context) ([]cli.Drive, error) {
	var r meta.DrivesReply
	if err := c.mc.Leader(ctx, 0, meta.CallDrives, &meta.Empty{}, &r); err != nil {
		return nil, err
	}
	groups := map[uint32]*meta.GroupReply{}
	list := []cli.Drive{}
	for _, d := range r.Drives {
		g := groups[d.Group]
		if g == nil {
			var err error
			if g, err = c.group(ctx, d.Group); err != nil {
				return nil, err
			}
			groups[d.Group] = g
		}
		list = append(list, withUse(d, g))
	}
	return list, nil
}

func (c *connection) group(ctx context.Context, id uint32) (*meta.GroupReply, error) {
	g := new(meta.GroupReply)
	return g, c.mc.Leader(ctx, id, meta.CallGroup, &meta.GroupCall{Group: id}, g)
}

func withUse(d meta.DriveInfo, g *meta.GroupReply) cli.Drive {
	out := cli.Drive{Name: d.Name, ID: uint64(d.ID), Group: d.Group}
	for _, u := range g.Drives {
		if u.ID == d.ID {
			out.Bytes, out.Files = u.Bytes, u.Files
			out.MaxBytes, out.MaxFiles = u.MaxBytes, u.MaxFiles
		}
	}
	return out
}

// Drive implements cli.Cluster.
func (c *connection) Drive(ctx context.Context, name string) (cli.Drive, error) {
	var d meta.DriveInfo
	if err := c.mc.Leader(ctx, 0, meta.CallFindDrive, &meta.DriveCall{Name: name}, &d); err != nil {
		return cli.Drive{}, err
	}
	g, err := c.group(ctx, d.Group)
	if err != nil {
		return cli.Drive{}, err
	}
	return withUse(d, g), nil
}

// SetQuota implements cli.Cluster.
func (c *connection) SetQuota(ctx context.Context, name string, q cli.Quota) (cli.Drive, error) {
	var d meta.DriveInfo
	if err := c.mc.Leader(ctx, 0, meta.CallFindDrive, &meta.DriveCall{Name: name}, &d); err != nil {
		return cli.Drive{}, err
	}
	call := &meta.QuotaCall{Group: d.Group, Drive: d.ID, MaxBytes: q.MaxBytes, MaxFiles: q.MaxFiles}
	if err := c.mc.Leader(ctx, d.Group, meta.CallSetQuota, call, &meta.Empty{}); err != nil {
		return cli.Drive{}, err
	}
	return c.Drive(ctx, name)
}

// DeleteDrive implements cli.Cluster.
func (c *connection) DeleteDrive(ctx context.Context, name string, force bool) error {
	return c.mc.Leader(ctx, 0, meta.CallDelete, &meta.DriveCall{Name: name, Force: force}, &meta.Empty{})
}

// Deps wires the verbs to the servers, the client and the filesystem.
func Deps(version string) cli.Deps {
	return cli.Deps{
		Version: version,
		Connect: func(servers []string) (cli.Cluster, error) { return Connect(version, servers) },
		Run:     Runner{Version: version}.Run,
		Serve:   Runner{Version: version}.Serve,
	}
}
