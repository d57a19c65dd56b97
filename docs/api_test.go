// Package docs_test checks the documents against the code.
package docs_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/printer"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write docs/api.txt anew")

// TestAPI compares the exported names of the public packages, as they are on
// Linux, with api.txt, so that a change of the API is seen in a review. Like the
// files of Go's own api directory it has one line per name. It is read off the
// syntax: what is promoted from an embedded type is not listed.
func TestAPI(t *testing.T) {
	got := api(t)
	if *rewrite {
		if err := os.WriteFile("api.txt", []byte(strings.Join(got, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile("api.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	for _, line := range missing(want, got) {
		t.Errorf("- %s", line)
	}
	for _, line := range missing(got, want) {
		t.Errorf("+ %s", line)
	}
	if t.Failed() {
		t.Error("docs/api.txt is out of date; read the difference, then: go test ./docs -rewrite")
	} else if !slices.Equal(got, want) {
		t.Error("docs/api.txt is not in order: go test ./docs -rewrite")
	}
}

// missing returns what of a is not in b.
func missing(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

// api returns the sorted lines of all public packages.
func api(t *testing.T) []string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir("..", func(dir string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || dir == ".." {
			return err
		}
		switch name := d.Name(); {
		case name[0] == '.', name[0] == '_', name == "internal", name == "testdata", name == "examples", name == "docs":
			return filepath.SkipDir
		}
		found, err := packageAPI(dir)
		lines = append(lines, found...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

// packageAPI returns the lines of the package in dir; none when there is none.
func packageAPI(dir string) ([]string, error) {
	linux := build.Default
	linux.GOOS, linux.GOARCH, linux.CgoEnabled = "linux", "amd64", false
	pkg, err := linux.ImportDir(dir, 0)
	if _, none := errors.AsType[*build.NoGoError](err); none || pkg.Name == "main" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	rel, err := filepath.Rel("..", dir)
	if err != nil {
		return nil, err
	}
	l := lister{prefix: "pkg " + filepath.ToSlash(rel) + ", "}
	for _, name := range pkg.GoFiles {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, d := range f.Decls {
			l.decl(d)
		}
	}
	return l.lines, nil
}

type lister struct {
	prefix string
	lines  []string
}

func (l *lister) add(format string, args ...any) {
	l.lines = append(l.lines, l.prefix+fmt.Sprintf(format, args...))
}

func (l *lister) decl(d ast.Decl) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if !d.Name.IsExported() || d.Recv != nil && !exportedReceiver(d.Recv.List[0].Type) {
			return
		}
		if d.Recv != nil {
			l.add("method (%s) %s%s", text(d.Recv.List[0].Type), d.Name, signature(d.Type))
			return
		}
		l.add("func %s%s", d.Name, signature(d.Type))
	case *ast.GenDecl:
		var inherited ast.Expr // the type of a constant without one: that of the line before
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.ValueSpec:
				if s.Type != nil || s.Values != nil {
					inherited = s.Type
				}
				for i, name := range s.Names {
					if !name.IsExported() {
						continue
					}
					line := d.Tok.String() + " " + name.Name
					if inherited != nil {
						line += " " + text(inherited)
					}
					if d.Tok == token.CONST && i < len(s.Values) && !strings.Contains(text(s.Values[i]), "iota") {
						line += " = " + text(s.Values[i])
					}
					l.add("%s", line)
				}
			case *ast.TypeSpec:
				if s.Name.IsExported() {
					l.typeSpec(s)
				}
			}
		}
	}
}

func (l *lister) typeSpec(s *ast.TypeSpec) {
	name := s.Name.Name
	if s.TypeParams != nil {
		name += "[" + fields(s.TypeParams) + "]"
	}
	switch t := s.Type.(type) {
	case *ast.StructType:
		l.add("type %s struct", name)
		for _, f := range t.Fields.List {
			if f.Names == nil && exportedReceiver(f.Type) {
				l.add("type %s struct, embedded %s", name, text(f.Type))
			}
			for _, n := range f.Names {
				if n.IsExported() {
					l.add("type %s struct, %s %s", name, n, text(f.Type))
				}
			}
		}
	case *ast.InterfaceType:
		l.add("type %s interface", name)
		for _, f := range t.Methods.List {
			ft, method := f.Type.(*ast.FuncType)
			switch {
			case !method:
				l.add("type %s interface, embedded %s", name, text(f.Type))
			case f.Names[0].IsExported():
				l.add("type %s interface, %s%s", name, f.Names[0], signature(ft))
			default:
				l.add("type %s interface, unexported methods", name)
			}
		}
	default:
		eq := ""
		if s.Assign.IsValid() {
			eq = "= "
		}
		l.add("type %s %s%s", name, eq, text(s.Type))
	}
}

// exportedReceiver reports whether the type named by e, perhaps behind a pointer
// or with type arguments, is exported.
func exportedReceiver(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.StarExpr:
		return exportedReceiver(e.X)
	case *ast.IndexExpr:
		return exportedReceiver(e.X)
	case *ast.IndexListExpr:
		return exportedReceiver(e.X)
	case *ast.SelectorExpr:
		return e.Sel.IsExported()
	case *ast.Ident:
		return e.IsExported()
	default:
		return false
	}
}

// signature returns the parameters and results of a function.
func signature(t *ast.FuncType) string {
	s := strings.TrimPrefix(text(&ast.FuncType{Params: t.Params, Results: t.Results}), "func")
	if t.TypeParams != nil {
		s = "[" + fields(t.TypeParams) + "]" + s
	}
	return s
}

// fields returns a list of type parameters.
func fields(l *ast.FieldList) string {
	var parts []string
	for _, f := range l.List {
		for _, n := range f.Names {
			parts = append(parts, n.Name+" "+text(f.Type))
		}
	}
	return strings.Join(parts, ", ")
}

// text returns the source of e on one line; "" for nil.
func text(e ast.Expr) string {
	if e == nil {
		return ""
	}
	var b bytes.Buffer
	if err := printer.Fprint(&b, token.NewFileSet(), e); err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(b.String()), " ")
}
