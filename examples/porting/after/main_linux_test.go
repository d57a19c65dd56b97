package main

import (
	"strconv"
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
	s.P.Signal(syscall.SIGHUP)
	s.P.Await(" reloaded generation=2 ")
	s.Order(8)
	victim, err := strconv.Atoi(s.P.Await(` replaced pool=shop slot=0 .* process\.pid=(\d+) `)[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.P.Await(` started path=master/shop/0 .* process\.incarnation=3 `)
	s.Order(4)
	s.P.Signal(syscall.SIGTERM)
	if code := s.P.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
