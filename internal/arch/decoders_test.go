package arch

import (
	"go/ast"
	"strings"
	"testing"
)

// typeName is a type of the repository.
type typeName struct{ dir, name string }

func (n typeName) String() string { return n.dir + "." + n.name }

// Every layout is fuzzed: bytes from a disk or a peer may be anything. A type
// with a method Wire(*wire.Coder) is covered when a test file that holds a
// Fuzz function names it (see package wiretest for the usual way), or when it
// is a field of a covered type.
func TestEveryDecoderIsFuzzed(t *testing.T) {
	layouts := map[typeName]source{} // types with a Wire method
	fields := map[typeName][]typeName{}
	covered := map[typeName]bool{}
	for _, s := range sources(t) {
		switch {
		case s.test && hasFuzz(s.ast):
			for _, n := range s.named(s.ast) {
				covered[n] = true
			}
		case !s.test:
			s.layouts(layouts, fields)
		}
	}
	if len(layouts) == 0 {
		t.Fatal("no type with a Wire method found")
	}
	for grown := true; grown; {
		grown = false
		for n := range covered {
			if _, ok := layouts[n]; !ok {
				continue
			}
			for _, f := range fields[n] {
				grown = grown || !covered[f]
				covered[f] = true
			}
		}
	}
	for n, s := range layouts {
		if !covered[n] {
			t.Errorf("%v (%s) is decoded but not fuzzed: add it to FuzzDecoders in %s/decoders_test.go", n, s.path, n.dir)
		}
	}
}

func hasFuzz(f *ast.File) bool {
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Fuzz") {
			return true
		}
	}
	return false
}

// layouts collects the types of s with a Wire method, and for every type the
// types that its definition names.
func (s source) layouts(layouts map[typeName]source, fields map[typeName][]typeName) {
	for _, d := range s.ast.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.Name == "Wire" && d.Recv != nil && d.Type.Params.NumFields() == 1 && takesCoder(d) {
				layouts[typeName{s.dir, receiver(d)}] = s
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if ts, ok := spec.(*ast.TypeSpec); ok {
					n := typeName{s.dir, ts.Name.Name}
					fields[n] = append(fields[n], s.named(ts.Type)...)
				}
			}
		}
	}
}

// takesCoder tells whether f's parameter is a *wire.Coder.
func takesCoder(f *ast.FuncDecl) bool {
	star, ok := f.Type.Params.List[0].Type.(*ast.StarExpr)
	if !ok {
		return false
	}
	switch x := star.X.(type) {
	case *ast.SelectorExpr:
		return x.Sel.Name == "Coder"
	case *ast.Ident: // in package wire itself
		return x.Name == "Coder"
	}
	return false
}

func receiver(f *ast.FuncDecl) string {
	e := f.Recv.List[0].Type
	if star, ok := e.(*ast.StarExpr); ok {
		e = star.X
	}
	if ix, ok := e.(*ast.IndexExpr); ok {
		e = ix.X
	}
	if id, ok := e.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}

// named lists what n may name: identifiers as names of the file's package,
// selectors as names of an imported package of this repository.
func (s source) named(n ast.Node) []typeName {
	imports := s.imports()
	var out []typeName
	ast.Inspect(n, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.SelectorExpr:
			if id, ok := x.X.(*ast.Ident); ok {
				if dir, ours := strings.CutPrefix(imports[id.Name], module+"/"); ours {
					out = append(out, typeName{dir, x.Sel.Name})
				}
			}
		case *ast.Ident:
			out = append(out, typeName{s.dir, x.Name})
		}
		return true
	})
	return out
}
