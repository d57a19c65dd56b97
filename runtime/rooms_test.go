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
	"autoscale":    nil,
	"canary":       nil,
	"cgroup":       nil,
	"child":        {"canary", "childproto", "declaration", "httpdrain", "inflight", "memfile", "pool", "process", "stacks", "telemetry"},
	"childproto":   {"canary", "declaration", "stacks"},
	"control":      nil,
	"declaration":  nil,
	"handover":     {"childproto", "declaration", "pool", "process", "telemetry"},
	"history":      nil,
	"httpdrain":    nil,
	"image":        {"mark"},
	"inflight":     nil,
	"liveness":     {"canary", "childproto"},
	"logqueue":     {"queue"},
	"mark":         nil,
	"memfile":      nil,
	"notify":       {"queue"},
	"output":       {"queue"},
	"pool":         nil,
	"process":      {"image", "mark", "wall"},
	"quarantine":   nil,
	"queue":        nil,
	"readiness":    {"notify"},
	"scenariotest": nil,
	"seal":         nil,
	"seccomptest":  nil,
	"signalrules":  nil,
	"stacks":       {"logqueue"},
	"started":      nil,
	"telemetry":    {"childproto", "pool"},
	"testrun":      nil,
	"tickets":      {"childproto"},
	"wall":         {"seal"},
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
const maxCircle = 8

// apiFiles are files of the root package that users meet: specs, what a worker may ask, and what is
// reported of a tree. They use types of each other, of specFiles and of compositionFiles alone.
var (
	apiFiles = []string{
		"alone.go", "autoscale.go", "canary.go", "config.go", "control.go", "crash.go", "crashfiles.go", "environment.go", "errors.go", "exit.go", "file.go", "identity.go", "invalid.go",
		"listener.go", "listenerinfo.go", "liveness.go", "nesting.go", "output.go", "event.go", "poison.go", "ready.go", "recycle.go", "requesttimeout.go", "resources.go", "sandbox.go",
		"service.go", "spec.go", "status.go", "stopping.go", "tickets.go", "worker.go",
	}
	// specFiles have the parsed tree, and what a worker asks the master for its state by.
	specFiles = []string{"tree.go", "treeactor.go"}

	// compositionFiles put the tree together, and know both sides.
	compositionFiles = []string{"runtime.go", "main.go"}
)

// TestAPIKnowsNoSide checks that no file of the API depends on a type of the master's or of the
// child's side.
func TestAPIKnowsNoSide(t *testing.T) {
	if testing.Short() {
		t.Skip("it reads the whole package by its types")
	}
	files, _, typed := fileArrows(t)
	for _, f := range apiFiles {
		if !slices.Contains(files, f) {
			t.Errorf("the list has %s, which does not exist", f)
		}
		for to, names := range typed[f] {
			if !slices.Contains(slices.Concat(apiFiles, specFiles, compositionFiles), to) {
				t.Errorf("%s uses %s of %s", f, strings.Join(slices.Sorted(maps.Keys(names)), ", "), to)
			}
		}
	}
}

// TestCircleOfFiles logs the largest circle of files of the root package, and keeps it from
// growing.
func TestCircleOfFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("it reads the whole package by its types")
	}
	files, to, _ := fileArrows(t)
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

// fileArrows returns the files of the root package; for each file the files whose names, fields and
// methods it uses; and for each such pair the types, fields and methods among them.
func fileArrows(t *testing.T) (files []string, to map[string]map[string]bool, typed map[string]map[string]map[string]bool) {
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
	to, typed = map[string]map[string]bool{}, map[string]map[string]map[string]bool{}
	for id, obj := range info.Uses {
		if obj.Pkg() != pkg || !shared(obj, pkg) {
			continue
		}
		from, used := fset.Position(id.Pos()).Filename, fset.Position(obj.Pos()).Filename
		if from == used {
			continue
		}
		if to[from] == nil {
			to[from], typed[from] = map[string]bool{}, map[string]map[string]bool{}
		}
		to[from][used] = true
		if isTyped(obj) {
			if typed[from][used] == nil {
				typed[from][used] = map[string]bool{}
			}
			typed[from][used][obj.Name()] = true
		}
	}
	return files, to, typed
}

// isTyped reports whether obj is a type, or a field or a method of one.
func isTyped(obj types.Object) bool {
	switch o := obj.(type) {
	case *types.TypeName:
		return true
	case *types.Var:
		return o.IsField()
	case *types.Func:
		return o.Signature().Recv() != nil
	}
	return false
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
