package coherence

import (
	"fmt"
	"hash/maphash"
	"strings"

	"github.com/anishathalye/porcupine"
)

// item is a fact with the call that tells it: the input of the models.
type item struct {
	Fact
	call  *Call
	maybe bool // outcome not yet known: it may have happened, or may happen later
}

// machine is the sequential behaviour of one part. step gives the states that
// may follow; none: the fact cannot hold.
type machine[S comparable] struct {
	init S
	step func(S, Fact) []S
}

var hashSeed = maphash.MakeSeed()

// model turns a machine into one for porcupine that starts in the given
// states, or in its own.
func (m machine[S]) model(start []any) porcupine.Model {
	if start == nil {
		start = []any{m.init}
	}
	nm := porcupine.NondeterministicModel{
		Init: func() []any { return start },
		Step: func(state, input, _ any) []any {
			in := input.(*item)
			next := m.step(state.(S), in.Fact)
			if len(next) == 0 && in.maybe {
				return []any{state} // not done, or done after all that is checked
			}
			out := make([]any, len(next))
			for i, s := range next {
				out[i] = s
			}
			return out
		},
		Hash: func(state any) uint64 { return maphash.Comparable(hashSeed, state.(S)) },
		DescribeOperation: func(input, _ any) string {
			in := input.(*item)
			return fmt.Sprintf("%v [%s]", in.call, in.Fact)
		},
		DescribeState: func(state any) string {
			if s, ok := state.(string); ok {
				return fmt.Sprintf("%q", s)
			}
			return fmt.Sprintf("%+v", state)
		},
	}
	return nm.ToModel()
}

// modelOf returns the model of a part.
func modelOf(part string, start []any) porcupine.Model {
	kind, _, _ := strings.Cut(part, "/")
	switch kind {
	case "names":
		return machine[names]{step: names.step}.model(start)
	case "tree":
		return machine[names]{step: names.treeStep}.model(start)
	case "reg":
		return machine[uint64]{step: register}.model(start)
	case "mode":
		return machine[uint64]{init: firstMode, step: register}.model(start)
	case "text":
		return machine[string]{step: text}.model(start)
	case "log":
		return machine[string]{step: appendLog}.model(start)
	case "lock":
		return machine[holders]{step: holders.step}.model(start)
	}
	panic("no model of " + part)
}

// Kinds of directory entries.
const (
	absent = iota
	isFile
	isDir
	anything // in facts: present, whatever it is
)

// slots is the number of names of a names part.
const slots = 6

// entry is what a name stands for. Inode numbers of directories are not
// compared.
type entry struct {
	ino  uint64
	kind int
	from uint8 // the slots at which this inode has been since it was made
}

// names is the state of a few names, of one or two directories, among which
// things are renamed and linked.
type names struct{ at [slots]entry }

func one[S any](s S, ok bool) []S {
	if !ok {
		return nil
	}
	return []S{s}
}

// is tells whether a slot holds this; ino 0 stands for any.
func (s names) is(slot, kind int, ino uint64) bool {
	e := s.at[slot]
	switch {
	case kind == anything:
		return e.kind != absent
	case e.kind != kind:
		return false
	}
	return kind != isFile || ino == 0 || e.ino == ino
}

// step knows: make(slot, kind, ino) exclusively; open(slot, ino) with O_CREAT;
// is(slot, kind, ino); count(-, links, ino); del(slot, kind); move, moveNew
// (NOREPLACE) and swap(from, to); lack(slot, slot) one of both; link(-, slot,
// ino).
func (s names) step(f Fact) []names {
	switch f.Kind {
	case "is":
		return one(s, s.is(f.A, f.B, f.N))
	case "lack":
		return one(s, s.at[f.A].kind == absent || s.at[f.B].kind == absent)
	case "count":
		return one(s, s.links(f.N) == f.B)
	case "make":
		return one(s.with(f.A, entry{f.N, f.B, 1 << f.A}), s.at[f.A].kind == absent)
	case "open":
		if s.at[f.A].kind == absent {
			return one(s.with(f.A, entry{f.N, isFile, 1 << f.A}), true)
		}
		return one(s, s.is(f.A, isFile, f.N))
	case "del":
		return one(s.with(f.A, entry{}), s.is(f.A, f.B, 0))
	case "link":
		e := entry{f.N, isFile, 1 << f.B}
		for _, x := range s.at {
			if x.kind == isFile && x.ino == f.N {
				e.from |= x.from
			}
		}
		return one(s.with(f.B, e), s.at[f.B].kind == absent && s.links(f.N) > 0)
	case "move", "moveNew", "swap":
		return s.move(f)
	}
	panic("names: " + f.Kind)
}

