package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestObservability: observability.md names every span and every attribute of
// ours that tracing/names.go does.
func TestObservability(t *testing.T) {
	b, err := os.ReadFile("observability.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(b)
	f, err := parser.ParseFile(token.NewFileSet(), "../tracing/names.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	names := 0
	ast.Inspect(f, func(n ast.Node) bool {
		if _, ok := n.(*ast.ImportSpec); ok {
			return false
		}
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			name, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			names++
			if !strings.Contains(doc, "`"+name+"`") && !strings.Contains(doc, " "+name) {
				t.Errorf("observability.md does not name %s", name)
			}
		}
		return true
	})
	if names == 0 {
		t.Error("no names found")
	}
}

// TestObservabilityOfMetrics: observability.md names every instrument.
func TestObservabilityOfMetrics(t *testing.T) {
	b, err := os.ReadFile("observability.md")
	if err != nil {
		t.Fatal(err)
	}
	f, err := parser.ParseFile(token.NewFileSet(), "../tracing/instruments.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	names := 0
	ast.Inspect(f, func(n ast.Node) bool {
		if c, ok := n.(*ast.CompositeLit); ok && len(c.Elts) == 4 {
			if lit, ok := c.Elts[0].(*ast.BasicLit); ok {
				names++
				if name, _ := strconv.Unquote(lit.Value); !strings.Contains(string(b), "`"+name+"`") {
					t.Errorf("observability.md does not name %s", name)
				}
			}
		}
		return true
	})
	if names == 0 {
		t.Error("no instruments found")
	}
}
