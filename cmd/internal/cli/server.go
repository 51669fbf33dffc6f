package cli

import (
	"context"
	"encoding/hex"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"agentdrive/cmd/internal/cluster"
)

// abandonedExit is the exit code of a server whose supervisor was killed.
const abandonedExit = ExitFailed

func runMetaserver(ctx context.Context, a *App, in *Input) error {
	c, err := serverConfig(a, in, cluster.Metaserver)
	if err != nil {
		return err
	}
	if c.Peers, err = metaPeers(in.text("peers"), c.ID); err != nil {
		return err
	}
	if c.Copies = in.number("copies"); c.Copies != 1 && c.Copies != 3 {
		return usage("--copies is %d, but must be 3 or 1", c.Copies)
	}
	if c.Groups = in.number("groups"); c.Groups < 1 || c.Groups > cluster.MaxGroups {
		return usage("--groups is %d, but must be from 1 to %d", c.Groups, cluster.MaxGroups)
	}
	return a.serve(ctx, in, c)
}

func runChunkserver(ctx context.Context, a *App, in *Input) error {
	c, err := serverConfig(a, in, cluster.Chunkserver)
	if err != nil {
		return err
	}
	for _, addr := range in.addrs("peers") {
		c.Peers = append(c.Peers, cluster.Peer{Address: addr})
	}
	if len(c.Peers) == 0 {
		return usage("a chunk server needs --peers, the addresses of the metaservers").WithHint("like --peers ms1:7001,ms2:7001,ms3:7001")
	}
	return a.serve(ctx, in, c)
}

// serve runs a server until ctx ends or its supervisor does.
func (a *App) serve(ctx context.Context, in *Input, c cluster.ServerConfig) error {
	cluster.WatchParent(in.number("parent-fd"), func() { os.Exit(abandonedExit) })
	return a.Deps.Run(ctx, c)
}

func serverConfig(a *App, in *Input, role string) (cluster.ServerConfig, error) {
	c := cluster.ServerConfig{
		Role: role, Listen: in.text("listen"), Copies: 3, Log: a.Stderr,
		LogLevel: in.text("log-level"), LogFormat: logFormat(a),
	}
	id := in.number("id")
	switch {
	case c.Listen == "":
		return c, usage("a server needs --listen, the address at which the others reach it").WithHint("like --listen " + role[:4] + "1:7001")
	case id == 0:
		return c, usage("a server needs --id, its number in its role").WithHint("like --id 1; it stays the same for ever")
	case id > math.MaxUint32:
		return c, usage("--id is %d, but must be at most %d", id, uint32(math.MaxUint32))
	}
	c.ID = uint32(id)
	if v := in.text("cluster"); v != "" {
		b, err := hex.DecodeString(v)
		if err != nil || len(b) != len(c.Cluster) {
			return c, usage("--cluster is %q, but must be %d bytes in hex", v, len(c.Cluster))
		}
		copy(c.Cluster[:], b)
	}
	var err error
	if c.Data, err = filepath.Abs(in.text("data")); err != nil {
		return c, usage("--data: %v", err)
	}
	return c, nil
}

// metaPeers reads ID=HOST:PORT,... ; self must be among them.
func metaPeers(text string, self uint32) ([]cluster.Peer, error) {
	const hint = "like --peers 1=ms1:7001,2=ms2:7001,3=ms3:7001, the same on all of them"
	if text == "" {
		return nil, usage("a metadata server needs --peers, all metaservers with their ids").WithHint(hint)
	}
	var peers []cluster.Peer
	seen := map[uint32]bool{}
	for _, part := range strings.Split(text, ",") {
		num, addr, ok := strings.Cut(strings.TrimSpace(part), "=")
		id, err := strconv.ParseUint(num, 10, 32)
		if _, _, aerr := net.SplitHostPort(addr); !ok || err != nil || id == 0 || aerr != nil {
			return nil, usage("--peers holds %q, but each must be ID=HOST:PORT", part).WithHint(hint)
		}
		if seen[uint32(id)] {
			return nil, usage("--peers names id %d twice", id).WithHint(hint)
		}
		seen[uint32(id)] = true
		peers = append(peers, cluster.Peer{ID: uint32(id), Address: addr})
	}
	if !seen[self] {
		return nil, usage("--peers does not name this server, id %d", self).WithHint(hint)
	}
	return peers, nil
}
