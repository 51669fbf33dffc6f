// Package cluster is the local cluster: the layout of its data directory and
// the supervisor that `agentdrive up` runs.
//
// # Data directory
//
//	cluster.json              what the cluster is (Config); written once
//	supervisor.lock           flock: held while the supervisor or one of its servers lives
//	run/up.sock               control socket of the supervisor (package ctl)
//	run/ROLE-ID.pid           pid of each running server
//	logs/ROLE-ID.log[.1-.3]   output of each server, rotated at 16 MiB
//	logs/up.log               output of a detached supervisor
//	metaserver-1/ ...         data of each server
//	chunkserver-1/ ...
//	mounts/                   registry of this host's mounts (package mountd)
//
// # Life
//
// With one node the servers run inside the supervisor's process and keep one
// copy. With N > 1 each of N metaservers and N chunkservers is a child of its
// own, started again Options.RespawnDelay after it died.
//
// Servers end with their supervisor, even when that is killed with SIGKILL:
// the kernel kills them (PR_SET_PDEATHSIG, from a thread that lives as long as
// the supervisor), and each watches a pipe whose other end the supervisor
// holds, for the case that the supervisor died before the signal was armed.
// Children inherit the descriptor of supervisor.lock, so that lock is free
// exactly when the supervisor and all its servers are gone. Pids are shown to
// people; decisions rest on the lock.
package cluster
