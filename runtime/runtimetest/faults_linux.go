package runtimetest

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	coppice "github.com/coppice-go/coppice/runtime"
)

// Faults strike the processes of a tree at points that the code under test names. The code tells
// of a point by a variable of its own, which the test sets to [Faults.At] before it calls [Tree]:
//
//	var at = func(point string) {} // in the program: at("between the two writes")
//
//	faults := runtimetest.NewFaults(t) // in the test
//	at = faults.At
//	rt := runtimetest.Tree(t, tree())
//	faults.Kill("between the two writes")
//
// Each order strikes once, in the process that comes to the point first. Workers find the orders in
// the directory for temporary files, which a sandbox may hide from them. A process that still
// stalls when the tree ends is killed at the end of its Shutdown time.
type Faults struct {
	t   testing.TB
	dir string
}

// NewFaults returns the faults of a test, in each process that runs it as far as the call of Tree.
func NewFaults(t testing.TB) *Faults {
	t.Helper()
	master, child := os.Getpid(), coppice.IsChild()
	if child {
		master = os.Getppid()
	}
	f := &Faults{t, filepath.Join(os.TempDir(), fmt.Sprintf("coppice-faults-%d-%s", master, url.PathEscape(t.Name())))}
	if !child {
		if err := os.Mkdir(f.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			struck, _ := filepath.Glob(filepath.Join(f.dir, "struck-*"))
			for _, gate := range struck { // a goroutine of this process may stall there
				if g, err := os.OpenFile(gate, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
					g.Close()
				}
			}
			os.RemoveAll(f.dir)
		})
	}
	return f
}

// file returns the path of an order, or of the sign that it was followed.
func (f *Faults) file(what, point string) string {
	return filepath.Join(f.dir, what+"-"+url.PathEscape(point))
}

// At does what was ordered for this point: nothing, most of the time.
func (f *Faults) At(point string) {
	if os.Rename(f.file("kill", point), f.file("struck", point)) == nil {
		if !coppice.IsChild() {
			f.t.Errorf("%s is in the test's own process, which is not killed", point)
			return
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until it arrives
	}
	if os.Rename(f.file("stall", point), f.file("struck", point)) == nil {
		if gate, err := os.Open(f.file("struck", point)); err == nil { // blocks until Release
			gate.Close()
		}
	}
}

// Kill has the next process that comes to the point end by SIGKILL. The point must be in a process
// of the tree that is not the test's own.
func (f *Faults) Kill(point string) {
	f.t.Helper()
	_ = os.Remove(f.file("struck", point))
	if err := os.WriteFile(f.file("kill", point), nil, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// Stall has the next goroutine that comes to the point wait there until [Faults.Release].
func (f *Faults) Stall(point string) {
	f.t.Helper()
	_ = os.Remove(f.file("struck", point))
	if err := syscall.Mkfifo(f.file("stall", point), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// Await waits until the latest order for the point was followed.
func (f *Faults) Await(point string) {
	f.t.Helper()
	Eventually(f.t, "a process comes to "+point, func() bool {
		_, err := os.Stat(f.file("struck", point))
		return err == nil
	})
}

// Release waits until a goroutine stalls at the point, and lets it go on.
func (f *Faults) Release(point string) {
	f.t.Helper()
	Eventually(f.t, "a goroutine stalls at "+point, func() bool {
		gate, err := os.OpenFile(f.file("struck", point), os.O_WRONLY|syscall.O_NONBLOCK, 0) // ENXIO while none reads
		if err == nil {
			gate.Close()
		}
		return err == nil
	})
}

// NoDescriptors has each further open, accept, pipe or socket of process pid fail with EMFILE, and
// returns a function that ends it; the end of the test does too. What is open stays so.
func NoDescriptors(t testing.TB, pid int) (restore func()) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &was); err != nil {
		t.Fatalf("limit of descriptors: %v", err)
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: was.Max}, nil); err != nil {
		t.Fatalf("limit of descriptors: %v", err)
	}
	restore = func() { _ = unix.Prlimit(pid, unix.RLIMIT_NOFILE, &was, nil) } // else it has ended
	t.Cleanup(restore)
	return restore
}
