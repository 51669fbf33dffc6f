package core

import (
	"fmt"
	"sort"

	"agentdrive/metaserver/meta"
)

// CheckInvariants looks for what must never be between two steps; nil when all
// is well. For tests and simulators: it costs as much as there are leases.
func (s *Server) CheckInvariants() error {
	for _, id := range s.order {
		if err := s.sessions[id].check(); err != nil {
			return err
		}
	}
	ids := make([]meta.DriveID, 0, len(s.drives))
	for id := range s.drives {
		ids = append(ids, id)
	}
	sort.Slice(ids, func(i, j int) bool { return ids[i] < ids[j] })
	for _, id := range ids {
		if err := s.drives[id].check(); err != nil {
			return fmt.Errorf("drive %d: %w", id, err)
		}
	}
	if len(s.ready) > 0 {
		return fmt.Errorf("%d pieces of work are ready and not done", len(s.ready))
	}
	return nil
}

func (se *session) check() error {
	writes := 0
	for ino, n := range se.leases {
		h := n.find(se)
		switch {
		case h == nil:
			return fmt.Errorf("session %d has inode %d among its leases, not among its holders", se.ID, ino)
		case h.kind == meta.LeaseNone || h.may > h.kind:
			return fmt.Errorf("session %d holds inode %d as %d and may log as %d", se.ID, ino, h.kind, h.may)
		case h.kind == meta.LeaseWrite:
			writes++
		}
		if h.kind == meta.LeaseWrite && se.ReadOnly {
			return fmt.Errorf("read-only session %d holds inode %d for writing", se.ID, ino)
		}
	}
	if writes != se.writes {
		return fmt.Errorf("session %d holds %d inodes for writing, counted %d", se.ID, writes, se.writes)
	}
	owing := map[meta.Ino]int{}
	for _, r := range se.recalls {
		for _, it := range r.items {
			if lowers(it.mode) {
				owing[it.ino]++
			}
		}
		if r.acked && r.seq <= se.LastLogSeq {
			return fmt.Errorf("session %d: recall %d was answered and is not over", se.ID, r.id)
		}
	}
	for ino, n := range se.owing {
		if owing[ino] != n {
			return fmt.Errorf("session %d owes %d answers about inode %d, counted %d", se.ID, owing[ino], ino, n)
		}
	}
	if len(owing) != len(se.owing) {
		return fmt.Errorf("session %d owes answers about %d inodes, counted %d", se.ID, len(owing), len(se.owing))
	}
	return nil
}

func (d *drive) check() error {
	for ino, n := range d.nodes {
		if len(n.holders) == 0 {
			return fmt.Errorf("inode %d is kept without a holder", ino)
		}
		for i := range n.holders {
			h := &n.holders[i]
			if h.kind == meta.LeaseWrite && len(n.holders) > 1 {
				return fmt.Errorf("session %d holds inode %d for writing beside %d others", h.se.ID, ino, len(n.holders)-1)
			}
			if h.se.ended || h.se.leases[ino] != n {
				return fmt.Errorf("session %d holds inode %d and does not know", h.se.ID, ino)
			}
			if i > 0 && n.holders[i-1].se.ID >= h.se.ID {
				return fmt.Errorf("holders of inode %d are out of order", ino)
			}
		}
	}
	holding, writing, undeclared := 0, 0, 0
	for _, se := range d.sessions {
		if len(se.leases) > 0 {
			holding++
		}
		if se.writes > 0 {
			writing++
		}
		if !se.declared {
			undeclared++
		}
	}
	if holding != d.holding || writing != d.writing || undeclared != d.undeclared {
		return fmt.Errorf("%d sessions hold leases, %d for writing, %d undeclared; counted %d, %d, %d",
			holding, writing, undeclared, d.holding, d.writing, d.undeclared)
	}
	for k, g := range d.gates {
		if !g.busy() {
			return fmt.Errorf("the gate of inode %d, name %q stands open and is kept (%d wait)", k.ino, k.name, len(g.queue))
		}
		if g.count[gateAlone] > 1 || g.count[gateAlone] == 1 && g.count[gateShared]+g.count[gateOwn] > 0 {
			return fmt.Errorf("the gate of inode %d, name %q is held alone by several", k.ino, k.name)
		}
	}
	if d.undeclared == 0 && len(d.parked) > 0 {
		return fmt.Errorf("%d operations wait for declarations that are all there", len(d.parked))
	}
	return nil
}
