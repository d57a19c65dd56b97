package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestTypeNames: a type's name means one thing in the whole module. Where two packages declare a
// type of the same name, exported or not, the glossary's table "One name in several packages" has
// a row with exactly these packages. Programs, tests and test kits are not looked at.
func TestTypeNames(t *testing.T) {
	allowed := sharedNames(t)
	types := declaredTypes(t)
	if len(types) == 0 {
		t.Fatal("no types found")
	}
	for _, name := range slices.Sorted(maps.Keys(types)) {
		if pkgs := types[name]; len(pkgs) > 1 && !slices.Equal(pkgs, allowed[name]) {
			t.Errorf("type %s stands in %s; the glossary allows %q", name, strings.Join(pkgs, ", "), allowed[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(allowed)) {
		if len(types[name]) < 2 {
			t.Errorf("the glossary has a row for %s, which stands in %q only", name, types[name])
		}
	}
}

// declaredTypes returns each type that a file of the module declares outside a function, with the
// sorted directories of the packages that do.
func declaredTypes(t *testing.T) map[string][]string {
	t.Helper()
	types := make(map[string][]string)
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != ".." {
			if base := d.Name(); base[0] == '.' || base == "coppicectl" || strings.HasSuffix(base, "test") || base == "testdata" || base == "examples" || base == "docs" {
				return filepath.SkipDir
			}
		}
		if filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(filepath.Dir(strings.TrimPrefix(name, ".."+string(filepath.Separator))))
		for _, d := range f.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, s := range decl.Specs {
				if s, ok := s.(*ast.TypeSpec); ok && !alias(s) && !slices.Contains(types[s.Name.Name], pkg) {
					types[s.Name.Name] = append(types[s.Name.Name], pkg)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, pkgs := range types {
		slices.Sort(pkgs)
	}
	return types
}

// alias reports whether s gives a type of another package its own name, as Peek = netactor.Peek.
func alias(s *ast.TypeSpec) bool {
	sel, ok := s.Type.(*ast.SelectorExpr)
	return ok && s.Assign.IsValid() && sel.Sel.Name == s.Name.Name
}

// sharedNames returns the rows of the glossary's table of names that several packages declare.
func sharedNames(t *testing.T) map[string][]string {
	t.Helper()
	b, err := os.ReadFile("glossary.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(b), "\n## One name in several packages\n")
	if !ok {
		t.Fatal("the glossary has no section of names in several packages")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	rows := make(map[string][]string)
	row := regexp.MustCompile(`(?m)^\| (\w+) \| ([^|]+) \| .+ \|$`)
	pkg := regexp.MustCompile("`([a-z/]+)`")
	for _, m := range row.FindAllStringSubmatch(section, -1) {
		for _, p := range pkg.FindAllStringSubmatch(m[2], -1) {
			rows[m[1]] = append(rows[m[1]], p[1])
		}
		slices.Sort(rows[m[1]])
	}
	return rows
}
