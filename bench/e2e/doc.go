// Package e2e proves the whole product: the real binary, real processes, real
// mounts, real programs (git, SQLite, fio, rsync, tar, the Go tool).
//
// Servers are killed with SIGKILL in the middle of work; the work must end
// well and its result must be right. Two mounts work at once and must agree.
// The command line must keep what scripts rely on: exit codes, JSON, hints.
//
// The tests need root and /dev/fuse, and are skipped, saying so, where either
// lacks. A program that is not installed skips what needs it. With -short one
// kill is tested, and no programs on two mounts.
package e2e
