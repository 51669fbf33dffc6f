package sim

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestCoresArePure: what the simulator drives has no clock, I/O, randomness or
// concurrency of its own; else a seed would not replay.
func TestCoresArePure(t *testing.T) {
	forbidden := map[string]bool{
		"time": true, "sync": true, "sync/atomic": true, "os": true, "io": true, "net": true, "context": true,
		"runtime": true, "math/rand": true, "math/rand/v2": true, "crypto/rand": true,
	}
	for _, dir := range []string{"metaserver/core", "metaserver/state", "metaserver/tree", "fuseclient/core"} {
		files := 0
		for _, path := range sources(t, filepath.Join("..", "..", filepath.FromSlash(dir))) {
			files++
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, im := range f.Imports {
				if name, err := strconv.Unquote(im.Path.Value); err != nil || forbidden[name] {
					t.Errorf("%s imports %s", path, im.Path.Value)
				}
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch n.(type) {
				case *ast.GoStmt, *ast.SelectStmt, *ast.SendStmt, *ast.ChanType:
					t.Errorf("%s: concurrency", fset.Position(n.Pos()))
				}
				return true
			})
		}
		if files < 4 {
			t.Errorf("%s has %d files only: did it move?", dir, files)
		}
	}
}

func sources(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			list = append(list, filepath.Join(dir, name))
		}
	}
	return list
}
