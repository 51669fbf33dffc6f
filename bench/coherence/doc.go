// Package coherence tells whether several mounts of one drive show one
// history: it records what worker processes see through them, and checks it
// with porcupine.
//
//	func TestMain(m *testing.M) { coherence.WorkerMain(); os.Exit(m.Run()) }
//
//	rep, err := coherence.Run(coherence.Plan{Mounts: []string{a, b}, Seed: 1, Calls: 10_000})
//	if len(rep.Violations) > 0 { ... }
//
// # Recording
//
// Every worker is a process with one thread of calls, since fcntl locks belong
// to processes. A call is one system call, with CLOCK_MONOTONIC taken before
// it and after it, which all processes of a host share. What a call tells is
// written down as facts: "slot 2 was absent", "register 1 was set to 7". One
// system call can be several facts, because the kernel itself looks at several
// moments: lstat finds the name at one and the attributes at another. Each fact
// must hold at one moment within the call; so the checker demands nothing that
// a local filesystem does not give. Run on a local directory finds nothing.
//
// # Arenas
//
// Work happens in arenas, fresh directories with a few shared names and files,
// a few hundred calls each, with a barrier of all workers between them. A fresh
// arena has no leases and no contention yet; and the history of each part of
// it (the slots of its directories, one register, one lock...) starts in a
// known state and is short, which keeps the search for an order short. Arenas
// differ in which groups of calls they use and in who works: all at once, or
// one mount at speed while others look now and then.
//
// # When it fails
//
// A Violation holds the shortest failing prefix of the part's history, the
// window around its last call, and the path of a page that draws it.
package coherence
