package main

import (
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/examples/porting/shop/shoptest"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

// TestAfter: the service does what it did, over the death of a worker and a reload too: the metrics
// of the processes that have ended still count.
func TestAfter(t *testing.T) {
	s := shoptest.Start(t)
	s.Order(8) // two of each worker
	kids := runtimetest.Children(t, s.P.PID())
	s.P.Signal(syscall.SIGHUP)
	s.P.Await(" reloaded generation=2 ")
	s.Order(8)
	victim := kids[0]
	for _, kid := range runtimetest.Children(t, s.P.PID()) {
		victim = max(victim, kid) // a worker: the listener process is older
	}
	if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "a replacement", func() bool {
		return !runtimetest.Alive(victim) && len(runtimetest.Children(t, s.P.PID())) == len(kids)
	})
	s.Order(4)
	s.P.Signal(syscall.SIGTERM)
	if code := s.P.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
