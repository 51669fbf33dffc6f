package arch

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// Limits on sizes. What outgrows them holds more than one idea.
const (
	maxFileLines  = 600
	maxParameters = 6
	maxInterface  = 10
	maxFuncLines  = 100
)

func TestFileLength(t *testing.T) {
	for _, s := range sources(t) {
		if !s.generated && s.lines > maxFileLines {
			t.Errorf("%s has %d lines, more than %d", s.path, s.lines, maxFileLines)
		}
	}
}

// A package is named by what it provides; these names attract everything.
func TestNoDumpingGrounds(t *testing.T) {
	bad := []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "base", "lib"}
	for _, s := range sources(t) {
		if slices.Contains(bad, strings.TrimSuffix(s.ast.Name.Name, "_test")) {
			t.Errorf("%s: package %s is named by nothing it provides", s.path, s.ast.Name.Name)
		}
	}
}

// Long parameter lists are mixed up at the call; wide interfaces cannot be
// faked; library code has no hidden start.
func TestFunctions(t *testing.T) {
	for _, s := range sources(t) {
		if s.generated {
			continue
		}
		for _, d := range s.ast.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := f.Type.Params.NumFields(); n > maxParameters {
				t.Errorf("%s: %s has %d parameters, more than %d", s.line(f), f.Name.Name, n, maxParameters)
			}
			if f.Name.Name == "init" && f.Recv == nil {
				t.Errorf("%s: init function", s.line(f))
			}
			if n := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line; n > maxFuncLines && !s.test {
				t.Errorf("%s: %s has %d lines, more than %d", s.line(f), f.Name.Name, n, maxFuncLines)
			}
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			if it, ok := n.(*ast.InterfaceType); ok && it.Methods.NumFields() > maxInterface && !s.test {
				t.Errorf("%s: interface of %d methods, more than %d", s.line(n), it.Methods.NumFields(), maxInterface)
			}
			return true
		})
	}
}

// The package comment is the specification of the package.
func TestPackageDocs(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		text := s.ast.Doc.Text()
		start := "Package " + s.ast.Name.Name + " "
		if s.ast.Name.Name == "main" {
			start = "Command "
		}
		documented[s.dir] = documented[s.dir] || strings.HasPrefix(text, start)
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment", dir)
		}
	}
}

// An exported name is a promise; its comment says what is promised.
func TestExportedNamesAreDocumented(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || s.generated || s.ast.Name.Name == "main" {
			continue
		}
		for _, d := range s.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
					t.Errorf("%s: %s is not documented", s.line(d), d.Name.Name)
				}
			case *ast.GenDecl:
				s.checkSpecs(t, d)
			}
		}
	}
}

// checkSpecs wants a comment on a declaration, or on its group.
func (s source) checkSpecs(t *testing.T, d *ast.GenDecl) {
	if d.Tok == token.IMPORT || d.Doc != nil && d.Tok != token.TYPE {
		return
	}
	for _, spec := range d.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			if spec.Name.IsExported() && spec.Doc == nil && d.Doc == nil && spec.Comment == nil {
				t.Errorf("%s: type %s is not documented", s.line(spec), spec.Name.Name)
			}
		case *ast.ValueSpec:
			for _, name := range spec.Names {
				if name.IsExported() && spec.Doc == nil && spec.Comment == nil {
					t.Errorf("%s: %s is not documented", s.line(spec), name.Name)
				}
			}
		}
	}
}

// exportedReceiver tells whether f is a function or a method of an exported
// type.
func exportedReceiver(f *ast.FuncDecl) bool {
	if f.Recv == nil {
		return true
	}
	e := f.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return true
		}
	}
}
