// Package cluster runs real clusters for tests: the agentdrive binary, its
// server processes and its mounts, all below one temporary directory.
//
//	bin := Build(dir)                  // once per test run
//	c := Start(t, Options{Bin: bin, Nodes: 3})
//	c.Do("drive", "create", "demo")
//	a := c.Mount("demo", "a")
//	c.Kill(c.Leader())
//	c.WaitFor("healthy")
//
// Everything is observed the way scripts do it: by exit codes and by
// `status --json`. The types here are a second reading of that JSON, so a key
// that was renamed fails the tests.
//
// # Cleaning up
//
// A Cluster cleans up when its test ends: mounts are detached, processes
// killed, and both are checked to be gone. Should the test process die before
// that (a panic, a timeout, SIGKILL), a watchdog does it: a shell that waits
// for the end of a pipe whose other end the test process holds.
//
// No call waits without a bound: commands end with their context, waiting is
// done by `status --wait --timeout`, and Eventually has a limit.
package cluster
