//go:build !linux

package netactor

import "errors"

// peeks looks at first bytes. Off Linux nobody does: see openSocket.
type peeks struct{ limit int }

func newPeeks(*acceptor, Peek, FirstFunc) (*peeks, error) {
	return nil, errors.ErrUnsupported
}

func (k *peeks) close()          {}
func (k *peeks) first([]*ticket) {}
func (k *peeks) await([]*ticket) {}
func (k *peeks) seal()           {}
func (k *peeks) drop()           {}
func (k *peeks) run()            {}
