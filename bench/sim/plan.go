package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Kind says what a step of a plan does.
type Kind uint8

// Requests of applications, by way of the kernel of Step.Client.
const (
	Lookup Kind = iota
	Create
	Mkdir
	Symlink
	Unlink
	Rmdir
	Rename
	Link
	Chmod
	Truncate
	SetXattr
	RemoveXattr
	GetAttr
	Readlink
	ReadDir
	GetXattr
	ListXattr
	StatFS
	Open
	Write
	WriteSync
	Append
	Read
	Fsync
	Close
	SyncAll
	Forget
	Cancel
	Unmount // the mount is shut down, whatever is open
	// Faults.
	Crash       // node A, for D
	Isolate     // node A from the other nodes, for D
	PauseNode   // node A, for D
	Elect       // node A
	Split       // the leader loses the others and half of the clients, for D, and does not notice
	Relapse     // the leader stalls for D, another leads meanwhile, then it again
	LoseEntry   // the leader's next proposals come to nothing
	Partition   // client Client from node A, for D
	Break       // the stream of Client
	PauseClient // Client, for D
	BlocksDown  // no quorum of chunk servers, for D
	BlocksFull  // the next puts are refused
	EndSession  // an administrator ends the session of Client
	Kill        // the daemon of Client dies; the next one starts after D
	kinds
)

var kindNames = [kinds]string{
	"lookup", "create", "mkdir", "symlink", "unlink", "rmdir", "rename", "link", "chmod", "truncate",
	"setxattr", "removexattr", "getattr", "readlink", "readdir", "getxattr", "listxattr", "statfs", "open",
	"write", "writesync", "append", "read", "fsync", "close", "syncall", "forget", "cancel", "unmount",
	"CRASH", "ISOLATE", "PAUSE-NODE", "ELECT", "SPLIT", "RELAPSE", "LOSE-ENTRY", "PARTITION", "BREAK", "PAUSE-CLIENT", "BLOCKS-DOWN", "BLOCKS-FULL", "END-SESSION", "KILL",
}

// Step is one element of a plan. What A, B and C choose depends on what exists
// when the step comes.
type Step struct {
	At      int64 // virtual nanoseconds
	Kind    Kind
	Client  int
	A, B, C uint32
	D       int64 // duration of a fault
}

// String gives a line for people.
func (x Step) String() string {
	if x.Kind >= Crash {
		return fmt.Sprintf("%9.6f %s c%d n%d for %.3f", float64(x.At)/1e9, kindNames[x.Kind], x.Client, x.A%nodeCount, float64(x.D)/1e9)
	}
	return fmt.Sprintf("%9.6f c%d %s %d %d %d", float64(x.At)/1e9, x.Client, kindNames[x.Kind], x.A, x.B, x.C)
}

// Plan is all that decides a run.
type Plan struct {
	Seed    uint64
	Clients int
	Leases  bool   // the clients ask for leases
	Slow    bool   // kernels and daemons are slow to handle replies
	Steps   []Step // by time
}

// String lists the steps.
func (p *Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, %d clients, leases %v, slow %v, %d steps\n", p.Seed, p.Clients, p.Leases, p.Slow, len(p.Steps))
	for _, x := range p.Steps {
		fmt.Fprintf(&b, "  %v\n", x)
	}
	return b.String()
}

