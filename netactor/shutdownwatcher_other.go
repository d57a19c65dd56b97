//go:build !linux

package netactor

// shutdownWatcher does nothing off Linux: a socket that is shut down is noticed by who accepts on it.
type shutdownWatcher struct{}

func newShutdownWatcher(func(number uint64)) (*shutdownWatcher, error) {
	return &shutdownWatcher{}, nil
}

func (*shutdownWatcher) run()                {}
func (*shutdownWatcher) add(*socket, uint64) {}
func (*shutdownWatcher) remove(*socket)      {}
func (*shutdownWatcher) close()              {}
