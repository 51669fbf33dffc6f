// Package sim drives the pure cores of client and server through seeded
// faults and checks what applications may observe.
//
// A run is a discrete-event world: virtual time, one event queue, no
// goroutine, no clock. A Plan, made from a seed, lists what the model kernels
// of the clients ask for and which faults happen when; delays come from
// generators seeded per link and per node. The same plan gives the same run,
// byte for byte of its trace.
//
// Around the real metaserver/core, metaserver/state and fuseclient/core stand
// models: of Raft (raft.go), of the adapters that carry out the effects
// (node.go, client.go, adapter.go), of streams (net.go), of chunk servers
// (blocks.go) and of Linux with its references, locks and caches (kernel.go,
// lock.go, cache.go). The oracle (oracle.go, history.go, data.go, fs.go) compares
// every entry of the log with a model filesystem, every answer with the log,
// everything that an application sees with what it may have been at that time,
// and every byte read with the writes that were made.
//
// A Rule breaks one promise on purpose (rules.go); the tests show that the
// oracle notices. A failing plan is made small by Shrink.
package sim
