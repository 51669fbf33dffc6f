// Package invariant states what must hold, in code.
//
// A broken invariant is a bug, never an input: decoders and servers answer
// bad input with errors. What happens when one is found broken:
//
//   - in a build with the race detector, with -tags invariants, or with
//     AGENTDRIVE_INVARIANTS=panic in the environment, Check panics, so that
//     tests and chaos runs stop at the first trace;
//   - otherwise it logs once per call site at error level, counts, and
//     returns false. The caller goes on if it can do so without touching data
//     (refuse the operation, poison the session), because one broken
//     assumption about a cache must not take down a server that holds other
//     people's files.
//
// Where going on could spread damage to stored data, use Must, which panics
// in every build: a stopped server loses nothing, a wrong one may.
package invariant

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
)

// EnvVar selects the mode at run time: "panic" makes Check panic.
const EnvVar = "AGENTDRIVE_INVARIANTS"

// strict is decided once, at the first check.
var strict = sync.OnceValue(func() bool { return strictBuild || os.Getenv(EnvVar) == "panic" })

// Strict reports whether Check panics. Expensive checks run only if it does:
//
//	if invariant.Strict() { invariant.Check(t.consistent(), "...") }
func Strict() bool { return strict() }

// Check reports cond. If it is false, Check panics or logs (see the package
// comment) the formatted message.
func Check(cond bool, format string, args ...any) bool {
	if !cond {
		sites.broken(Strict(), format, args...)
	}
	return cond
}

// Must panics with the formatted message if cond is false, in every build.
func Must(cond bool, format string, args ...any) {
	if !cond {
		sites.broken(true, format, args...)
	}
}

// Broken is the number of broken invariants since the process started, for
// metrics and `status`.
func Broken() uint64 { return sites.count.Load() }

// registry remembers the call sites that were logged. It is process-wide by
// purpose: it is an alarm, no state that anything decides by.
type registry struct {
	count atomic.Uint64
	seen  sync.Map // call site "file:line" -> struct{}
}

var sites registry

func (r *registry) broken(fatal bool, format string, args ...any) {
	r.count.Add(1)
	msg := fmt.Sprintf(format, args...)
	if fatal {
		panic("invariant broken: " + msg)
	}
	site := "unknown"
	if _, file, line, ok := runtime.Caller(2); ok {
		site = fmt.Sprintf("%s:%d", file, line)
	}
	if _, again := r.seen.LoadOrStore(site, struct{}{}); !again {
		slog.Error("invariant broken", "what", msg, "site", site)
	}
}
