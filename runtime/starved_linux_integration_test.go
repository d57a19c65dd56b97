//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func init() {
	trees["starved"] = func() coppice.Config {
		return pool(1, func(ctx context.Context, w *coppice.Worker) error {
			ln, err := w.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			go echoSlot(w, ln)
			if w.Slot() == 0 {
				if err := tell(ctx, w, workerReport{Slot: 0, Text: listenStarved(ctx, w)}); err != nil {
					return err
				}
			}
			if err := w.Ready(); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
	}
}

// listenStarved listens when this process has no descriptor for the socket, and then when it has
// one.
func listenStarved(ctx context.Context, w *coppice.Worker) string {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		return err.Error()
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1, Max: old.Max}); err != nil {
		return err.Error()
	}
	shared := coppice.ListenerSpec{Network: "tcp", Address: "127.0.0.1:0", Policy: coppice.Shared}
	_, err := w.ListenSpec(ctx, shared)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		return err.Error()
	}
	if !errors.Is(err, syscall.EMFILE) {
		return fmt.Sprint("without a descriptor: ", err)
	}
	if _, err = w.ListenSpec(ctx, shared); err != nil {
		return err.Error()
	}
	return ""
}

// TestOutOfDescriptors: a process has no descriptor for what another sends it. A worker's Listen
// returns the error that package net's would. A link is tried again until there are descriptors, as
// is a socket for the listener process, and nothing is replaced for it.
func TestOutOfDescriptors(t *testing.T) {
	p := startTree(t, "starved")
	if s := p.reported(1)[0].Text; s != "" {
		t.Error(s)
	}
	before := p.processes()
	var old unix.Rlimit
	limit := func(cur uint64) {
		t.Helper()
		if err := unix.Prlimit(before["listener"], unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: cur, Max: old.Max}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Prlimit(before["listener"], unix.RLIMIT_NOFILE, nil, &old); err != nil {
		t.Skip(err)
	}
	limit(1)
	err := p.StartChild(t.Context(), "", coppice.ListenerSpec{Name: "late", Network: "tcp", Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	scaled := make(chan error, 1)
	go func() { scaled <- p.Scale(t.Context(), "web", 2) }()
	runtimetest.Eventually(t, "the link to be tried again", func() bool {
		n := 0
		p.Snapshot().Walk(func(w coppice.Tree) { n = max(n, w.Relinked) })
		return n > 1
	})
	limit(old.Cur)
	if err := <-scaled; err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "both to serve, and the late listener to be known", func() bool {
		seen := map[string]bool{}
		for _, l := range p.Listeners() {
			if l.Name != "late" && l.Policy == coppice.RoundRobin {
				for range 4 {
					s, _ := answerOf(l.Addr.String())
					seen[s] = true
				}
			}
		}
		return seen["0"] && seen["1"]
	})
	runtimetest.Eventually(t, "the listener process to accept on the late one", func() bool {
		all, err := p.ListenerStats(t.Context())
		return err == nil && slices.ContainsFunc(all, func(l coppice.ListenerInfo) bool { return l.Name == "late" && l.Stats != nil })
	})
	now := p.processes()
	for _, name := range []string{"listener", "web/0"} {
		if now[name] != before[name] {
			t.Errorf("%s was replaced", name)
		}
	}
}
