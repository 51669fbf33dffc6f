package meta

import (
	"fmt"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/replication/placement"
)

// Members returns the servers that keep blocks of a placement group written
// under an epoch, best first; nil when the map does not know the epoch.
func (m *MapReply) Members(pg uint32, epoch uint64) []chunk.ServerID {
	if epoch == 0 || epoch > uint64(len(m.Placements)) {
		return nil
	}
	var servers []placement.Server
	for _, s := range m.Placements[epoch-1].Servers {
		servers = append(servers, placement.Server{ID: s.ID, Host: s.Host, Rack: s.Rack, Zone: s.Zone})
	}
	return placement.Members(pg, servers, m.Copies)
}

// Place says where a new block goes: its placement group, the newest epoch and
// its members. errs.Unavailable while fewer chunk servers have joined than
// there must be copies.
func (m *MapReply) Place(id chunk.BlockID) (pg uint32, epoch uint64, to []chunk.ServerID, err error) {
	pg = placement.Group(id, m.PGs)
	epoch = uint64(len(m.Placements))
	to = m.Members(pg, epoch)
	if len(to) < m.Copies || m.Copies == 0 {
		err = errs.E("block.place", errs.Unavailable, fmt.Sprintf("%d of %d chunk servers have joined", len(to), m.Copies), nil).
			WithHint("start the missing chunk servers")
	}
	return pg, epoch, to, err
}
