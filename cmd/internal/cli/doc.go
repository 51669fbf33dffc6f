// Package cli is the command line of agentdrive: the table of verbs, the
// parser that reads it, help and reference made from it, and the verbs.
//
// # Rules that scripts rely on
//
// Flags may stand before or after arguments, as --name=value or --name value;
// "--" ends them. Every flag that is not a decision of the moment can be given
// as an environment variable AGENTDRIVE_NAME; the command line wins. An
// unknown verb, flag or AGENTDRIVE_ variable is a usage error that names the
// nearest known one.
//
// Every verb takes --json: its result is then one JSON value on standard
// output, and an error is {"error", "kind", "hint"} on standard error. Keys
// are added, never renamed. Exit codes are in one table, exit.go.
//
// The verbs are shells: they check, call a small interface (Cluster,
// cluster.RunFunc, mountd.ServeFunc) and print. Package main supplies what
// stands behind the interfaces.
package cli

//go:generate go run ./gen ../../../docs/CLI.md
