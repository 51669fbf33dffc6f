package placement

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"agentdrive/chunkserver/chunk"
)

const groups = 4096

func servers(n int) (list []Server) {
	for i := 1; i <= n; i++ {
		list = append(list, Server{ID: chunk.ServerID(i), Host: fmt.Sprint("h", i)})
	}
	return list
}

// Each server gets its share of the groups, as a member and as the best one.
func TestSharesAreEven(t *testing.T) {
	for _, n := range []int{3, 5, 12} {
		all, first := map[chunk.ServerID]int{}, map[chunk.ServerID]int{}
		for g := range uint32(groups) {
			m := Members(g, servers(n), 3)
			if len(m) != 3 || m[0] == m[1] || m[0] == m[2] || m[1] == m[2] {
				t.Fatalf("group %d of %d servers: %v", g, n, m)
			}
			first[m[0]]++
			for _, id := range m {
				all[id]++
			}
		}
		for id := chunk.ServerID(1); id <= chunk.ServerID(n); id++ {
			checkShare(t, fmt.Sprintf("%d servers: groups of %d", n, id), all[id], 3*groups/n)
			checkShare(t, fmt.Sprintf("%d servers: groups led by %d", n, id), first[id], groups/n)
		}
	}
}

func checkShare(t *testing.T, what string, got, want int) {
	t.Helper()
	if got < want*8/10 || got > want*12/10 {
		t.Errorf("%s: %d, the even share is %d", what, got, want)
	}
}

// A new server takes groups over; nothing moves between the others.
func TestNewServerMovesOnlyToItself(t *testing.T) {
	moved := 0
	for g := range uint32(groups) {
		before, after := Members(g, servers(6), 3), Members(g, servers(7), 3)
		for _, id := range after {
			if id != 7 && !slices.Contains(before, id) {
				t.Fatalf("group %d: %v became %v", g, before, after)
			}
		}
		if slices.Contains(after, 7) {
			moved++
		}
	}
	checkShare(t, "groups of the new server", moved, 3*groups/7)
}

func TestOrderOfServersDoesNotMatter(t *testing.T) {
	const seed = 1
	r := rand.New(rand.NewPCG(seed, seed))
	list := servers(9)
	for g := range uint32(64) {
		want := Members(g, list, 3)
		mixed := slices.Clone(list)
		r.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
		given := slices.Clone(mixed)
		if got := Members(g, mixed, 3); !slices.Equal(got, want) {
			t.Fatalf("seed %d, group %d: %v, want %v", seed, g, got, want)
		}
		if !slices.Equal(mixed, given) {
			t.Fatal("Members changed its argument")
		}
	}
}

func TestDomains(t *testing.T) {
	for _, c := range []struct {
		name    string
		servers []Server
		copies  int
		domain  func(Server) string
		want    int // different domains among the members
		members int
	}{
		{"three zones", []Server{
			{1, "a", "r1", "z1"}, {2, "b", "r1", "z1"}, {3, "c", "r2", "z2"}, {4, "d", "r2", "z2"}, {5, "e", "r3", "z3"}, {6, "f", "r3", "z3"},
		}, 3, func(s Server) string { return s.Zone }, 3, 3},
		{"two zones, then racks", []Server{
			{1, "a", "r1", "z1"}, {2, "b", "r2", "z1"}, {3, "c", "r3", "z2"}, {4, "d", "r4", "z2"},
		}, 3, func(s Server) string { return s.Rack }, 3, 3},
		{"hosts alone", []Server{
			{1, "a", "", ""}, {2, "a", "", ""}, {3, "b", "", ""}, {4, "b", "", ""}, {5, "c", "", ""},
		}, 3, func(s Server) string { return s.Host }, 3, 3},
		{"one host", []Server{{1, "a", "", ""}, {2, "a", "", ""}, {3, "a", "", ""}}, 3, func(s Server) string { return s.Host }, 1, 3},
		{"none named", []Server{{ID: 1}, {ID: 2}, {ID: 3}, {ID: 4}}, 3, func(s Server) string { return s.Host }, 1, 3},
		{"too few", []Server{{ID: 1}, {ID: 2}}, 3, func(s Server) string { return s.Host }, 1, 2},
		{"no server", nil, 3, func(s Server) string { return s.Host }, 0, 0},
		{"no copy", []Server{{ID: 1}}, 0, func(s Server) string { return s.Host }, 0, 0},
	} {
		by := map[chunk.ServerID]Server{}
		for _, s := range c.servers {
			by[s.ID] = s
		}
		for g := range uint32(256) {
			m := Members(g, c.servers, c.copies)
			domains := map[string]bool{}
			for _, id := range m {
				domains[c.domain(by[id])] = true
			}
			if len(m) != c.members || len(domains) != c.want {
				t.Errorf("%s: group %d on %v: %d members in %d domains", c.name, g, m, len(m), len(domains))
				break
			}
		}
	}
}

// A rack that no zone names is no reason to share a host.
func TestMixedNames(t *testing.T) {
	list := []Server{{1, "a", "r1", "z1"}, {2, "a", "r1", "z1"}, {3, "b", "", ""}, {4, "b", "", ""}}
	for g := range uint32(256) {
		m := Members(g, list, 2)
		if host := func(id chunk.ServerID) bool { return id <= 2 }; host(m[0]) == host(m[1]) {
			t.Fatalf("group %d: both copies on one host: %v", g, m)
		}
	}
}

func TestGroup(t *testing.T) {
	const seed = 2
	r := rand.New(rand.NewPCG(seed, seed))
	count := map[uint32]int{}
	for range 64 * 256 {
		var id chunk.BlockID
		for i := range id {
			id[i] = byte(r.Uint32())
		}
		count[Group(id, 64)]++
	}
	if len(count) != 64 {
		t.Fatalf("seed %d: %d groups are used", seed, len(count))
	}
	for g, n := range count {
		if n < 160 || n > 360 {
			t.Errorf("seed %d: group %d has %d blocks of 256 expected", seed, g, n)
		}
	}
	if Group(chunk.BlockID{0xff}, 0) != 0 {
		t.Error("no groups: want 0")
	}
}
