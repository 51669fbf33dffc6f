// Command agentdrive is Agent Drive: servers, mounts and operator's verbs in
// one binary. The verbs, their flags and the exit codes are described in
// docs/CLI.md and by `agentdrive help`.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"agentdrive/cmd/internal/cli"
)

// version is set by the build: -ldflags "-X main.version=...".
var version = "dev"

func main() { os.Exit(run()) }

func run() int {
	// The first signal asks for an orderly end; a second one ends at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	_, err := unix.IoctlGetTermios(int(os.Stderr.Fd()), unix.TCGETS)
	app := cli.App{
		Deps: deps(version), Stdout: os.Stdout, Stderr: os.Stderr,
		Env: os.Environ(), Terminal: err == nil,
	}
	return app.Run(ctx, os.Args[1:])
}
