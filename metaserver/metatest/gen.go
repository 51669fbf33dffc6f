package metatest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
)

// Config shapes random operations. The zero value is for targets of this
// project that are called without a kernel.
type Config struct {
	// Root: the superuser does everything. For targets behind a kernel, which
	// checks access before the filesystem is asked.
	Root bool
	// Local: nothing that a local filesystem refuses for its own reasons: small
	// attributes, no clocks set far off.
	Local bool
	// MaxFile bounds offsets and sizes, bytes; 0 = 96 KiB.
	MaxFile uint64
	// Names is the number of names a directory draws from; 0 = 5.
	Names int
}

type gen struct {
	Config
	r   *rand.Rand
	now int64
}

// Gen gives n random operations. Equal arguments give equal operations.
func Gen(seed uint64, n int, c Config) []Op {
	if c.MaxFile == 0 {
		c.MaxFile = 96 << 10
	}
	if c.Names == 0 {
		c.Names = 5
	}
	g := &gen{Config: c, r: rand.New(rand.NewPCG(seed, 1)), now: 1_700_000_000_000_000_000}
	ops := make([]Op, n)
	for i := range ops {
		ops[i] = g.op()
	}
	return ops
}

// weights says how often each kind is drawn.
var weights = [...]struct {
	kind Kind
	n    int
}{
	{Create, 10}, {Mkdir, 8}, {Mknod, 3}, {Symlink, 3}, {Link, 6}, {Unlink, 8}, {Rmdir, 5},
	{Rename, 14}, {Chmod, 3}, {Chown, 3}, {Utimes, 2}, {Truncate, 6}, {GetStat, 6},
	{Readlink, 1}, {ReadDir, 3}, {SetXattr, 5}, {GetXattr, 2}, {ListXattr, 2}, {RemoveXattr, 2},
	{Open, 8}, {Close, 3}, {Write, 16}, {Read, 8},
}

func (g *gen) kind() Kind {
	total := 0
	for _, w := range weights {
		total += w.n
	}
	x := g.r.IntN(total)
	for _, w := range weights {
		if x -= w.n; x < 0 {
			return w.kind
		}
	}
	return GetStat
}

func (g *gen) op() Op {
	op := Op{Kind: g.kind()}
	g.now += g.r.Int64N(2000) - 500 // leaders' clocks differ
	op.Now = g.now
	if !g.Root && g.r.IntN(3) > 0 {
		op.UID, op.GID = uint32(1000+g.r.IntN(3)), uint32(100+g.r.IntN(2))
	}
	op.Path = g.path()
	switch op.Kind {
	case Create:
		op.Mode, op.Excl = g.mode(), g.r.IntN(2) == 0
	case Mkdir, Chmod:
		op.Mode = g.mode()
	case Mknod:
		types := [...]uint32{syscall.S_IFIFO, syscall.S_IFSOCK, syscall.S_IFCHR, syscall.S_IFBLK}
		op.Mode = types[g.r.IntN(len(types))] | g.mode()
		if op.Mode&syscall.S_IFMT == syscall.S_IFCHR || op.Mode&syscall.S_IFMT == syscall.S_IFBLK {
			op.Rdev = uint32(g.r.IntN(200))
		}
	case Symlink:
		op.Path2 = strings.Repeat("t", 1+g.r.IntN(40))
	case Link, Rename:
		op.Path2 = g.path()
		if op.Kind == Rename {
			op.Flags = [...]uint32{0, 0, 0, 1, 2, 2}[g.r.IntN(6)]
		}
	case Chown:
		op.Owner, op.Group = -1, -1
		if g.r.IntN(2) == 0 {
			op.Owner = 1000 + g.r.IntN(3)
		}
		if g.r.IntN(2) == 0 {
			op.Group = 100 + g.r.IntN(2)
		}
	case Utimes:
		op.Atime, op.Mtime = g.r.Int64N(2_000_000_000_000_000_000), g.r.Int64N(2_000_000_000_000_000_000)
		if g.Local {
			op.Mtime = g.r.Int64N(1_000_000_000) * 1_000_000_000
		}
	default:
		g.content(&op)
	}
	return op
}

// content fills operations on attributes, handles and data.
func (g *gen) content(op *Op) {
	switch op.Kind {
	case SetXattr, GetXattr, RemoveXattr:
		op.Name = g.xattrName()
		if op.Kind == SetXattr {
			op.Size, op.Seed = g.xattrSize(), g.r.Uint64N(1<<20)
			op.Flags = [...]uint32{0, 0, 0, 1, 2}[g.r.IntN(5)]
		}
	case Open:
		op.Handle = 1 + g.r.IntN(Handles)
	case Truncate:
		op.Size = g.size()
		if g.r.IntN(2) == 0 {
			op.Handle, op.Path = 1+g.r.IntN(Handles), ""
		}
	case GetStat:
		if g.r.IntN(3) == 0 {
			op.Handle, op.Path = 1+g.r.IntN(Handles), ""
		}
	case Close, Write, Read:
		op.Path, op.Handle = "", 1+g.r.IntN(Handles)
		if op.Kind == Write {
			op.Append = g.r.IntN(4) == 0
			op.Seed, op.Size = g.r.Uint64N(1<<20), 1+g.length()
			if !op.Append {
				op.Off = g.size()
			}
		} else if op.Kind == Read {
			op.Off, op.Size = g.size(), 1+g.length()*2
		}
	}
}

// path gives one to three names; mostly of few, so that operations meet.
func (g *gen) path() string {
	if g.r.IntN(60) == 0 {
		return ""
	}
	depth := 1 + g.r.IntN(3)
	names := make([]string, depth)
	for i := range names {
		names[i] = fmt.Sprintf("%c", 'a'+g.r.IntN(g.Names))
		if g.r.IntN(60) == 0 {
			names[i] = strings.Repeat("n", 254+g.r.IntN(3))
		}
	}
	return strings.Join(names, "/")
}

func (g *gen) mode() uint32 {
	m := [...]uint32{0o644, 0o755, 0o777, 0o600, 0o664}[g.r.IntN(5)]
	if g.r.IntN(4) == 0 {
		m |= uint32(g.r.IntN(8)) << 9
	}
	return m
}

func (g *gen) xattrName() string {
	names := [...]string{"user.a", "user.b", "user.c", "user.long-name", "trusted.t", "security.s"}
	if g.Local {
		return names[g.r.IntN(4)]
	}
	if g.r.IntN(30) == 0 {
		return [...]string{"", "user.", "system.x", "user." + strings.Repeat("x", 251), "other"}[g.r.IntN(5)]
	}
	return names[g.r.IntN(len(names))]
}

func (g *gen) xattrSize() uint64 {
	if g.Local {
		return g.r.Uint64N(100)
	}
	switch g.r.IntN(12) {
	case 0:
		return 30_000 + g.r.Uint64N(36_000)
	case 1, 2, 3:
		return 500 + g.r.Uint64N(2000)
	}
	return g.r.Uint64N(300)
}

// size gives an offset or size: often small, often aligned.
func (g *gen) size() uint64 {
	switch g.r.IntN(6) {
	case 0:
		return 0
	case 1, 2:
		return g.r.Uint64N(g.MaxFile/4096+1) * 4096
	case 3:
		return g.r.Uint64N(g.MaxFile)
	}
	return g.r.Uint64N(min(g.MaxFile, 8192))
}

func (g *gen) length() uint64 {
	switch g.r.IntN(4) {
	case 0:
		return g.r.Uint64N(20000)
	case 1:
		return 4095
	}
	return g.r.Uint64N(300)
}
