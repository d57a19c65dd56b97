package runtimetest

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	coppice "github.com/coppice-go/coppice/runtime"
)

// TestLeaksSeen: one of each kind is seen, by a name that says what it is, until it has gone.
func TestLeaksSeen(t *testing.T) {
	Leaks(t)
	before := holdings(t)
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	mapped, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	mem, err := syscall.Mmap(int(mapped.Fd()), 0, 4096, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	mapped.Close()
	cmd := exec.Command("sleep", "3600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() { <-end; close(ended) }()
	more := extra(before, holdings(t))
	for _, want := range []string{"descriptor ", "mapping: ", "child: process ", "goroutine "} {
		if !slices.ContainsFunc(more, func(s string) bool { return strings.HasPrefix(s, want) }) {
			t.Errorf("no %s in %q", want, more)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	close(end)
	<-ended
	f.Close()
	if err := syscall.Munmap(mem); err != nil {
		t.Fatal(err)
	}
}

// TestLeaksOfTree: a tree of processes that has ended leaves nothing in its master.
func TestLeaksOfTree(t *testing.T) {
	Leaks(t)
	rt := Tree(t, coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Size: 1, Worker: func(ctx context.Context, w *coppice.Worker) error {
		if _, err := w.Listen("tcp", "127.0.0.1:0"); err != nil {
			return err
		}
		if err := w.Ready(); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}}}})
	if !Alive(PID(t, rt, "web/0")) {
		t.Error("no worker process")
	}
}
