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
	r    *rand.Rand
	now  int64
	root *guess
	open [Handles + 1]bool // handles that are probably open
}

// Gen gives n random operations. Equal arguments give equal operations.
func Gen(seed uint64, n int, c Config) []Op {
	if c.MaxFile == 0 {
		c.MaxFile = 96 << 10
	}
	if c.Names == 0 {
		c.Names = 5
	}
	g := &gen{Config: c, r: rand.New(rand.NewPCG(seed, 1)), now: 1_700_000_000_000_000_000, root: &guess{dir: true}}
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

func (g *gen) op() (op Op) {
	op = Op{Kind: g.kind()}
	g.now += g.r.Int64N(2000) - 500 // leaders' clocks differ
	op.Now = g.now
	if !g.Root && g.r.IntN(3) > 0 {
		op.UID, op.GID = uint32(1000+g.r.IntN(3)), uint32(100+g.r.IntN(2))
	}
	op.Path = g.target(op.Kind)
	defer g.note(&op)
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
		op.Path2 = g.fresh()
		if g.r.IntN(3) == 0 {
			op.Path2 = g.target(Rename)
		}
		if op.Kind == Rename {
			op.Flags = [...]uint32{0, 0, 0, 1, 2, 2}[g.r.IntN(6)]
		}
	case Chown:
		op.Owner, op.Group = -1, -1
		if g.r.IntN(2) == 0 {
			op.Owner = 1000 + g.r.IntN(3)
		}
		if op.Owner < 0 || g.r.IntN(2) == 0 {
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
			op.Handle, op.Path = g.handle(), ""
		}
	case GetStat:
		if g.r.IntN(3) == 0 {
			op.Handle, op.Path = g.handle(), ""
		}
	case Close, Write, Read:
		op.Path, op.Handle = "", g.handle()
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

// target gives a path that suits kind, mostly of something that exists.
func (g *gen) target(kind Kind) string {
	any := g.r.IntN(12) == 0
	dirs, files := g.root.list("", nil, nil)
	pick := func(list []string) string {
		if any || len(list) == 0 {
			return g.path()
		}
		return list[g.r.IntN(len(list))]
	}
	switch kind {
	case Create, Mkdir, Mknod, Symlink:
		return g.fresh()
	case Rmdir, ReadDir:
		return pick(dirs)
	case Unlink, Link, Open, Truncate, Readlink:
		return pick(files)
	}
	if g.r.IntN(3) == 0 {
		return pick(dirs)
	}
	return pick(files)
}

// fresh gives a name in a directory that probably exists.
func (g *gen) fresh() string {
	dirs, _ := g.root.list("", nil, nil)
	if len(dirs) == 0 || g.r.IntN(4) == 0 {
		return g.name()
	}
	dir := dirs[g.r.IntN(len(dirs))]
	if strings.Count(dir, "/") > 5 {
		return g.path()
	}
	return dir + "/" + g.name()
}

// note remembers what op probably did.
func (g *gen) note(op *Op) {
	switch op.Kind {
	case Create, Mknod, Symlink, Mkdir:
		g.root.add(op.Path, &guess{dir: op.Kind == Mkdir})
	case Link:
		if n := g.root.find(op.Path); n != nil && !n.dir {
			g.root.add(op.Path2, &guess{})
		}
	case Unlink, Rmdir:
		if n := g.root.find(op.Path); n != nil && n.dir == (op.Kind == Rmdir) && len(n.kids) == 0 {
			g.root.cut(op.Path)
		}
	case Rename:
		g.noteRename(op)
	case Open:
		g.open[op.Handle] = true
	case Close:
		g.open[op.Handle] = false
	}
}

func (g *gen) noteRename(op *Op) {
	n, over := g.root.find(op.Path), g.root.find(op.Path2)
	inside := strings.HasPrefix(op.Path2+"/", op.Path+"/") || strings.HasPrefix(op.Path+"/", op.Path2+"/")
	switch {
	case n == nil || inside || op.Path == "" || op.Path2 == "":
	case op.Flags == 2:
		if over != nil {
			*n, *over = guess{n.name, over.dir, over.kids}, guess{over.name, n.dir, n.kids}
		}
	case over == nil || op.Flags == 0 && over.dir == n.dir && len(over.kids) == 0:
		g.root.cut(op.Path2)
		if g.root.add(op.Path2, &guess{dir: n.dir, kids: n.kids}) {
			g.root.cut(op.Path)
		}
	}
}

// handle gives a handle, one that is probably open if there is any.
func (g *gen) handle() int {
	h := 1 + g.r.IntN(Handles)
	for range 3 {
		if g.open[h] {
			break
		}
		h = 1 + g.r.IntN(Handles)
	}
	return h
}

// path gives one to three names; mostly of few, so that operations meet.
func (g *gen) path() string {
	if g.r.IntN(60) == 0 {
		return ""
	}
	depth := 1 + g.r.IntN(3)
	names := make([]string, depth)
	for i := range names {
		names[i] = g.name()
	}
	return strings.Join(names, "/")
}

func (g *gen) name() string {
	if g.r.IntN(100) == 0 {
		return strings.Repeat("n", 254+g.r.IntN(3))
	}
	return fmt.Sprintf("%c", 'a'+g.r.IntN(g.Names))
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
