package coherence

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Fact is one thing that held, or was done, at one moment within a call.
type Fact struct {
	Part string `json:"p"`           // of the history; the model is named by the text before the first slash
	Kind string `json:"k"`           // the model's word
	A    int    `json:"a,omitempty"` // slot, offset, worker: see the model
	B    int    `json:"b,omitempty"`
	N    uint64 `json:"n,omitempty"` // inode, value, time
	S    string `json:"s,omitempty"` // bytes
}

// String shows a fact in the words of its model.
func (f Fact) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s(%d,%d", f.Part, f.Kind, f.A, f.B)
	if f.N != 0 {
		fmt.Fprintf(&b, " %d", f.N)
	}
	if f.S != "" {
		fmt.Fprintf(&b, " %q", f.S)
	}
	return b.String() + ")"
}

// Call is one system call of a worker.
type Call struct {
	Arena  int    `json:"arena"`
	Worker int    `json:"w"`
	Mount  int    `json:"m"`
	Text   string `json:"text"` // the call and its result, for people
	Start  int64  `json:"s"`    // CLOCK_MONOTONIC in ns, before
	End    int64  `json:"e"`    // and after
	Facts  []Fact `json:"f,omitempty"`
	Bad    string `json:"bad,omitempty"` // an outcome that is wrong at any time
}

// String shows who made a call, and its result.
func (c Call) String() string {
	return fmt.Sprintf("mount %d worker %d: %s", c.Mount, c.Worker, c.Text)
}

// now reads the clock that all processes of a host share.
func now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // Linux has it
	}
	return ts.Nano()
}
