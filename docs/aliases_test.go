package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestAliases: go doc shows no fields of an alias, so the comment of each exported one names every
// exported field of its type.
func TestAliases(t *testing.T) {
	found := 0
	for _, pkg := range []string{"actors", "fdipc", "netactor", "runtime", "supervisor", "tracing"} {
		for _, f := range parseFolder(t, pkg) {
			for _, spec := range typeSpecs(f) {
				of, ok := spec.Type.(*ast.SelectorExpr)
				if !ok || !spec.Assign.IsValid() || !spec.Name.IsExported() {
					continue
				}
				found++
				comment := spec.Doc.Text()
				for _, field := range exportedFields(t, imported(f, of.X.(*ast.Ident).Name), of.Sel.Name) {
					if !regexp.MustCompile(`\b` + field + `\b`).MatchString(comment) {
						t.Errorf("%s.%s: its comment does not name the field %s", pkg, spec.Name, field)
					}
				}
			}
		}
	}
	if found < 10 {
		t.Errorf("%d aliases found", found)
	}
}

// parseFolder parses the files of a package of the module, tests apart.
func parseFolder(t *testing.T, pkg string) (files []*ast.File) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("..", filepath.FromSlash(pkg), "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// typeSpecs returns the types that a file declares; each has its comment.
func typeSpecs(f *ast.File) (specs []*ast.TypeSpec) {
	for _, d := range f.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, s := range decl.Specs {
			if s, ok := s.(*ast.TypeSpec); ok {
				if s.Doc == nil {
					s.Doc = decl.Doc
				}
				specs = append(specs, s)
			}
		}
	}
	return specs
}

// imported returns the folder of the package of the module that f calls name.
func imported(f *ast.File, name string) string {
	for _, i := range f.Imports {
		at, _ := strconv.Unquote(i.Path.Value)
		if rest, ok := strings.CutPrefix(at, "github.com/coppice-go/coppice/"); ok && path.Base(at) == name {
			return rest
		}
	}
	return ""
}

// exportedFields returns the names of the fields of a struct; none for another type.
func exportedFields(t *testing.T, pkg, name string) (fields []string) {
	t.Helper()
	for _, f := range parseFolder(t, pkg) {
		for _, spec := range typeSpecs(f) {
			s, ok := spec.Type.(*ast.StructType)
			if !ok || spec.Name.Name != name {
				continue
			}
			for _, field := range s.Fields.List {
				for _, n := range field.Names {
					if n.IsExported() {
						fields = append(fields, n.Name)
					}
				}
			}
		}
	}
	return fields
}
