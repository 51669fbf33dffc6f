package main

import "agentdrive/cmd/internal/roles"

// deps wires the verbs to the servers, the client and the filesystem.
var deps = roles.Deps
