package tree

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// allowed are the imports of the package. None knows a clock, a disk or
// chance.
var allowed = []string{
	"agentdrive/chunkserver/chunk", "agentdrive/internal/errs", "agentdrive/internal/invariant",
	"agentdrive/internal/kv", "agentdrive/internal/wire", "agentdrive/metaserver/meta", "agentdrive/metaserver/rules",
	"bytes", "cmp", "crypto/sha256", "encoding/binary", "fmt", "math", "slices", "strings",
}

// TestPure keeps apply deterministic: no other imports, no goroutines, and no
// loop over a map.
func TestPure(t *testing.T) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		seen++
		fset := token.NewFileSet()
		parsed, err := parser.ParseFile(fset, f.Name(), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, imp := range parsed.Imports {
			if path, err := strconv.Unquote(imp.Path.Value); err != nil || !slices.Contains(allowed, path) {
				t.Errorf("%s imports %s", f.Name(), imp.Path.Value)
			}
		}
		maps := mapNames(parsed)
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch x := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%v: goroutine", fset.Position(x.Pos()))
			case *ast.RangeStmt:
				if id, ok := x.X.(*ast.Ident); ok && slices.Contains(maps, id.Name) {
					t.Errorf("%v: loop over map %s", fset.Position(x.Pos()), id.Name)
				}
				if sel, ok := x.X.(*ast.SelectorExpr); ok && slices.Contains(maps, sel.Sel.Name) {
					t.Errorf("%v: loop over map %s", fset.Position(x.Pos()), sel.Sel.Name)
				}
			}
			return true
		})
	}
	if seen < 10 {
		t.Errorf("only %d files seen", seen)
	}
}

// mapNames gives the names of fields that are maps and of variables made as
// maps in a file.
func mapNames(file *ast.File) (names []string) {
	ast.Inspect(file, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.Field:
			if _, ok := x.Type.(*ast.MapType); ok {
				for _, id := range x.Names {
					names = append(names, id.Name)
				}
			}
		case *ast.AssignStmt:
			for i, v := range x.Rhs {
				call, ok := v.(*ast.CallExpr)
				if !ok || len(call.Args) == 0 {
					continue
				}
				if _, ok := call.Args[0].(*ast.MapType); ok {
					if id, ok := x.Lhs[i].(*ast.Ident); ok {
						names = append(names, id.Name)
					}
				}
			}
		}
		return true
	})
	return names
}
