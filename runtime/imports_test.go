package coppice_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module   = "github.com/coppice-go/coppice"
	actorAPI = "github.com/asynkron/protoactor-go/actor"
	otelAPI  = "go.opentelemetry.io/otel"
)

// arrows is the package table of the design: what a package and those below it
// may import, of ours (directories) and from outside (prefixes), besides the
// standard library and itself. The same table stands in .golangci.yml.
var arrows = map[string]struct{ ours, outside []string }{
	"fdipc":      {nil, []string{"github.com/fxamacker/cbor/v2", "golang.org/x/sys"}},
	"supervisor": {nil, []string{"golang.org/x/sys"}},
	"tracing":    {nil, []string{otelAPI}},
	"tracing/otlp": {
		[]string{"tracing"},
		[]string{"go.opentelemetry.io", "google.golang.org/protobuf", "github.com/prometheus/client_golang/prometheus", "golang.org/x/sys"},
	},
	"tracing/grpctrace": {
		[]string{"tracing"},
		[]string{otelAPI, "google.golang.org/grpc"},
	},
	"actors": {
		[]string{"fdipc", "supervisor", "tracing"},
		[]string{actorAPI, otelAPI, "google.golang.org/protobuf", "github.com/fxamacker/cbor/v2"},
	},
	"actors/hosts": {
		[]string{"actors", "fdipc", "runtime", "supervisor", "tracing"},
		[]string{actorAPI, otelAPI, "golang.org/x/sys"},
	},
	"actors/hosts/etcd": {
		[]string{"actors", "actors/hosts", "runtime", "supervisor"},
		[]string{"go.etcd.io/etcd", "go.uber.org/zap", "google.golang.org/grpc"},
	},
	"netactor": {
		[]string{"actors", "fdipc", "tracing"},
		[]string{actorAPI, otelAPI, "github.com/fxamacker/cbor/v2", "golang.org/x/sys"},
	},
	"runtime": {
		[]string{"actors", "fdipc", "netactor", "supervisor", "tracing"},
		[]string{actorAPI, otelAPI, "golang.org/x/sys", "github.com/coreos/go-systemd/v22", "github.com/fxamacker/cbor/v2", "google.golang.org/protobuf"},
	},
	"runtime/grpcserver": {
		[]string{"tracing/grpctrace"},
		[]string{"google.golang.org/grpc"},
	},
	"examples": {
		[]string{"actors", "fdipc", "netactor", "runtime", "supervisor", "tracing"},
		[]string{actorAPI, otelAPI, "golang.org/x/sys"},
	},
	"docs": {nil, nil},
}

// publicRooms are packages below another that any package may import which may import that one.
var publicRooms = []string{"netactor/dispatch", "netactor/listen", "netactor/registry", "actors/hosts/seats", "runtime/dashboard", "runtime/jobs"}

// sdk is what only tracing/otlp uses, since a program is to choose whether it
// pays for it: OpenTelemetry's SDK and exporters.
var sdk = []string{otelAPI + "/sdk", otelAPI + "/exporters", "go.opentelemetry.io/proto", "go.opentelemetry.io/contrib"}

// topLevel are the entries of the root besides the packages and dot files.
var topLevel = []string{"LICENSE", "README.md", "go.mod", "go.sum"}

// artefacts are what .gitignore names.
var artefacts = []string{"bin", "*.test", "*.prof", "*.out"}

func TestArrowsBetweenPackages(t *testing.T) {
	files := 0
	forEachGoFile(t, func(file string, imports []string) {
		files++
		for _, p := range imports {
			if !mayImport(file, p) {
				t.Errorf("%s imports %s, which the design does not allow", file, p)
			}
		}
	})
	if files == 0 {
		t.Error("no Go files found")
	}
}

func TestMayImport(t *testing.T) {
	for _, row := range []struct {
		file, imports string
		want          bool
	}{
		{"fdipc/conn.go", "net/http", true},
		{"fdipc/conn_linux.go", "golang.org/x/sys/unix", true},
		{"fdipc/conn.go", module + "/fdipc/internal/wire", true},
		{"fdipc/conn.go", module + "/tracing", false},
		{"fdipc/conn_test.go", module + "/tracing", false},
		{"fdipc/conn_test.go", "golang.org/x/net/nettest", true},
		{"supervisor/rules.go", otelAPI + "/trace", false},
		{"supervisor/internal/rules/rules.go", module + "/fdipc", false},
		{"tracing/span.go", otelAPI + "/trace", true},
		{"tracing/span.go", otelAPI + "/sdk/trace", false},
		{"tracing/span_test.go", otelAPI + "/sdk/trace", true},
		{"tracing/span.go", module + "/tracing/otlp", false},
		{"tracing/span.go", module + "/tracing/otlp/otlptest", false},
		{"tracing/otlp/pipeline.go", otelAPI + "/sdk/trace", true},
		{"tracing/otlp/pipeline.go", module + "/tracing", true},
		{"tracing/otlp/pipeline.go", otelAPI + "/exporters/otlp/otlptrace/otlptracegrpc", false},
		{"tracing/otlp/otlpgrpc/otlpgrpc.go", otelAPI + "/exporters/otlp/otlptrace/otlptracegrpc", true},
		{"tracing/otlp/pipeline.go", module + "/runtime", false},
		{"actors/system.go", actorAPI, true},
		{"actors/system.go", "github.com/asynkron/protoactor-go/remote", false},
		{"netactor/registry/table.go", module + "/supervisor", false},
		{"runtime/runtime.go", module + "/netactor/registry", true},
		{"runtime/runtime.go", module + "/netactor/internal/wire", false},
		{"actors/system.go", module + "/netactor/listen", false},
		{"runtime/master.go", module + "/tracing/otlp", false},
		{"runtime/master.go", otelAPI + "/exporters/prometheus", false},
		{"runtime/trace_test.go", module + "/tracing/otlp", false},
		{"runtime/runtimetest/kit.go", module + "/tracing/otlp/otlptest", false},
		{"runtime/runtimetest/kit.go", module + "/examples/hello", false},
		{"supervisor/driver_test.go", module + "/tracing/otlp/otlptest", false},
		{"examples/hello/main.go", module + "/tracing/otlp", false},
		{"tracing/otlp/otlptest/trace.go", "go.opentelemetry.io/proto/otlp/trace/v1", true},
		{"netactor/link.go", module + "/tracing/otlp/otlptest", false},
		{"actors/hosts/names.go", module + "/actors/hosts/etcd", false},
		{"actors/hosts/names.go", "go.etcd.io/etcd/client/v3", false},
		{"actors/hosts/etcd/client.go", module + "/actors/hosts", true},
		{"unknown/x.go", "fmt", false},
	} {
		if got := mayImport(row.file, row.imports); got != row.want {
			t.Errorf("may %s import %s: %v, want %v", row.file, row.imports, got, row.want)
		}
	}
}

