//go:build linux

package coppice_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/fdipc"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func init() {
	trees["a shell with a child"] = func() coppice.Config {
		return coppice.Config{Children: []coppice.ChildSpec{coppice.Process{
			Name: "shell", Command: []string{"sh", "-c", "sleep 3600 & echo pids $$ $!; wait"},
		}}}
	}
}

// TestGrandchildOutlivesMaster: when the master is killed, a program dies with it, but the
// processes that the program has started do not. The kernel's signal reaches one process, and no
// process is left that could send another. It is a limit, not a promise.
func TestGrandchildOutlivesMaster(t *testing.T) {
	p := runtimetest.Start(t, []string{masterVar + "=1", treeVar + "=a shell with a child"})
	pids := p.Await(`pids (\d+) (\d+)$`)
	shell, errShell := strconv.Atoi(pids[1])
	grandchild, errGrandchild := strconv.Atoi(pids[2])
	if errShell != nil || errGrandchild != nil {
		t.Fatal(pids)
	}
	p.Signal(syscall.SIGKILL)
	runtimetest.Eventually(t, "the program dies with the master", func() bool { return !runtimetest.Alive(shell) })
	if !runtimetest.Alive(grandchild) {
		t.Error("the grandchild has died too: docs/processes.md says otherwise")
	}
	if err := syscall.Kill(grandchild, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

// TestNoMasterBehindChannel: a program is started with a channel that is a socket, but has no peer,
// or a peer that closes it without a frame. It does not take itself for a master: it says so and
// ends with 2.
func TestNoMasterBehindChannel(t *testing.T) {
	for _, gone := range []bool{true, false} {
		mine, its, err := fdipc.Socketpair()
		if err != nil {
			t.Fatal(err)
		}
		if gone {
			mine.Close()
		}
		p := runtimetest.StartWith(t, []string{"COPPICE_CHANNEL=3", treeVar + "=served"}, []*os.File{its})
		its.Close()
		if !gone {
			runtimetest.Eventually(t, "it speaks first", func() bool { // as every end of a channel does
				rc, err := mine.SyscallConn()
				if err != nil {
					t.Fatal(err)
				}
				var n int
				_ = rc.Control(func(fd uintptr) {
					n, _, _ = syscall.Recvfrom(int(fd), make([]byte, 4096), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
				})
				return n > 0
			})
			mine.Close()
		}
		p.Await(`the master is gone|peer`)
		if code := p.Wait(); code != 2 {
			t.Errorf("exit code %d, want 2", code)
		}
	}
}

// logged is a log that can be read while it is written.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestListenerDiesInShutdown: the listener process hangs when the tree is shut
// down, and dies while the master waits for it: the shutdown goes on and is one in
// order.
func TestListenerDiesInShutdown(t *testing.T) {
	t.Setenv(treeVar, "served")
	var log logged
	cfg := withReports(trees["served"](), nil)
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	rt, err := coppice.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	listener := (&runningTree{Runtime: rt, t: t}).pid("listener")
	runtimetest.Freeze(t, listener)
	ctx, cancel := context.WithTimeout(context.Background(), runtimetest.Patience)
	defer cancel()
	down := make(chan error, 1)
	go func() { down <- rt.Shutdown(ctx) }()
	runtimetest.Eventually(t, "the shutdown has begun", func() bool { return strings.Contains(log.String(), "shutting down") })
	if err := syscall.Kill(listener, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-down; err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if kids := runtimetest.Children(t, os.Getpid()); len(kids) != 0 {
		t.Errorf("children left: %v", kids)
	}
}
