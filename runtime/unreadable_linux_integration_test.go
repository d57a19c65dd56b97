//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func init() {
	trees["of a program that may not be read"] = func() coppice.Config {
		self, err := os.Executable()
		if err != nil {
			panic(err)
		}
		if os.Getuid() == 0 {
			panic(execAsNobody(self))
		}
		if f, err := os.Open(self); !errors.Is(err, os.ErrPermission) {
			panic(fmt.Sprintf("%v may be read (%v): the test shows nothing", f, err))
		}
		return coppice.Config{
			Hooks: coppice.Hooks{Started: func(rt *coppice.Runtime) { fmt.Println("up at", rt.Listeners()[0].Addr) }},
			Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Size: 1, Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				return w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
					fmt.Fprintf(rw, "%d of generation %d", os.Getpid(), w.Generation())
				})})
			}}},
		}
	}
}

// execAsNobody runs this program again, in its own directory, as a user without rights.
func execAsNobody(self string) error {
	return errors.Join(os.Chdir(filepath.Dir(self)), syscall.Setgroups(nil), syscall.Setgid(65534), syscall.Setuid(65534),
		syscall.Exec(self, os.Args, os.Environ()))
}

// TestUnreadableProgram: a program that its user may run and not read (mode 0711) has a tree: it
// starts, replaces a worker, even when its file is gone and another is in its place, reloads and
// ends.
func TestUnreadableProgram(t *testing.T) {
	dir, err := os.MkdirTemp("", "") //nolint:usetesting // t.TempDir is in a directory that only its owner may enter
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	mode := os.FileMode(0o711)
	if os.Getuid() != 0 { // it is the owner
		mode = 0o111
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o711), os.WriteFile(dir+"/program", b, mode)); err != nil {
		t.Fatal(err)
	}
	p := runtimetest.StartAt(t, dir+"/program", []string{treeVar + "=of a program that may not be read"})
	addr := p.Await(`up at (.+)`)[1]
	var before, now, generation int
	ask := func(pid *int) {
		t.Helper()
		if got := get(t, addr); !scans(got, "%d of generation %d", pid, &generation) {
			t.Fatalf("got %q", got)
		}
	}
	ask(&before)
	if err := errors.Join(os.Rename(dir+"/program", dir+"/good"), os.WriteFile(dir+"/program", []byte("#!/bin/false\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if ask(&now); now == before || generation != 1 {
		t.Errorf("killed: pid %d of generation %d answers", now, generation)
	}
	if err := os.Rename(dir+"/good", dir+"/program"); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGHUP)
	p.Await(`reloaded generation=2 `)
	if ask(&before); before == now || generation != 2 {
		t.Errorf("reloaded: pid %d of generation %d answers", before, generation)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func scans(s, format string, to ...any) bool {
	n, err := fmt.Sscanf(s, format, to...)
	return err == nil && n == len(to)
}
