package main

import (
	"context"

	"agentdrive/cmd/internal/cli"
	"agentdrive/cmd/internal/cluster"
	"agentdrive/cmd/internal/mountd"
	"agentdrive/internal/errs"
)

// deps wires the verbs to the servers, the client and the filesystem.
func deps(version string) cli.Deps {
	absent := errs.E("", errs.Unsupported, "this build has no servers and no client", nil)
	return cli.Deps{
		Version: version,
		Connect: func([]string) (cli.Cluster, error) { return nil, absent },
		Run:     func(context.Context, cluster.ServerConfig) error { return absent },
		Serve:   func(context.Context, mountd.Config) (mountd.Filesystem, error) { return nil, absent },
	}
}
