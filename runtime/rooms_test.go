package coppice_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// rooms are the packages below runtime/internal, and for each the rooms that it imports.
var rooms = map[string][]string{
	"childproto":  nil,
	"httpdrain":   nil,
	"liveness":    {"childproto"},
	"logqueue":    {"queue"},
	"memfile":     nil,
	"notify":      {"queue"},
	"output":      {"queue"},
	"pool":        nil,
	"process":     nil,
	"queue":       nil,
	"readiness":   {"notify"},
	"seccomptest": nil,
	"telemetry":   {"childproto", "pool"},
	"tickets":     {"childproto"},
}

// TestArrowsBetweenRooms checks that the rooms of the runtime import each other as the table says,
// and never the runtime itself.
func TestArrowsBetweenRooms(t *testing.T) {
	const inside = module + "/runtime/internal/"
	seen := map[string]map[string]bool{}
	forEachGoFile(t, func(file string, imports []string) {
		room, ok := strings.CutPrefix(path.Dir(file), "runtime/internal/")
		if !ok {
			return
		}
		test := strings.HasSuffix(file, "_test.go")
		if seen[room] == nil {
			seen[room] = map[string]bool{}
		}
		for _, p := range imports {
			if p == module+"/runtime" {
				t.Errorf("%s imports the runtime: a room takes values and functions from it", file)
			}
			if other, ok := strings.CutPrefix(p, inside); ok && other != room && !test {
				seen[room][other] = true
			}
		}
	})
	for room, imports := range seen {
		if got := slices.Sorted(maps.Keys(imports)); !slices.Equal(got, rooms[room]) {
			t.Errorf("room %s imports %q; the table says %q", room, got, rooms[room])
		}
	}
	for room := range rooms {
		if seen[room] == nil {
			t.Errorf("the table has room %s, which does not exist", room)
		}
	}
}

// maxCircle bounds the largest circle of files of the root package: files of which each depends on
// each other, directly or through others.
const maxCircle = 58

// compositionFiles are the files of the API that may use types of the master's and of the child's
// side: they put the tree together.
var compositionFiles = []string{"runtime.go", "main.go"}

// TestCircleOfFiles logs the largest circle of files of the root package, and keeps it from
// growing.
func TestCircleOfFiles(t *testing.T) {
	files, to := fileArrows(t)
	arrows := 0
	for _, a := range to {
		arrows += len(a)
	}
	circle := largestCircle(files, to)
	t.Logf("%d files, %d arrows between them, the largest circle has %d: %s", len(files), arrows, len(circle), strings.Join(circle, " "))
	if len(circle) > maxCircle {
		t.Errorf("the largest circle has %d files, more than %d", len(circle), maxCircle)
	}
}

// fileArrows returns the files of the root package and for each file the files whose names,
// fields and methods it uses.
func fileArrows(t *testing.T) (files []string, to map[string]map[string]bool) {
	t.Helper()
	exports := exportData(t)
	fset := token.NewFileSet()
	var syntax []*ast.File
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !exports.built[name] {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files, syntax = append(files, name), append(syntax, f)
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	open := func(path string) (io.ReadCloser, error) { return os.Open(exports.of[path]) }
	pkg, err := (&types.Config{Importer: importer.ForCompiler(fset, "gc", open)}).Check(module+"/runtime", fset, syntax, info)
	if err != nil {
		t.Fatal(err)
	}
	to = map[string]map[string]bool{}
	for id, obj := range info.Uses {
		if obj.Pkg() != pkg || !shared(obj, pkg) {
			continue
		}
		from, used := fset.Position(id.Pos()).Filename, fset.Position(obj.Pos()).Filename
		if from == used {
			continue
		}
		if to[from] == nil {
			to[from] = map[string]bool{}
		}
		to[from][used] = true
	}
	return files, to
}

// shared reports whether other files can use obj: a package-level name, a field or a method.
func shared(obj types.Object, p *types.Package) bool {
	switch o := obj.(type) {
	case *types.Var:
		return o.IsField() || o.Parent() == p.Scope()
	case *types.Func:
		return true
	case *types.TypeName, *types.Const:
		return obj.Parent() == p.Scope()
	}
	return false
}

// exported is what go list says: where the export data of each package are, and which files the
// root package is built of.
type exported struct {
	of    map[string]string
	built map[string]bool
}

func exportData(t *testing.T) exported {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-export", "-json=ImportPath,Export,GoFiles", ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	e := exported{map[string]string{}, map[string]bool{}}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath, Export string
			GoFiles            []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return e
		} else if err != nil {
			t.Fatal(err)
		}
		e.of[p.ImportPath] = p.Export
		if p.ImportPath == module+"/runtime" {
			for _, f := range p.GoFiles {
				e.built[f] = true
			}
		}
	}
}

// largestCircle returns the largest strongly connected component of more than one file, by
// Tarjan's algorithm.
func largestCircle(files []string, to map[string]map[string]bool) (largest []string) {
	var stack []string
	index, low, on := map[string]int{}, map[string]int{}, map[string]bool{}
	var visit func(string)
	visit = func(v string) {
		index[v] = len(index) + 1
		low[v], on[v] = index[v], true
		stack = append(stack, v)
		for w := range to[v] {
			if index[w] == 0 {
				visit(w)
				low[v] = min(low[v], low[w])
			} else if on[w] {
				low[v] = min(low[v], index[w])
			}
		}
		if low[v] != index[v] {
			return
		}
		i := slices.Index(stack, v)
		for _, w := range stack[i:] {
			on[w] = false
		}
		if circle := slices.Sorted(slices.Values(stack[i:])); len(circle) > max(1, len(largest)) {
			largest = circle
		}
		stack = stack[:i]
	}
	for _, f := range files {
		if index[f] == 0 {
			visit(f)
		}
	}
	return largest
}
