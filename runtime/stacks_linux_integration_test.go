//go:build linux

package coppice_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// TestStacks (P78): the stacks of the goroutines of a live process, of every kind, without ending
// any of them.
func TestStacks(t *testing.T) { inBoth(t, testStacks) }

func testStacks(t *testing.T) {
	setOrder("serve")
	p := startTree(t, "reloads")
	before := p.slots()
	for name, n := range before {
		stacks, err := p.Stacks(t.Context(), n.ID)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := "runtime_test.obedient("
		if n.Role == "listener" {
			want = "dispatchConnections("
		}
		if !bytes.Contains(stacks, []byte(want)) {
			t.Errorf("%s does not say that it is in %s:\n%s", name, want, stacks)
		}
	}
	if stacks, err := p.Stacks(t.Context(), 0); err != nil || !bytes.Contains(stacks, []byte("runtime_test.testStacks(")) {
		t.Errorf("the master: %v\n%s", err, stacks)
	}
	if _, err := p.Stacks(t.Context(), 1<<20); !errors.Is(err, coppice.ErrNoChild) {
		t.Errorf("nobody: %v", err)
	}
	for name, n := range p.slots() {
		if n.ID != before[name].ID {
			t.Errorf("%s was replaced", name)
		}
	}
}

// TestStacksOfMany: the text of a process is bounded, and arrives.
func TestStacksOfMany(t *testing.T) {
	t.Setenv("COPPICE_ISOLATION", coppice.GoroutineIsolation.String())
	setOrder("serve")
	p := startTree(t, "reloads")
	free := make(chan struct{})
	defer close(free)
	for range 10_000 { // of the same process as the worker
		go func() { <-free }()
	}
	for range 3 {
		stacks, err := p.Stacks(t.Context(), p.slots()["web/0"].ID)
		if err != nil || len(stacks) != 1<<20 {
			t.Errorf("%d bytes, %v", len(stacks), err)
		}
	}
}

// TestStacksOfSilent: a process that does not answer costs the caller its context; if the process
// ends, the call returns at once.
func TestStacksOfSilent(t *testing.T) {
	setOrder("serve")
	p := startTree(t, "reloads")
	w := p.slots()["web/0"]
	runtimetest.Freeze(t, w.PID)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Stacks(ctx, w.ID); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "stacks of web/0: it has not answered: it hangs, or a signal has stopped it") {
		t.Errorf("error %v", err)
	}
	told := make(chan error, 1)
	go func() {
		_, err := p.Stacks(t.Context(), w.ID)
		told <- err
	}()
	if err := syscall.Kill(w.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-told; err == nil {
		t.Error("a process that was stopped and killed has told its stacks")
	}
}
