// Package examples tests the example programs that are modules of their own, because of their
// dependencies, the command coppicectl, the page in a browser, and the benchmarks in .bench; the
// others test themselves.
package examples

import (
	"errors"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestModules runs the tests of each module below this folder, of coppicectl, of the page and of
// .bench.
func TestModules(t *testing.T) {
	if testing.Short() {
		t.Skip("builds eight modules")
	}
	mods, err := filepath.Glob("*/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if len(mods) == 0 {
		t.Fatal("no modules found")
	}
	for _, mod := range append(mods, "../runtime/coppicectl/go.mod", "../runtime/dashboard/browsertest/go.mod", "../.bench/go.mod") {
		dir := filepath.Dir(mod)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			run := func(args ...string) error {
				cmd := exec.Command("go", args...)
				cmd.Dir = dir
				out, err := cmd.CombinedOutput()
				if err != nil || testing.Verbose() {
					t.Logf("go %v: %s", args, out)
				}
				return err
			}
			if err := run("mod", "download"); err != nil {
				if errors.Is(err, exec.ErrNotFound) {
					t.Skip("no go command")
				}
				t.Skip("its modules cannot be downloaded")
			}
			if err := run("test", "./..."); err != nil {
				t.Error(err)
			}
		})
	}
}
