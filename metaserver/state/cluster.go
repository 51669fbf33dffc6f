package state

import (
	"fmt"
	"strings"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/internal/kv"
	"agentdrive/internal/wire"
	"agentdrive/metaserver/meta"
)

// recordVersion is the version of the records of this package. Version 1 had
// other attributes in recorded replies, and sessions and drives without leases
// and quotas; it was never released and is not read.
const recordVersion = 2

// decode reads a record of this package.
func decode(b []byte, m wire.Message) error {
	return wire.UnmarshalFrom(b, recordVersion, recordVersion, m)
}

// Cluster is the identity and the replication policy of the cluster; group 0.
type Cluster struct {
	ID        [16]byte
	Copies    uint32 // R: copies of a block
	Quorum    uint32 // W: copies durable before a block is published
	MinCopies uint32 // fewer live members than this: writes wait
	Groups    uint32 // drive groups, numbered from 1
	PGs       uint32 // placement groups
}

// Wire codes the fields in order.
func (x *Cluster) Wire(c *wire.Coder) {
	c.Fixed(x.ID[:])
	c.U32(&x.Copies)
	c.U32(&x.Quorum)
	c.U32(&x.MinCopies)
	c.U32(&x.Groups)
	c.U32(&x.PGs)
}

// Server is a chunk server known to the cluster; group 0.
type Server struct {
	ID      chunk.ServerID
	Address string
	Host    string // failure domains
	Rack    string
	Zone    string
}

// Wire codes the fields in order.
func (x *Server) Wire(c *wire.Coder) {
	wire.Uint(c, &x.ID)
	c.String(&x.Address)
	c.String(&x.Host)
	c.String(&x.Rack)
	c.String(&x.Zone)
}

// Drive is a drive's record in group 0.
type Drive struct {
	ID       meta.DriveID
	Name     string
	Group    uint32
	Created  int64 // Unix nanoseconds
	Deleting bool
}

// Wire codes the fields in order.
func (x *Drive) Wire(c *wire.Coder) {
	wire.Uint(c, &x.ID)
	c.String(&x.Name)
	c.U32(&x.Group)
	c.I64(&x.Created)
	c.Bool(&x.Deleting)
}

// InitCluster sets the identity and policy once; later ones are ignored.
// Result: *meta.EmptyResult.
type InitCluster struct {
	Cluster Cluster
}

func (*InitCluster) internalKind() uint8 { return kindInitCluster }

// Wire codes the record.
func (x *InitCluster) Wire(c *wire.Coder) { x.Cluster.Wire(c) }

// PutServer registers a chunk server or changes its address; a new server, or
// one that moved to another failure domain, begins a placement epoch. Result: *meta.EmptyResult.
type PutServer struct {
	Server Server
}

func (*PutServer) internalKind() uint8 { return kindPutServer }

// Wire codes the record.
func (x *PutServer) Wire(c *wire.Coder) { x.Server.Wire(c) }

// CreateDrive reserves a name and chooses the group with the fewest drives.
// Result: *meta.BytesResult with the record (DecodeDrive); errs.Exist with
// the existing one's id in the message when the name is taken.
type CreateDrive struct {
	Name  string
	Group uint32 // 0 = choose
}

func (*CreateDrive) internalKind() uint8 { return kindCreateDrive }

// Wire codes the fields in order.
func (x *CreateDrive) Wire(c *wire.Coder) {
	c.String(&x.Name)
	c.U32(&x.Group)
}

// MarkDrive marks a drive as being deleted, or takes the mark off again.
// Result: *meta.BytesResult with the record.
type MarkDrive struct {
	Name     string
	Deleting bool
}

func (*MarkDrive) internalKind() uint8 { return kindMarkDrive }

// Wire codes the fields in order.
func (x *MarkDrive) Wire(c *wire.Coder) {
	c.String(&x.Name)
	c.Bool(&x.Deleting)
}

// RemoveDrive forgets a drive that is marked and gone from its group. Result:
// *meta.EmptyResult.
type RemoveDrive struct {
	Name string
}

func (*RemoveDrive) internalKind() uint8 { return kindRemoveDrive }

// Wire codes the fields in order.
func (x *RemoveDrive) Wire(c *wire.Coder) { c.String(&x.Name) }

