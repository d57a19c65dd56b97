package main

import (
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/examples/porting/shop/shoptest"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

// TestBefore: the service does what the one after does.
func TestBefore(t *testing.T) {
	s := shoptest.Start(t)
	s.Order(3)
	s.P.Signal(syscall.SIGTERM)
	if code := s.P.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
