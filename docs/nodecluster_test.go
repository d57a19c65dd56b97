package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestNodeCluster: node-cluster-tests.md has every number once, each with a test that exists, or
// with the reason why there is none.
func TestNodeCluster(t *testing.T) {
	b, err := os.ReadFile("node-cluster-tests.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	row := regexp.MustCompile(`^\| ([NX]\d+(?:, N\d+)*) \| .* \| (.+) \|$`)
	name := regexp.MustCompile("^`([a-z./]+)\\.(Test\\w+)(?:/([\\w-]+))?`$")
	for line := range strings.Lines(string(b)) {
		m := row.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		for number := range strings.SplitSeq(m[1], ", ") {
			if seen[number] {
				t.Errorf("%s stands there twice", number)
			}
			seen[number] = true
		}
		if strings.HasPrefix(m[2], "left out: ") {
			continue
		}
		for ref := range strings.SplitSeq(m[2], ", ") {
			n := name.FindStringSubmatch(ref)
			if n == nil {
				t.Errorf("%s: %s is neither a test nor a reason", m[1], ref)
			} else if !hasTest(t, n[1], n[2], n[3]) {
				t.Errorf("%s: there is no test %s", m[1], ref)
			}
		}
	}
	for _, all := range []struct {
		prefix string
		n      int
	}{{"N", 144}, {"X", 13}} {
		for i := range all.n {
			if number := all.prefix + strconv.Itoa(i+1); !seen[number] {
				t.Errorf("%s is missing", number)
			}
			delete(seen, all.prefix+strconv.Itoa(i+1))
		}
	}
	for number := range seen {
		t.Errorf("%s is none of the numbers", number)
	}
}

// hasTest reports whether a package has a test of that name, and a string in its file that begins,
// as the name of a subtest, with words among which sub is. Spaces in a subtest's name are written
// as -.
func hasTest(t *testing.T, pkg, test, sub string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", pkg, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	words := " " + strings.ReplaceAll(sub, "-", " ") + " "
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == test {
				found = sub == ""
				ast.Inspect(fn, func(n ast.Node) bool {
					if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
						if s, err := strconv.Unquote(lit.Value); err == nil && strings.Contains(" "+s+" ", words) {
							found = true
						}
					}
					return !found
				})
			}
		}
		if found {
			return true
		}
	}
	return false
}
