package roles

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"agentdrive/cmd/internal/cluster"
	"agentdrive/internal/errs"
	"agentdrive/metaserver/metaclient"
)

// identity says whose directory this is; kept in identity.json.
type identity struct {
	Version int    `json:"version"`
	Cluster string `json:"cluster"` // hex
	Role    string `json:"role"`
	ID      uint32 `json:"id"`
}

const identityVersion = 1

// claim makes a server's directory its own, or checks that it is. The cluster
// is the one given, the directory's, or what found tells, in this order.
func claim(c *cluster.ServerConfig, found func() ([16]byte, error)) error {
	if err := os.MkdirAll(c.Data, 0o755); err != nil {
		return errs.E("server.claim", errs.IO, c.Data, err)
	}
	name := filepath.Join(c.Data, "identity.json")
	b, err := os.ReadFile(name)
	if os.IsNotExist(err) {
		if c.Cluster == ([16]byte{}) {
			if c.Cluster, err = found(); err != nil {
				return err
			}
		}
		id := identity{identityVersion, hex.EncodeToString(c.Cluster[:]), c.Role, c.ID}
		if b, err = json.MarshalIndent(id, "", "  "); err != nil {
			return errs.E("server.claim", errs.Other, name, err)
		}
		return cluster.WriteFile(name, append(b, '\n'))
	}
	if err != nil {
		return errs.E("server.claim", errs.IO, name, err)
	}
	return checkIdentity(c, name, b)
}

// checkIdentity compares a directory's identity with what the server should be.
func checkIdentity(c *cluster.ServerConfig, name string, b []byte) error {
	var id identity
	if err := json.Unmarshal(b, &id); err != nil {
		return errs.E("server.claim", errs.Corrupt, name, err).
			WithHint("restore the file from a backup; the data beside it is whole")
	}
	if id.Version > identityVersion {
		return errs.E("server.claim", errs.Version, fmt.Sprintf("%s has version %d", name, id.Version), nil).
			WithHint("upgrade this program to the version that wrote the directory")
	}
	if id.Role != c.Role || id.ID != c.ID {
		return errs.E("server.claim", errs.Mismatch, fmt.Sprintf("%s belongs to %s %d, not to %s %d", c.Data, id.Role, id.ID, c.Role, c.ID), nil).
			WithHint("give every server a --data directory of its own")
	}
	own, err := metaclient.Cluster(id.Cluster)
	if err != nil {
		return errs.E("server.claim", errs.Corrupt, name, err)
	}
	if c.Cluster != ([16]byte{}) && c.Cluster != own {
		return errs.E("server.claim", errs.Mismatch, fmt.Sprintf("%s belongs to cluster %s, not to %x", c.Data, id.Cluster, c.Cluster), nil).
			WithHint("start it with its own cluster, or on an empty --data directory")
	}
	c.Cluster = own
	return nil
}

// derivedCluster is the id of a cluster formed by hand: all its metadata
// servers are given the same list of peers, and agree on the id without
// talking.
func derivedCluster(peers []cluster.Peer) [16]byte {
	var lines []string
	for _, p := range peers {
		lines = append(lines, fmt.Sprintf("%d=%s\n", p.ID, p.Address))
	}
	slices.Sort(lines)
	h := sha256.New()
	fmt.Fprint(h, "agentdrive cluster 1\n")
	for _, l := range lines {
		fmt.Fprint(h, l)
	}
	return [16]byte(h.Sum(nil)[:16])
}

// samePeers refuses the peers of another cluster: a cluster formed by hand has
// its id from its list of peers. Who names the cluster means it.
func samePeers(c cluster.ServerConfig) error {
	if derivedCluster(c.Peers) == c.Cluster {
		return nil
	}
	return errs.E("server.claim", errs.Mismatch, fmt.Sprintf("%s belongs to cluster %x, and --peers are not those it was formed with", c.Data, c.Cluster), nil).
		WithHint(fmt.Sprintf("give it the --peers of its own cluster, or an empty --data directory; if the peers are right, say so with --cluster %x", c.Cluster))
}

// askCluster learns the cluster's id from its metadata servers.
func askCluster(ctx context.Context, mc *metaclient.Client) ([16]byte, error) {
	m, err := awaitMap(ctx, mc)
	if err != nil {
		return [16]byte{}, err
	}
	return metaclient.Cluster(m.Cluster)
}
