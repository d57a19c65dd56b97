//go:build !linux

package socket

// shutdownWatcher does nothing off Linux: a socket that is shut down is noticed by who accepts on it.
type ShutdownWatcher struct{}

func NewShutdownWatcher(func(number uint64)) (*ShutdownWatcher, error) {
	return &ShutdownWatcher{}, nil
}

func (*ShutdownWatcher) Run()               {}
func (*ShutdownWatcher) Add(*Bound, uint64) {}
func (*ShutdownWatcher) Remove(*Bound)      {}
func (*ShutdownWatcher) Close()             {}
