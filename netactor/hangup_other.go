//go:build !linux

package netactor

// hangups does nothing off Linux: a socket that is shut down is noticed by who accepts on it.
type hangups struct{}

func newHangups(func(number uint64)) (*hangups, error) { return &hangups{}, nil }

func (*hangups) run()                {}
func (*hangups) add(*socket, uint64) {}
func (*hangups) remove(*socket)      {}
func (*hangups) close()              {}
