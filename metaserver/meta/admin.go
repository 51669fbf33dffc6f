package meta

import "agentdrive/chunkserver/chunk"

// The calls of the service Admin, as JSON: they are few, seldom, and read by
// people too. Unknown fields are ignored, so that either side may be newer.

// AdminService is the gRPC name of the service; its methods follow.
const (
	AdminService   = "agentdrive.meta.v1.Admin"
	CallHello      = "Hello"      // Empty -> HelloReply; any server
	CallMap        = "Map"        // MapCall -> MapReply; any server, from its own copy
	CallRegister   = "Register"   // RegisterCall -> MapReply; leader of group 0
	CallDrives     = "Drives"     // Empty -> DrivesReply; leader of group 0
	CallFindDrive  = "FindDrive"  // DriveCall -> DriveInfo; leader of group 0
	CallCreate     = "Create"     // DriveCall -> DriveInfo; leader of group 0
	CallDelete     = "Delete"     // DriveCall -> Empty; leader of group 0
	CallInitDrive  = "InitDrive"  // GroupDriveCall -> Empty; leader of the group
	CallDropDrive  = "DropDrive"  // GroupDriveCall -> Empty; leader of the group
	CallServer     = "Server"     // Empty -> ServerReply; any server
	CallGroup      = "Group"      // GroupCall -> GroupReply; leader of the group
	CallEndSession = "EndSession" // EndSessionCall -> Empty; leader of the group
	CallSetQuota   = "SetQuota"   // QuotaCall -> Empty; leader of the group
)

// Empty is a call or reply without content.
type Empty struct{}

// HelloReply tells who answers.
type HelloReply struct {
	Cluster string // hex
	Server  uint32
	Version string
	Groups  []uint32
}

// ServerInfo names a server of either role.
type ServerInfo struct {
	ID      chunk.ServerID
	Address string
	Host    string `json:",omitempty"`
	Rack    string `json:",omitempty"`
	Zone    string `json:",omitempty"`
}

// MapReply is the cluster map: who keeps metadata, who keeps blocks, and how
// many copies there must be.
type MapReply struct {
	Cluster      string // hex
	Version      uint64
	Copies       int
	Quorum       int
	MinCopies    int
	Groups       int
	PGs          uint32
	MetaServers  []ServerInfo
	ChunkServers []ServerInfo
	// Placements are the sets of chunk servers by placement epoch, oldest
	// first.
	Placements []PlacementInfo
}

// PlacementInfo is the set of chunk servers of a placement epoch, with the
// failure domains that they had when it began; addresses are in ChunkServers.
type PlacementInfo struct {
	Epoch   uint64
	Servers []ServerInfo
}

// MapCall asks for the cluster map.
type MapCall struct {
	// Fresh: as of now, by the leader of group 0. Otherwise any server answers
	// from its own copy, which may be behind.
	Fresh bool `json:",omitempty"`
}

// RegisterCall announces a chunk server.
type RegisterCall struct {
	Cluster string
	Server  ServerInfo
}

// DriveCall names a drive.
type DriveCall struct {
	Name        string
	Group       uint32 `json:",omitempty"` // Create: 0 = choose
	IfNotExists bool   `json:",omitempty"` // Create
	Force       bool   `json:",omitempty"` // Delete
}

// GroupDriveCall names a drive inside its group.
type GroupDriveCall struct {
	Group uint32
	Drive DriveID
	Name  string
	Force bool `json:",omitempty"`
}

// GroupCall names a group.
type GroupCall struct{ Group uint32 }

// EndSessionCall names a session.
type EndSessionCall struct {
	Group   uint32
	Session SessionID
}

// QuotaCall changes the limits of a drive; one that is absent stays.
type QuotaCall struct {
	Group    uint32
	Drive    DriveID
	MaxBytes *uint64 `json:",omitempty"` // 0 = no limit
	MaxFiles *uint64 `json:",omitempty"` // 0 = no limit
}

// DriveInfo describes a drive.
type DriveInfo struct {
	ID      DriveID
	Name    string
	Group   uint32
	Created int64 // Unix nanoseconds
}

// DrivesReply lists drives by name.
type DrivesReply struct{ Drives []DriveInfo }

// ServerReply is a metadata server's view of itself.
type ServerReply struct {
	Server  uint32
	PID     int
	Version string
	Groups  []GroupState
}

// GroupState is a replica of a group as its server sees it.
type GroupState struct {
	Group   uint32
	State   string // leader, follower, candidate
	Term    uint64
	Leader  uint32 // server id, 0 = unknown
	Applied uint64 // index
	Last    uint64 // index
	Durable uint64 // index up to which the store is durable without the log
}

// GroupReply is a group as its leader sees it.
type GroupReply struct {
	Group    uint32
	Drives   []DriveUse
	Sessions []SessionInfo
	Repair   RepairUse
}

// DriveUse is what a drive takes.
type DriveUse struct {
	ID       DriveID
	Name     string
	Bytes    uint64
	Files    uint64
	MaxBytes uint64 `json:",omitempty"` // quota; 0 = no limit
	MaxFiles uint64 `json:",omitempty"`
	Dropping bool
}

// SessionInfo describes a mount.
type SessionInfo struct {
	ID       SessionID
	Drive    DriveID
	Path     string
	ReadOnly bool
	Client   ClientInfo
	Opened   int64 // Unix nanoseconds
}

// RepairUse counts copies that are missing.
type RepairUse struct {
	Blocks uint64
	Bytes  uint64
}
