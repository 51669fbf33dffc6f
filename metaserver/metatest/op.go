// Package metatest drives a filesystem through seeded random operations and
// compares it with another: the model, the namespace code, a server, a mount,
// a local disk.
//
// An Op is one operation by path, or through an open handle. A Target executes
// it and answers with an Outcome; two targets given the same operations must
// answer alike, as far as a Compare asks. Paths are walked name by name;
// symbolic links are never followed. A failing sequence is made small by
// Shrink and printed by Format, from which Parse replays it.
//
// Rules of the harness, which every Target keeps so that local disks and the
// metadata service can be compared: Create without Excl succeeds on an existing
// regular file, fails with EISDIR on a directory and EEXIST on others. Open,
// Truncate are for regular files: EISDIR on a directory, EINVAL on others.
// Chmod of a symbolic link is EOPNOTSUPP. An operation on a handle that is not
// open is EBADF; Open of one that is, closes it first.
package metatest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
)

// Kind names an operation.
type Kind string

// The operations and the fields they use besides UID, GID and Now.
const (
	Create      Kind = "create"      // Path, Mode, Excl -> Stat
	Mkdir       Kind = "mkdir"       // Path, Mode -> Stat
	Mknod       Kind = "mknod"       // Path, Mode with type, Rdev -> Stat
	Symlink     Kind = "symlink"     // Path, Path2 target -> Stat
	Link        Kind = "link"        // Path existing, Path2 new -> Stat
	Unlink      Kind = "unlink"      // Path
	Rmdir       Kind = "rmdir"       // Path
	Rename      Kind = "rename"      // Path, Path2, Flags
	Chmod       Kind = "chmod"       // Path, Mode -> Stat
	Chown       Kind = "chown"       // Path, Owner, Group (-1 keeps) -> Stat
	Utimes      Kind = "utimes"      // Path, Atime, Mtime -> Stat
	Truncate    Kind = "truncate"    // Path or Handle, Size -> Stat
	GetStat     Kind = "stat"        // Path or Handle -> Stat
	Readlink    Kind = "readlink"    // Path -> Data
	ReadDir     Kind = "readdir"     // Path -> Names, sorted
	SetXattr    Kind = "setxattr"    // Path, Name, Size of value, Seed, Flags
	GetXattr    Kind = "getxattr"    // Path, Name -> Data
	ListXattr   Kind = "listxattr"   // Path -> Names, sorted
	RemoveXattr Kind = "removexattr" // Path, Name
	Open        Kind = "open"        // Path, Handle
	Close       Kind = "close"       // Handle
	Write       Kind = "write"       // Handle, Off or Append, Size of data, Seed
	Read        Kind = "read"        // Handle, Off, Size -> Data
)

// Op is one operation. Unused fields are zero.
type Op struct {
	Kind   Kind
	Path   string `json:",omitempty"` // names joined by slashes, "" is the root
	Path2  string `json:",omitempty"`
	UID    uint32 `json:",omitempty"`
	GID    uint32 `json:",omitempty"`
	Mode   uint32 `json:",omitempty"`
	Rdev   uint32 `json:",omitempty"`
	Flags  uint32 `json:",omitempty"`
	Excl   bool   `json:",omitempty"`
	Append bool   `json:",omitempty"`
	Owner  int    `json:",omitempty"`
	Group  int    `json:",omitempty"`
	Atime  int64  `json:",omitempty"` // ns
	Mtime  int64  `json:",omitempty"` // ns
	Size   uint64 `json:",omitempty"`
	Off    uint64 `json:",omitempty"`
	Seed   uint64 `json:",omitempty"`
	Name   string `json:",omitempty"`
	Handle int    `json:",omitempty"` // 1..Handles, 0 = none
	Now    int64  `json:",omitempty"` // clock of the server that executes it, ns
}

// Handles is the number of handles.
const Handles = 4

