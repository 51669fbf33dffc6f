package core

import (
	"sort"

	"agentdrive/metaserver/meta"
)

// Pins lists what the core believes to be pinned by a session, ascending; nil
// when it does not know the session. For tests and simulators.
func (s *Server) Pins(id meta.SessionID) []meta.Pin {
	se := s.sessions[id]
	if se == nil {
		return nil
	}
	var list []meta.Pin
	for ino, n := range se.pins {
		if n > 0 {
			list = append(list, meta.Pin{Ino: ino, Count: n})
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Ino < list[j].Ino })
	return list
}
