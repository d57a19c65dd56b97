package coppice

import (
	"fmt"

	"github.com/coppice-go/coppice/runtime/internal/testrun"
)

// inTest adds to the error of a start what it may have to do with the test that started the tree of
// n, whose listener process is as listener says.
func (n *node) inTest(t testrun.Test, listener Isolation, err error) error {
	if !t.Running() || t.Name != "" || !n.forks(listener) {
		return err
	}
	return fmt.Errorf("coppice: Start in a subtest, or on another goroutine of a test: it cannot see the test's name, so that its processes run no test: call runtimetest.Tree, or use GoroutineIsolation: %w", err)
}

// forks reports whether the tree of n has processes, with a listener process as listener says.
func (n *node) forks(listener Isolation) bool {
	return n.leastDescriptors() > 0 || n.listens() && listener == ProcessIsolation
}