// Data is the content that the operation writes.
func (op *Op) Data() []byte {
	b := make([]byte, op.Size)
	x := op.Seed*0x9e3779b97f4a7c15 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x >> 32)
	}
	return b
}

// Stat is what stat(2) tells.
type Stat struct {
	Mode, Nlink, UID, GID, Rdev uint32
	Size, Bytes                 uint64
	Atime, Mtime, Ctime         int64 // ns
}

// Outcome is the answer to an operation.
type Outcome struct {
	Errno syscall.Errno // 0 = success; then the others may be set
	Stat  *Stat
	Data  []byte
	Names []string
}

// Target is a filesystem under test. Not safe for concurrent use.
type Target interface {
	Do(op Op) Outcome
}

// Compare says which answers must agree besides errors, data, names, types,
// modes, owners, link counts and sizes of files.
type Compare struct {
	Times   bool // and all three times
	Bytes   bool // and allocated bytes
	DirSize bool // and sizes of directories
}

// Diff describes how two outcomes differ, or gives "".
func (c Compare) Diff(a, b Outcome) string {
	if a.Errno != b.Errno {
		return fmt.Sprintf("errors %v and %v", int(a.Errno), int(b.Errno))
	}
	if !bytes.Equal(a.Data, b.Data) {
		return fmt.Sprintf("data differ: %d and %d bytes, first difference at %d", len(a.Data), len(b.Data), firstDiff(a.Data, b.Data))
	}
	if x, y := strings.Join(a.Names, "\n"), strings.Join(b.Names, "\n"); x != y {
		return fmt.Sprintf("names %q and %q", a.Names, b.Names)
	}
	if (a.Stat == nil) != (b.Stat == nil) {
		return "one gives attributes, the other none"
	}
	if a.Stat != nil {
		if x, y := c.mask(*a.Stat), c.mask(*b.Stat); x != y {
			return fmt.Sprintf("attributes\n\t%+v\n\t%+v", x, y)
		}
	}
	return ""
}

func (c Compare) mask(s Stat) Stat {
	if !c.Times {
		s.Atime, s.Mtime, s.Ctime = 0, 0, 0
	}
	if !c.Bytes {
		s.Bytes = 0
	}
	if !c.DirSize && s.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		s.Size = 0
	}
	return s
}

func firstDiff(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// Run executes ops on both targets and describes the first difference, or
// gives "".
func Run(a, b Target, ops []Op, c Compare) string {
	for i, op := range ops {
		x, y := a.Do(op), b.Do(op)
		if d := c.Diff(x, y); d != "" {
			return fmt.Sprintf("operation %d: %s\n%s", i, strings.TrimSpace(Format(ops[i:i+1])), d)
		}
	}
	return ""
}

// Format writes operations one a line.
func Format(ops []Op) string {
	var b strings.Builder
	for i := range ops {
		line, err := json.Marshal(&ops[i])
		if err != nil {
			panic("metatest: " + err.Error()) // an Op holds only plain values
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	return b.String()
}

// Parse reads what Format wrote.
func Parse(text string) ([]Op, error) {
	var ops []Op
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		var op Op
		if err := json.Unmarshal([]byte(line), &op); err != nil {
			return nil, fmt.Errorf("line %d: %w", len(ops)+1, err)
		}
		ops = append(ops, op)
	}
	return ops, nil
}

// Shrink removes operations as long as fails still says true of the rest
// (delta debugging). fails must hold for ops and must not depend on earlier
// calls.
func Shrink(ops []Op, fails func([]Op) bool) []Op {
	for size := max(1, len(ops)/2); ; {
		removed := false
		for at := 0; at < len(ops); {
			rest := append(append([]Op(nil), ops[:at]...), ops[min(at+size, len(ops)):]...)
			if fails(rest) {
				ops, removed = rest, true
			} else {
				at += size
			}
		}
		if size > 1 {
			size /= 2
		} else if !removed {
			return ops
		}
	}
}
