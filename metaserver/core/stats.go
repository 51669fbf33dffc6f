package core

import "agentdrive/metaserver/meta"

// Stats counts what the leases of a reign cost and give. Counters grow from
// the start of the process; the gauges at the end are of the moment.
type Stats struct {
	Grants        [3]uint64 // by meta.LeaseKind; 0: answers that could have been granted and were not
	Recalls       [7]uint64 // items by meta.RecallMode
	RecallsDone   uint64    // frames answered and effective
	RecallTime    Time      // sum over RecallsDone, from sending until effective
	RecallLongest Time
	Evictions     uint64 // sessions ended for recalls without an answer, or wrong claims
	Contended     uint64 // directories that became contended, files that lost Write for a while
	GateWaits     uint64 // operations that queued at a gate
	Looks         uint64 // reads of what an operation touches
	ReadRepeats   uint64 // reads executed again behind a recall
	Acquires      uint64
	LockWaits     uint64 // SetLocks that had to wait
	Standstills   uint64 // of this process, while it led; see pass
	Refused       uint64 // wants of Acquires without a grant

	Sessions uint64 // open
	Holders  uint64 // leases held
	Pending  uint64 // recalls without an effective answer
}

// Stats gives the counters and gauges of the moment.
func (s *Server) Stats() Stats {
	st := s.stats
	st.Sessions = uint64(len(s.order))
	for _, id := range s.order {
		st.Holders += uint64(len(s.sessions[id].leases))
		st.Pending += uint64(len(s.sessions[id].recalls))
	}
	return st
}

// Lease tells what a session holds on an inode, as others have to respect it.
// For tests and simulators.
func (s *Server) Lease(id meta.SessionID, ino meta.Ino) meta.LeaseKind {
	if se := s.sessions[id]; se != nil {
		return se.drive.kindOf(ino, se)
	}
	return meta.LeaseNone
}
