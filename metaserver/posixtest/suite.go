// Package posixtest is the conformance suite for POSIX behaviour. One table of
// cases runs over the model, the namespace code, a mount, and a local
// filesystem, which is the oracle for the table itself.
//
// A case is a list of steps, each an operation of package metatest with the
// answer that it must get. Every case starts with an empty directory. Steps
// of several users work in directories that everyone may write, so that only
// the rule under test decides.
package posixtest

import (
	"strings"
	"syscall"
	"testing"

	"agentdrive/metaserver/metatest"
)

// Options says what a target can do.
type Options struct {
	// Users: operations can run as other users, and devices be made.
	Users bool
	// Xattrs: extended attributes of the namespace user exist.
	Xattrs bool
	// NoExchange: the filesystem has no atomic exchange of names.
	NoExchange bool
}

// step is an operation and what must come of it.
type step struct {
	op    metatest.Op
	errno syscall.Errno
	check func(out metatest.Outcome) string // nil, or gives what is wrong
}

// testCase is a rule with its steps.
type testCase struct {
	name     string
	users    bool // needs Options.Users
	xattrs   bool // needs Options.Xattrs
	exchange bool // needs exchange
	steps    []step
}

// Run runs all cases; fresh gives an empty target, whose root belongs to root
// or to the one user there is. Cases remember what they saw: do not call Run
// from two goroutines at once.
func Run(t *testing.T, o Options, fresh func(t *testing.T) metatest.Target) {
	for _, group := range [...]struct {
		name  string
		cases []testCase
	}{
		{"make", makeCases}, {"remove", removeCases}, {"rename", renameCases}, {"link", linkCases},
		{"attributes", attrCases}, {"users", userCases}, {"content", contentCases}, {"xattrs", xattrCases},
	} {
		for _, c := range group.cases {
			t.Run(group.name+"/"+c.name, func(t *testing.T) {
				switch {
				case c.users && !o.Users:
					t.Skip("needs several users")
				case c.xattrs && !o.Xattrs:
					t.Skip("needs extended attributes")
				case c.exchange && o.NoExchange:
					t.Skip("needs exchange")
				}
				c.run(t, fresh(t))
			})
		}
	}
}

func (c *testCase) run(t *testing.T, target metatest.Target) {
	for i, s := range c.steps {
		if s.op.Now == 0 {
			s.op.Now = 1_700_000_000_000_000_000 + int64(i)*1000
		}
		out := target.Do(s.op)
		line := strings.TrimSpace(metatest.Format([]metatest.Op{s.op}))
		if out.Errno != s.errno {
			t.Fatalf("step %d: %.300s\ngave %d (%v), want %d (%v)", i, line, int(out.Errno), out.Errno, int(s.errno), s.errno)
		}
		if s.check != nil {
			if wrong := s.check(out); wrong != "" {
				t.Fatalf("step %d: %.300s\n%s", i, line, wrong)
			}
		}
	}
}
