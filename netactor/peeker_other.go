//go:build !linux

package netactor

import "errors"

// peeker looks at first bytes. Off Linux nobody does: see openSocket.
type peeker struct{ limit int }

func newPeeker(*acceptor, Peek, FirstFunc) (*peeker, error) {
	return nil, errors.ErrUnsupported
}

func (k *peeker) close()                   {}
func (k *peeker) lookAtNew([]*pendingConn) {}
func (k *peeker) await([]*pendingConn)     {}
func (k *peeker) seal()                    {}
func (k *peeker) drop()                    {}
func (k *peeker) run()                     {}
