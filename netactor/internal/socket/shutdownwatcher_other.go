//go:build !linux

package socket

// ShutdownWatcher does nothing off Linux: the process that accepts on a socket notices its
// shutdown.
type ShutdownWatcher struct{}

func NewShutdownWatcher(func(number uint64)) (*ShutdownWatcher, error) {
	return &ShutdownWatcher{}, nil
}

func (*ShutdownWatcher) Run()               {}
func (*ShutdownWatcher) Add(*Bound, uint64) {}
func (*ShutdownWatcher) Remove(*Bound)      {}
func (*ShutdownWatcher) Close()             {}
