package core

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestPurity: the core has no clock, no I/O, no randomness and no concurrency
// of its own. A simulator replays it only as long as this holds.
func TestPurity(t *testing.T) {
	forbidden := map[string]bool{
		"time": true, "sync": true, "sync/atomic": true, "os": true, "net": true, "io": true,
		"math/rand": true, "math/rand/v2": true, "crypto/rand": true, "context": true, "runtime": true,
	}
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for _, e := range entries {
		name := e.Name()
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		files++
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, im := range f.Imports {
			if path, err := strconv.Unquote(im.Path.Value); err != nil || forbidden[path] {
				t.Errorf("%s imports %s", name, im.Path.Value)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt, *ast.SelectStmt, *ast.SendStmt, *ast.ChanType:
				t.Errorf("%s: concurrency", fset.Position(n.Pos()))
			case *ast.RangeStmt:
				// The only Go maps here are these fields; they are for look-up.
				if s, ok := n.X.(*ast.SelectorExpr); ok && (s.Sel.Name == "byToken" || s.Sel.Name == "byName" || s.Sel.Name == "fill") {
					t.Errorf("%s: iterates over a map", fset.Position(n.Pos()))
				}
			case *ast.MapType:
				switch name {
				case "dirty.go", "names.go", "puts.go", "client.go", "read.go":
				default:
					t.Errorf("%s: a map in a file that has none; iterate over ordered structures only", fset.Position(n.Pos()))
				}
			}
			return true
		})
	}
	if files < 10 {
		t.Fatalf("saw only %d files", files)
	}
}
