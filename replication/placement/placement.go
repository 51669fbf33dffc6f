// Package placement says which chunk servers keep a block.
//
// A block belongs to one of a fixed number of placement groups by its id. The
// members of a group under a placement epoch are a pure function of the set of
// servers of that epoch: rendezvous hashing (Thaler and Ravishankar), spread
// over failure domains. An epoch begins whenever the set of servers changes;
// earlier sets are kept, because blocks written under them stay where they
// are until they are moved on purpose.
package placement

import (
	"encoding/binary"
	"sort"

	"agentdrive/chunkserver/chunk"
)

// Server is a chunk server with its failure domains.
type Server struct {
	ID               chunk.ServerID
	Host, Rack, Zone string
}

// Group returns the placement group of a block among n.
func Group(id chunk.BlockID, n uint32) uint32 {
	return uint32(binary.BigEndian.Uint64(id[:8]) % uint64(max(n, 1)))
}

// Members returns up to copies servers of a placement group, best first: those
// with the highest weight for the group, no two in the same zone, rack or host
// as long as that can be. The order of servers does not matter.
func Members(group uint32, servers []Server, copies int) []chunk.ServerID {
	ranked := append([]Server(nil), servers...)
	sort.Slice(ranked, func(i, j int) bool {
		wi, wj := weight(group, ranked[i].ID), weight(group, ranked[j].ID)
		if wi != wj {
			return wi > wj
		}
		return ranked[i].ID < ranked[j].ID
	})
	var out []chunk.ServerID
	taken := make([]bool, len(ranked))
	// The strictest rule first; each pass takes what the one before left.
	for _, domain := range []func(Server) string{
		func(s Server) string { return s.Zone },
		func(s Server) string { return s.Rack },
		func(s Server) string { return s.Host },
		nil,
	} {
		used := map[string]bool{}
		if domain != nil {
			for i, s := range ranked {
				if taken[i] {
					used[domain(s)] = true
				}
			}
		}
		for i, s := range ranked {
			if len(out) == copies {
				return out
			}
			if taken[i] || (domain != nil && (domain(s) == "" || used[domain(s)])) {
				continue
			}
			taken[i] = true
			out = append(out, s.ID)
			if domain != nil {
				used[domain(s)] = true
			}
		}
	}
	return out
}

// weight is the finalizer of MurmurHash3 over group and server.
func weight(group uint32, id chunk.ServerID) uint64 {
	h := uint64(group)<<32 | uint64(id)
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return h
}