func (s names) with(slot int, e entry) names {
	s.at[slot] = e
	return s
}

func (s names) links(ino uint64) (n int) {
	for _, e := range s.at {
		if e.kind == isFile && e.ino == ino {
			n++
		}
	}
	return n
}

// move is a rename that succeeded. The kernel looks both names up before it
// asks the filesystem, one after the other, and does nothing when they lead to
// the same inode: this happens also when the file has been renamed from one to
// the other in between. Then nothing changed, and the target is an inode that
// has been at the source.
func (s names) move(f Fact) (out []names) {
	a, b := s.at[f.A], s.at[f.B]
	if b.kind == isFile && b.from&(1<<f.A) != 0 && f.Kind != "moveNew" {
		out = append(out, s)
	}
	if f.Kind == "swap" {
		if a.kind != absent && b.kind != absent {
			a.from |= 1 << f.B
			b.from |= 1 << f.A
			out = append(out, s.with(f.A, b).with(f.B, a))
		}
		return out
	}
	fits := a.kind != absent && (b.kind == absent || b.kind == a.kind && f.Kind == "move")
	switch {
	case fits && a.kind == isFile && b.kind == isFile && a.ino == b.ino:
		out = append(out, s) // two names of one file: both stay
	case fits:
		a.from |= 1 << f.B
		out = append(out, s.with(f.A, entry{}).with(f.B, a))
	}
	return out
}

// treeStep is step for a tree of one directory, slot 0, whose children are the
// slots 1 and 2: they exist only in it. It knows also: rmdir; full.
func (s names) treeStep(f Fact) []names {
	sub, kids := s.at[0].kind == isDir, s.at[1].kind != absent || s.at[2].kind != absent
	switch {
	case f.Kind == "rmdir":
		return one(s.with(0, entry{}), sub && !kids)
	case f.Kind == "full":
		return one(s, sub && kids)
	case f.Kind == "make" && f.A > 0 && !sub:
		return nil
	}
	return s.step(f)
}

// register knows write(value) and read(value).
func register(s uint64, f Fact) []uint64 {
	if f.Kind == "write" {
		return []uint64{f.N}
	}
	return one(s, s == f.N)
}

// text is the content of a small file. It knows: pwrite(offset, bytes);
// trunc(size); size; bytes: what a read of more than everything gave. Such a
// read takes size and content at two moments, so its length is a fact of its
// own, and its bytes are compared up to its length, with zeros behind the end.
func text(s string, f Fact) []string {
	switch f.Kind {
	case "pwrite":
		b := []byte(sized(s, max(len(s), f.A+len(f.S))))
		copy(b[f.A:], f.S)
		return []string{string(b)}
	case "trunc":
		return []string{sized(s, f.A)}
	case "size":
		return one(s, len(s) == f.A)
	case "bytes":
		return one(s, sized(s, len(f.S)) == f.S)
	}
	panic("text: " + f.Kind)
}

// sized cuts or pads with zeros.
func sized(s string, size int) string {
	if size <= len(s) {
		return s[:size]
	}
	return s + strings.Repeat("\x00", size-len(s))
}

// appendLog knows append(position + 1, or 0 if not known, record),
// read(everything) and size.
func appendLog(s string, f Fact) []string {
	switch f.Kind {
	case "append":
		return one(s+f.S, f.A == 0 || f.A == len(s)+1)
	case "read":
		return one(s, s == f.S)
	case "size":
		return one(s, len(s) == f.A)
	}
	panic("log: " + f.Kind)
}

// maxWorkers bounds the workers of a run.
const maxWorkers = 16

// Modes of locks.
const (
	unlocked = iota
	shared
	exclusive
)

// holders is the state of one lock: the mode of each worker.
type holders struct{ mode [maxWorkers]int }

// step knows: lock(worker, mode); busy(worker, mode): refused, or shown as
// held; free(worker, mode): shown as not held; unlock(worker).
func (s holders) step(f Fact) []holders {
	conflict := false
	for w, m := range s.mode {
		conflict = conflict || w != f.A && m != unlocked && (m == exclusive || f.B == exclusive)
	}
	switch f.Kind {
	case "busy":
		return one(s, conflict)
	case "free":
		return one(s, !conflict)
	case "unlock":
		s.mode[f.A] = unlocked
		return one(s, true)
	case "lock":
		s.mode[f.A] = f.B
		return one(s, !conflict)
	}
	panic("lock: " + f.Kind)
}

// changes tells whether a fact changes the state, and is not only seen.
func changes(f Fact) bool {
	switch f.Kind {
	case "is", "lack", "count", "full", "read", "size", "bytes", "busy", "free":
		return false
	}
	return true
}
