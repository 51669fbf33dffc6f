package arch

import (
	"go/ast"
	"slices"
	"strings"
	"testing"
)

// layers lists the components from the top down. A package imports its own
// component and components of lower layers, so that each can be understood,
// tested and replaced without what stands on it.
var layers = [][]string{
	{"cmd", "bench", "e2e"},
	{"controlplane"},
	{"volumes", "fuseclient"},
	{"metaserver"},
	{"replication"},
	{"chunkserver"},
	{"internal"},
}

// faces are the packages of a service that others may import: its vocabulary,
// its client, its conformance suite, and rules that both sides must apply
// alike. What else it is made of is its own
// business. Programs construct services, and tests may run one.
var faces = map[string][]string{
	"metaserver":  {"metaserver/meta", "metaserver/metaclient", "metaserver/rules", "metaserver/locks"},
	"chunkserver": {"chunkserver/chunk", "chunkserver/chunkclient", "chunkserver/chunktest"},
}

func component(dir string) (name string, layer int) {
	name, _, _ = strings.Cut(dir, "/")
	layer = slices.IndexFunc(layers, func(l []string) bool { return slices.Contains(l, name) })
	return name, layer
}

func TestImportDirection(t *testing.T) {
	for _, s := range sources(t) {
		from, fromLayer := component(s.dir)
		if fromLayer < 0 {
			t.Errorf("%s: folder %q is in no layer; see layers", s.path, from)
			continue
		}
		for _, imp := range s.imports() {
			dir, ours := strings.CutPrefix(imp, module+"/")
			if !ours {
				continue
			}
			to, toLayer := component(dir)
			if to == from {
				continue
			}
			if toLayer <= fromLayer {
				t.Errorf("%s imports %s, which is not below it", s.path, dir)
			}
			allowed, closed := faces[to]
			if closed && !s.test && fromLayer > 0 && !slices.Contains(allowed, dir) {
				t.Errorf("%s imports %s: a service is reached through %v", s.path, dir, allowed)
			}
		}
	}
}

// The data plane works while the control plane is down, and is built without
// it.
func TestDataPlaneNeedsNoControlPlane(t *testing.T) {
	for _, s := range sources(t) {
		if within(s.dir, "controlplane") || within(s.dir, "cmd") || within(s.dir, "bench") || within(s.dir, "e2e") {
			continue
		}
		for _, imp := range s.imports() {
			if within(imp, module+"/controlplane") {
				t.Errorf("%s imports %s", s.path, imp)
			}
		}
	}
}

// Pure cores are step machines: the simulator replays a seed exactly only if
// nothing in them reads a clock, does I/O or runs beside the caller.
var (
	pureCores = []string{"metaserver/core", "metaserver/tree", "metaserver/rules", "metaserver/locks", "fuseclient/core"}
	impure    = []string{"time", "sync", "os", "net", "math/rand", "crypto/rand", "io/ioutil", "log", "runtime", "syscall", "golang.org/x/sys", "context"}
)

func TestPureCores(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || !slices.ContainsFunc(pureCores, func(core string) bool { return within(s.dir, core) }) {
			continue
		}
		for _, imp := range s.imports() {
			if slices.ContainsFunc(impure, func(bad string) bool { return within(imp, bad) }) {
				t.Errorf("%s imports %s: a core has no clock, lock or I/O", s.path, imp)
			}
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			switch n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: go statement in a core", s.line(n))
			case *ast.SelectStmt, *ast.SendStmt, *ast.ChanType:
				t.Errorf("%s: channel in a core", s.line(n))
			}
			return true
		})
	}
}
