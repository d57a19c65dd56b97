package actors_test

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
)

// patience bounds every wait of this package. A test that runs into it fails.
const patience = time.Minute

// testContext returns a context for the calls of a test. It ends with the test, or after patience.
func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// newSystem returns a system that is shut down at the end of the test.
func newSystem(t testing.TB, cfg actors.Config) *actors.System {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := actors.NewSystem(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil { // of a test that leaks a handler on purpose
			t.Log(err)
		}
	})
	return s
}

// A testTree is a master and its children in one process, joined as the runtime joins processes: a
// connection from the master to each child, which knows the master as its uplink. The master has
// the address 0, the children 1, 2, 3 ..., never reused; the child in slot i has the name test/i.
type testTree struct {
	Master *actors.System

	host, boot string // of a host in a cluster: the addresses begin with the boot and a dot

	reading sync.RWMutex // held by what comes from a child; by Suspend, until what goes on is clear

	t     testing.TB
	mu    sync.Mutex
	last  int
	child map[int]*treeChild
}

type treeChild struct {
	sys    *actors.System
	conn   *fdipc.Conn // the child's end
	up     *pausable   // the master's
	gone   chan struct{}
	reason supervisor.Reason // guarded by testTree.mu: how the child ends
}

// newTree returns a tree with n children in the slots 0 to n-1.
func newTree(t testing.TB, n int) *testTree {
	t.Helper()
	return newHost(t, "", "", n)
}

// newHost returns the tree of a host in a cluster.
func newHost(t testing.TB, host, boot string, n int) *testTree {
	t.Helper()
	tree := &testTree{t: t, child: make(map[int]*treeChild), host: host}
	if host != "" {
		tree.boot = boot + "."
	}
	tree.Master = newSystem(t, actors.Config{Address: tree.boot + "0", Host: host})
	for i := range n {
		tree.Start(i)
	}
	return tree
}

// Child returns the system in a slot.
func (tree *testTree) Child(slot int) *actors.System {
	tree.mu.Lock()
	defer tree.mu.Unlock()
	return tree.child[slot].sys
}

// Start starts a child in a slot, which must be free, and gives it the slot's name.
func (tree *testTree) Start(slot int) *actors.System {
	tree.t.Helper()
	tree.mu.Lock()
	tree.last++
	address, incarnation := tree.boot+strconv.Itoa(tree.last), uint64(tree.last)
	tree.mu.Unlock()
	master := tree.Master.Address()
	sys := newSystem(tree.t, actors.Config{Address: address, Incarnation: incarnation, Host: tree.host})
	m := &treeChild{sys: sys, gone: make(chan struct{})}
	var up sync.WaitGroup
	up.Add(2)
	_, m.conn = fdipc.Pipe(
		fdipc.Config{
			Ready: func(c *fdipc.Conn) {
				m.up = &pausable{Conn: c}
				tree.must(tree.Master.Attach(address, incarnation, m.up))
				up.Done()
			},
			Handler: func(_ *fdipc.Conn, f *fdipc.Frame) {
				tree.reading.RLock()
				defer tree.reading.RUnlock()
				tree.Master.HandleFrame(address, f)
			},
			Closed: func(*fdipc.Conn, error) {
				tree.mu.Lock()
				reason := m.reason
				tree.mu.Unlock()
				tree.reading.RLock()
				defer tree.reading.RUnlock()
				tree.Master.Detach(address, reason)
				close(m.gone)
			},
		},
		fdipc.Config{
			Ready: func(c *fdipc.Conn) {
				tree.must(sys.Attach(master, 0, c))
				sys.Uplink(master)
				up.Done()
			},
			Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { sys.HandleFrame(master, f) },
			Closed:  func(*fdipc.Conn, error) { sys.Detach(master, supervisor.Reason{Kind: supervisor.Killed}) },
		},
	)
	up.Wait()
	tree.mu.Lock()
	tree.child[slot] = m
	tree.mu.Unlock()
	tree.must(tree.Master.Reregister(testContext(tree.t), "test/"+strconv.Itoa(slot), actors.ProcessPID(address)))
	tree.t.Cleanup(func() { m.conn.Close(); <-m.gone })
	return sys
}

func (tree *testTree) must(err error) {
	if err != nil {
		tree.t.Error(err)
	}
}

// Kill ends the child in a slot as the death of its process would, and returns when the master has
// detached it. The slot is free afterwards.
func (tree *testTree) Kill(slot int, reason supervisor.Reason) {
	tree.t.Helper()
	tree.mu.Lock()
	m := tree.child[slot]
	m.reason = reason
	delete(tree.child, slot)
	tree.mu.Unlock()
	m.conn.Close()
	select {
	case <-m.gone:
	case <-time.After(patience):
		tree.t.Fatal("child is not detached")
	}
}