// DecodeDrive reads the record inside a BytesResult.
func DecodeDrive(b []byte) (Drive, error) {
	var d Drive
	err := decode(b, &d)
	return d, err
}

// ClusterMap is what clients and group leaders need to know of group 0.
type ClusterMap struct {
	Cluster Cluster
	Version uint64 // grows with each change
	Servers []Server
	// Placements are the sets of servers of all placement epochs, the newest
	// last: epoch i+1 is Placements[i].
	Placements []Placement
}

// Wire codes the fields in order.
func (x *ClusterMap) Wire(c *wire.Coder) {
	x.Cluster.Wire(c)
	c.U64(&x.Version)
	wire.List(c, &x.Servers, func(c *wire.Coder, s *Server) { s.Wire(c) })
	wire.List(c, &x.Placements, func(c *wire.Coder, p *Placement) { p.Wire(c) })
}

// Placement is the set of chunk servers of one placement epoch, with the
// failure domains that they had then: where a block is follows from them, so
// they must not change under the blocks of the epoch.
type Placement struct {
	Epoch   uint64
	Servers []Server // ascending by id, without addresses
}

// Wire codes the fields in order.
func (x *Placement) Wire(c *wire.Coder) {
	c.U64(&x.Epoch)
	wire.List(c, &x.Servers, func(c *wire.Coder, s *Server) { s.Wire(c) })
}

// ReadMap reads the map; ok is false before InitCluster.
func ReadMap(v kv.View) (m ClusterMap, ok bool, err error) {
	if ok, err = load(v, keyCluster(), &m.Cluster); err != nil || !ok {
		return m, ok, err
	}
	if m.Version, err = loadCounter(v, keyMapVersion()); err != nil {
		return m, false, err
	}
	if m.Servers, err = servers(v); err != nil {
		return m, false, err
	}
	err = scanRecords(v, prefix(spacePlacement), func(p *Placement) bool {
		m.Placements = append(m.Placements, *p)
		return true
	})
	return m, err == nil, err
}

func servers(v kv.View) ([]Server, error) {
	var list []Server
	err := scanRecords(v, prefix(spaceServer), func(s *Server) bool {
		list = append(list, *s)
		return true
	})
	return list, err
}

// Drives lists the drives of the cluster by name.
func Drives(v kv.View) ([]Drive, error) {
	var list []Drive
	err := scanRecords(v, prefix(spaceDriveName), func(d *Drive) bool {
		list = append(list, *d)
		return true
	})
	return list, err
}

// FindDrive reads a drive by name; errs.NotExist if there is none.
func FindDrive(v kv.View, name string) (Drive, error) {
	var d Drive
	ok, err := load(v, keyDriveName(name), &d)
	if err != nil {
		return d, err
	}
	if !ok {
		return d, errs.E("drive.find", errs.NotExist, fmt.Sprintf("no drive %q", name), nil).
			WithHint("list the drives with: agentdrive drive list")
	}
	return d, nil
}

// MaxDriveName is the longest drive name in bytes.
const MaxDriveName = 63

// CheckDriveName says whether name can name a drive: lower-case letters,
// digits and inner hyphens, at most MaxDriveName bytes, as in DNS labels.
func CheckDriveName(name string) error {
	bad := name == "" || len(name) > MaxDriveName || strings.HasPrefix(name, "-") || strings.HasSuffix(name, "-")
	for _, r := range name {
		if !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-') {
			bad = true
		}
	}
	if bad {
		kind := errs.Invalid
		if len(name) > MaxDriveName {
			kind, name = errs.NameTooLong, name[:MaxDriveName]+"..."
		}
		return errs.E("drive.name", kind, fmt.Sprintf("%q cannot name a drive", name), nil).
			WithHint(fmt.Sprintf("use 1 to %d lower-case letters, digits and inner hyphens", MaxDriveName))
	}
	return nil
}

