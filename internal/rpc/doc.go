// Package rpc carries bytes between the processes of Agent Drive.
//
// It has four parts, none of which knows what the bytes mean:
//
//   - Network, the seam between servers and the network. TCP is the real one
//     (TCP and unix sockets); package memnet is the one tests control.
//   - Mux, which shares one listening address between gRPC and the Raft
//     connections of any number of groups.
//   - RawCodec, Frames and unary helpers: gRPC without protobuf. Messages are
//     opaque byte strings; package wire gives them their layout.
//   - ServerOptions and NewClient: the gRPC settings every server and client
//     of Agent Drive uses.
//
// # Addresses
//
// An address is "host:port" (TCP) or "unix:/absolute/path". The same string
// is listened on, dialed, kept in the cluster map and printed.
//
// # Errors
//
// Errors are errs.Error. Listening on an address in use is errs.Busy; a peer
// that refuses or cannot be reached is errs.Unavailable and names the peer; a
// deadline is errs.Timeout, a canceled context errs.Canceled; an address that
// cannot be parsed is errs.Usage.
//
// What is not promised: a connection is not authenticated here (the sender id
// of a Raft preamble is a claim). Between hosts, wrap the Network in TLS.
package rpc
