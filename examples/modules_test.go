// Package examples tests the modules of the repository besides the library's: the example programs
// that have dependencies of their own, what exports traces, the gRPC server, the command
// coppicectl, the page in a browser, and the benchmarks in .bench; the others test themselves.
package examples

import (
	"errors"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestModules runs the tests of each module of the repository.
func TestModules(t *testing.T) {
	if testing.Short() {
		t.Skip("builds each module")
	}
	var mods []string
	for _, where := range []string{"*", "../tracing/*", "../actors/hosts", "../actors/hosts/etcd", "../runtime/coppicectl", "../runtime/grpcserver", "../runtime/dashboard/browsertest", "../.bench"} {
		found, err := filepath.Glob(where + "/go.mod")
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 0 {
			t.Fatalf("no module at %s", where)
		}
		mods = append(mods, found...)
	}
	for _, mod := range mods {
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