func (m *Machine) applyCluster(tx kv.Tx, now int64, op Internal) (meta.Result, error) {
	switch op := op.(type) {
	case *InitCluster:
		if ok, err := load(tx, keyCluster(), new(Cluster)); err != nil || ok {
			return &meta.EmptyResult{}, err
		}
		store(tx, keyCluster(), &op.Cluster)
		return &meta.EmptyResult{}, nil
	case *PutServer:
		return m.putServer(tx, op)
	case *CreateDrive:
		return m.createDrive(tx, now, op)
	case *MarkDrive:
		d, err := FindDrive(tx, op.Name)
		if err != nil {
			return nil, err
		}
		d.Deleting = op.Deleting
		store(tx, keyDriveName(d.Name), &d)
		return &meta.BytesResult{Data: wire.Marshal(nil, recordVersion, &d)}, nil
	case *RemoveDrive:
		d, err := FindDrive(tx, op.Name)
		if errs.Is(err, errs.NotExist) {
			return &meta.EmptyResult{}, nil
		}
		if err != nil {
			return nil, err
		}
		if !d.Deleting {
			return nil, errs.E("drive.remove", errs.Busy, fmt.Sprintf("drive %q is not being deleted", d.Name), nil)
		}
		tx.Delete(keyDriveName(d.Name))
		return &meta.EmptyResult{}, nil
	}
	return nil, errs.E("state.apply", errs.Unsupported, "operation not known to the cluster group", nil)
}

func (m *Machine) putServer(tx kv.Tx, op *PutServer) (meta.Result, error) {
	var old Server
	ok, err := load(tx, keyServer(op.Server.ID), &old)
	if err != nil {
		return nil, err
	}
	if op.Server.ID == 0 || op.Server.Address == "" {
		return nil, errs.E("server.register", errs.Invalid, "a server needs an id above 0 and an address", nil)
	}
	if ok && old == op.Server {
		return &meta.EmptyResult{}, nil
	}
	version, err := loadCounter(tx, keyMapVersion())
	if err != nil {
		return nil, err
	}
	store(tx, keyServer(op.Server.ID), &op.Server)
	storeCounter(tx, keyMapVersion(), version+1)
	if old.Address = op.Server.Address; ok && old == op.Server {
		return &meta.EmptyResult{}, nil // same servers in the same domains: same placement
	}
	return &meta.EmptyResult{}, newPlacement(tx)
}

// newPlacement begins a placement epoch with the servers there are.
func newPlacement(tx kv.Tx) error {
	epoch, err := loadCounter(tx, keyPlacementEpoch())
	if err != nil {
		return err
	}
	all, err := servers(tx)
	if err != nil {
		return err
	}
	p := Placement{Epoch: epoch + 1}
	for _, s := range all {
		s.Address = ""
		p.Servers = append(p.Servers, s)
	}
	store(tx, keyPlacement(p.Epoch), &p)
	storeCounter(tx, keyPlacementEpoch(), p.Epoch)
	return nil
}

func (m *Machine) createDrive(tx kv.Tx, now int64, op *CreateDrive) (meta.Result, error) {
	if err := CheckDriveName(op.Name); err != nil {
		return nil, err
	}
	var cl Cluster
	ok, err := load(tx, keyCluster(), &cl)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errs.E("drive.create", errs.Unavailable, "the cluster is still forming", nil)
	}
	if old, err := FindDrive(tx, op.Name); err == nil {
		return nil, errs.E("drive.create", errs.Exist, fmt.Sprintf("drive %q exists (id %d)", op.Name, old.ID), nil).
			WithHint("use --if-not-exists to accept it")
	} else if !errs.Is(err, errs.NotExist) {
		return nil, err
	}
	group := op.Group
	if group == 0 {
		if group, err = leastUsedGroup(tx, cl.Groups); err != nil {
			return nil, err
		}
	}
	if group > cl.Groups {
		return nil, errs.E("drive.create", errs.Invalid, fmt.Sprintf("no group %d, there are %d", group, cl.Groups), nil)
	}
	last, err := loadCounter(tx, keyLastDrive())
	if err != nil {
		return nil, err
	}
	d := Drive{ID: meta.DriveID(last + 1), Name: op.Name, Group: group, Created: now}
	storeCounter(tx, keyLastDrive(), last+1)
	store(tx, keyDriveName(d.Name), &d)
	return &meta.BytesResult{Data: wire.Marshal(nil, recordVersion, &d)}, nil
}

func leastUsedGroup(v kv.View, groups uint32) (uint32, error) {
	drives, err := Drives(v)
	if err != nil {
		return 0, err
	}
	used := make([]int, groups+1)
	for _, d := range drives {
		if d.Group <= groups {
			used[d.Group]++
		}
	}
	best := uint32(1)
	for g := uint32(2); g <= groups; g++ {
		if used[g] < used[best] {
			best = g
		}
	}
	return best, nil
}