// mayImport reports whether the table allows file (a path below the root) to import p. Test files
// and test kits (<pkg>/<pkg>test) may use more: anything from outside, and the kits of the
// packages they may use.
func mayImport(file, p string) bool {
	dir := path.Dir(file)
	pkg, ok := owner(dir)
	if !ok {
		return false
	}
	test := strings.HasSuffix(file, "_test.go") || path.Base(dir) == path.Base(path.Dir(dir))+"test"

	if ours, ok := strings.CutPrefix(p, module+"/"); ok {
		from, _ := owner(ours)
		return from == pkg || slices.Contains(arrows[pkg].ours, from) && (test || ours == from || slices.Contains(publicRooms, ours))
	}
	if first, _, _ := strings.Cut(p, "/"); !strings.Contains(first, ".") || test {
		return true // the standard library
	}
	if pkg != "tracing/otlp" && slices.ContainsFunc(sdk, func(s string) bool { return within(p, s) }) {
		return false
	}
	if pkg == "tracing/otlp" && strings.HasSuffix(p, "grpc") && dir != "tracing/otlp/otlpgrpc" {
		return false // a program that exports by HTTP does not pay for it
	}
	return slices.ContainsFunc(arrows[pkg].outside, func(s string) bool {
		return p == s || s != actorAPI && within(p, s) // of protoactor-go the one package
	})
}

// owner returns the package of the table that the directory belongs to.
func owner(dir string) (pkg string, ok bool) {
	for ; dir != "."; dir = path.Dir(dir) {
		if _, ok := arrows[dir]; ok {
			return dir, true
		}
	}
	return "", false
}

// within reports whether the path p is dir or below it.
func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

func TestTopLevelEntries(t *testing.T) {
	allowed := slices.Clone(topLevel)
	for dir := range arrows {
		if !strings.Contains(dir, "/") {
			allowed = append(allowed, dir)
		}
	}
	entries, err := os.ReadDir(root(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || slices.Contains(allowed, name) || slices.ContainsFunc(artefacts, func(pattern string) bool {
			ok, err := path.Match(pattern, name)
			return ok && err == nil
		}) {
			continue
		}
		t.Errorf("%s stands at the top level, where only the packages of the design do", name)
	}
}

// The versions that build together. protoactor-go brings otel/sdk/metric
// v1.21.0, which lacks methods of the metric API of v1.47.0; the comment in
// go.mod is what keeps the next person from removing the line.
func TestPinnedModules(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	gomod := string(b)
	for _, want := range []string{
		"\tgithub.com/asynkron/protoactor-go v0.0.0-20240822202345-3c0e61ca19c9\n",
		"\tgo.opentelemetry.io/otel v1.47.0\n",
		"\tgo.opentelemetry.io/otel/sdk v1.47.0\n",
		"\tgo.opentelemetry.io/otel/sdk/metric v1.47.0",
		"// The three OpenTelemetry modules are pinned together",
	} {
		if !strings.Contains(gomod, want) {
			t.Errorf("go.mod lacks %q", want)
		}
	}
}

// forEachGoFile calls f with each Go file of the module, and of those that the table names,
// whatever system it is for: its path below the root, with slashes, and the paths it imports.
func forEachGoFile(t *testing.T, f func(file string, imports []string)) {
	t.Helper()
	top := root(t)
	err := filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name == top {
				return nil
			}
			rel, err := filepath.Rel(top, name)
			if _, listed := arrows[filepath.ToSlash(rel)]; err != nil || listed {
				return err
			}
			_, err = os.Stat(filepath.Join(name, "go.mod")) // a separate module
			if base := d.Name(); err == nil || base[0] == '.' || base[0] == '_' || base == "testdata" {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		var imports []string
		for _, spec := range file.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			imports = append(imports, p)
		}
		rel, err := filepath.Rel(top, name)
		if err != nil {
			return err
		}
		f(filepath.ToSlash(rel), imports)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// root returns the directory of go.mod.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatalf("this test runs in the module's directory runtime: %v", err)
	}
	return dir
}
