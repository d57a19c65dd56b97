package coppice_test

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
)

// frameKinds are the packages that declare kinds of frames, and the ranges in which these lie. The
// handlers route by the ranges; section 8 of docs/protocol.md has them too.
var frameKinds = map[string][][2]fdipc.Kind{
	"fdipc":                       {{0x01, 0x10}}, // up to FirstUserKind
	"runtime/internal/childproto": {{0x10, 0x2f}, {0x50, 0x5f}},
	"actors/internal/wire":        {{0x30, 0x3f}},
	"netactor/internal/wire":      {{0x40, 0x4f}, {0x60, 0x6f}},
}

// TestFrameKinds checks each constant of type fdipc.Kind: it lies in a range of its package,
// no other has its value, and childproto.OwnKind, behind which the master bounds what a child
// sends, knows those of childproto and no others.
func TestFrameKinds(t *testing.T) {
	protocol, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	owner := map[fdipc.Kind]string{}
	for dir, kinds := range declaredKinds(t) {
		if dir == "actors/hosts/internal/trunk" {
			continue // it joins hosts: its own kinds never come over a channel of the tree
		}
		for name, k := range kinds {
			if !slices.ContainsFunc(frameKinds[dir], func(r [2]fdipc.Kind) bool { return r[0] <= k && k <= r[1] }) {
				t.Errorf("%s.%s is %#x, out of the ranges of its package", dir, name, k)
			}
			if name == "FirstUserKind" || name == "FirstKind" || name == "LastKind" { // bounds
				continue
			}
			if other, taken := owner[k]; taken {
				t.Errorf("%s.%s and %s are both %#x", dir, name, other, k)
			}
			owner[k] = dir + "." + name
			own := dir == "runtime/internal/childproto"
			if childproto.OwnKind(k) != own {
				t.Errorf("childproto.OwnKind(%s.%s) is %v", dir, name, !own)
			}
			if own && !strings.Contains(string(protocol), fmt.Sprintf("\n| %#x |", uint8(k))) {
				t.Errorf("docs/protocol.md has no row for %s, %#x", name, k)
			}
		}
	}
}

// declaredKinds returns the constants of type fdipc.Kind that the packages of the module declare
// outside of tests, by the directory of the package.
func declaredKinds(t *testing.T) map[string]map[string]fdipc.Kind {
	t.Helper()
	fset := token.NewFileSet()
	files := map[string][]*ast.File{}
	forEachGoFile(t, func(file string, imports []string) {
		dir := path.Dir(file)
		if strings.HasSuffix(file, "_test.go") || strings.HasPrefix(dir, "examples/") || dir != "fdipc" && !slices.Contains(imports, module+"/fdipc") {
			return
		}
		f, err := parser.ParseFile(fset, filepath.Join("..", file), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files[dir] = append(files[dir], f)
	})
	kinds := map[string]map[string]fdipc.Kind{}
	for dir, fs := range files {
		// Only constants are of interest: other imports are empty, and what lacks them is an error
		// that is ignored.
		cfg := types.Config{Error: func(error) {}, IgnoreFuncBodies: true, Importer: onlyKind{}}
		pkg, _ := cfg.Check(module+"/"+dir, fset, fs, nil)
		for _, name := range pkg.Scope().Names() {
			c, ok := pkg.Scope().Lookup(name).(*types.Const)
			if !ok || c.Type().String() != module+"/fdipc.Kind" {
				continue
			}
			if kinds[dir] == nil {
				kinds[dir] = map[string]fdipc.Kind{}
			}
			v, _ := constant.Uint64Val(c.Val())
			kinds[dir][name] = fdipc.Kind(v)
		}
	}
	if len(kinds) < len(frameKinds) {
		t.Errorf("kinds only in %d packages, of %d", len(kinds), len(frameKinds))
	}
	return kinds
}

// onlyKind imports packages without any names, but for the Kind of fdipc.
type onlyKind struct{}

func (onlyKind) Import(p string) (*types.Package, error) {
	pkg := types.NewPackage(p, path.Base(p))
	if p == module+"/fdipc" {
		name := types.NewTypeName(token.NoPos, pkg, "Kind", nil)
		types.NewNamed(name, types.Typ[types.Uint8], nil)
		pkg.Scope().Insert(name)
	}
	pkg.MarkComplete()
	return pkg, nil
}
