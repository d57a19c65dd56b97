//go:build !linux

package dispatch

import (
	"errors"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/balance"
)

// peeker looks at first bytes. Off Linux newPeeker fails.
type peeker struct{ limit int }

func newPeeker(*acceptor, netactor.Peek, netactor.Functions) (*peeker, error) {
	return nil, errors.ErrUnsupported
}

func (k *peeker) close()                           {}
func (k *peeker) lookAtNew([]*balance.PendingConn) {}
func (k *peeker) await([]*balance.PendingConn)     {}
func (k *peeker) seal()                            {}
func (k *peeker) drop()                            {}
func (k *peeker) run()                             {}
