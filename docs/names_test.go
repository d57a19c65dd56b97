package docs_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
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

// TestDashboard: the metrics, and their labels, of the dashboard and of the alerts are those that
// Prometheus sees of the instruments.
func TestDashboard(t *testing.T) {
	source, err := os.ReadFile("../tracing/instruments.go")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	underscores := strings.NewReplacer(".", "_")
	for _, m := range regexp.MustCompile(`&Instrument\{"([^"]+)", "([^"]+)", (\w+),`).FindAllStringSubmatch(string(source), -1) {
		name := underscores.Replace(m[1])
		switch m[2] {
		case "s":
			name += "_seconds"
		case "By":
			name += "_bytes"
		}
		switch m[3] {
		case "Sum", "Seconds":
			known[name+"_total"] = true
		case "Level", "LevelSeconds":
			known[name] = true
		case "Duration", "LongDuration":
			known[name+"_bucket"], known[name+"_sum"], known[name+"_count"] = true, true, true
		default:
			t.Errorf("%s is of the unknown kind %s", m[1], m[3])
		}
	}
	names, err := os.ReadFile("../tracing/names.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`attribute\.Key\("([^"]+)"\)`).FindAllStringSubmatch(string(names), -1) {
		known[underscores.Replace(m[1])] = true
	}
	for _, file := range []string{"grafana.json", "alerts.yml"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if file == "grafana.json" && !json.Valid(b) {
			t.Errorf("%s is no JSON", file)
		}
		found := regexp.MustCompile(`\bcoppice_\w+`).FindAllString(string(b), -1)
		if len(found) == 0 {
			t.Errorf("%s names no metric", file)
		}
		for _, name := range found {
			if !known[name] {
				t.Errorf("%s: there is no %s", file, name)
			}
		}
	}
}