// weights of the requests; a plan chooses one of the mixes.
var mixes = [...][Crash]int{
	{Lookup: 6, Create: 8, Mkdir: 3, Symlink: 1, Unlink: 6, Rmdir: 3, Rename: 6, Link: 3, Chmod: 2, Truncate: 2,
		SetXattr: 2, RemoveXattr: 1, GetAttr: 6, Readlink: 1, ReadDir: 4, GetXattr: 1, ListXattr: 1, StatFS: 1,
		Open: 4, Write: 8, WriteSync: 1, Append: 2, Read: 5, Fsync: 3, Close: 3, SyncAll: 1, Forget: 6, Cancel: 2},
	// Inodes without names: references, forgets, handles.
	{Lookup: 10, Create: 10, Mkdir: 4, Unlink: 14, Rmdir: 5, Rename: 6, Link: 2, GetAttr: 10, ReadDir: 3,
		Open: 4, Write: 3, Read: 3, Close: 2, Forget: 14, Cancel: 3},
	// Content.
	{Lookup: 4, Create: 3, Truncate: 3, Rename: 1, GetAttr: 2, Open: 6, Write: 22, WriteSync: 3, Append: 6, Read: 16,
		Fsync: 6, Close: 5, SyncAll: 1, Forget: 1, Cancel: 2},
	// What kernels believe of names and attributes.
	{Lookup: 16, Create: 8, Mkdir: 2, Unlink: 7, Rmdir: 1, Rename: 8, Link: 2, Chmod: 8, GetAttr: 14, ReadDir: 12, Forget: 4, Cancel: 1},
	// What they keep of content.
	{Create: 2, Truncate: 5, Chmod: 2, GetAttr: 8, Open: 4, Write: 16, Append: 2, Read: 30, Fsync: 2, Close: 1},
}

// planTime is when the last step comes at the latest.
const planTime = 6 * s

// NewPlan makes the plan of a seed.
func NewPlan(seed uint64) *Plan {
	rng := rand.New(rand.NewPCG(seed, 0x73696d))
	p := &Plan{Seed: seed, Clients: 2 + rng.IntN(3), Leases: seed%4 != 0, Slow: seed%3 == 0}
	if seed%5 == 2 {
		p.Leases = true
		hotPlan(p, rng)
		return p
	}
	mix := mixes[rng.IntN(len(mixes))]
	total := 0
	for _, n := range mix {
		total += n
	}
	faults := rng.IntN(12)
	requests := 60 + rng.IntN(120)
	for range requests {
		n, k := rng.IntN(total), Kind(0)
		for n >= mix[k] {
			n -= mix[k]
			k++
		}
		p.Steps = append(p.Steps, Step{
			At: span(rng, 0, planTime), Kind: k, Client: rng.IntN(p.Clients),
			A: rng.Uint32(), B: rng.Uint32(), C: rng.Uint32(),
		})
	}
	// Requests come in bursts, so that many are under way at once.
	for i := range p.Steps {
		if rng.IntN(3) > 0 {
			p.Steps[i].At -= p.Steps[i].At % (400 * ms)
			p.Steps[i].At += span(rng, 0, 20*ms)
		}
	}
	if rng.IntN(6) == 0 {
		p.Steps = append(p.Steps, Step{At: span(rng, planTime/2, planTime), Kind: Unmount, Client: rng.IntN(p.Clients)})
	}
	for range faults {
		p.Steps = append(p.Steps, newFault(rng, p.Clients))
	}
	sortSteps(p.Steps)
	return p
}

func newFault(rng *rand.Rand, clients int) Step {
	x := Step{
		At: span(rng, 100*ms, planTime), Kind: Crash + Kind(rng.IntN(int(kinds-Crash))),
		Client: rng.IntN(clients), A: rng.Uint32(), B: rng.Uint32(), C: rng.Uint32(),
		D: span(rng, 20*ms, 900*ms),
	}
	switch x.Kind {
	case Split, Relapse:
		x.D = span(rng, 300*ms, 1400*ms)
	case Kill:
		x.D = span(rng, 100*ms, 2500*ms)
	case PauseClient:
		if rng.IntN(2) == 0 {
			x.D = span(rng, 1600*ms, 2500*ms) // beyond the session's life
		}
	case Partition:
		if rng.IntN(3) == 0 {
			x.A, x.D = allNodes, span(rng, 500*ms, 2500*ms)
		}
	}
	return x
}

// allNodes as A of a Partition cuts the client off from every node.
const allNodes = ^uint32(0)

func sortSteps(list []Step) {
	for i := 1; i < len(list); i++ { // nearly sorted when shrunk; stable
		for j := i; j > 0 && list[j].At < list[j-1].At; j-- {
			list[j], list[j-1] = list[j-1], list[j]
		}
	}
}
