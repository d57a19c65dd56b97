//go:build !linux

package dispatch

import (
	"errors"

	"github.com/coppice-go/coppice/netactor/internal/balance"
)

// parkingLot parks connections. Off Linux newParkingLot fails.
type parkingLot struct{ poll parkingLotPoll }

type parkingLotPoll struct{}

func (parkingLotPoll) Close() {}

type parkedConn struct {
	*balance.PendingConn
	acceptor *acceptor
	giver    uint64
}

func newParkingLot(*Dispatcher) (*parkingLot, error) { return nil, errors.ErrUnsupported }

func (*parkingLot) add(*parkedConn)     {}
func (*parkingLot) end(*acceptor, bool) {}
func (*parkingLot) forget(*acceptor)    {}
func (*parkingLot) close()              {}
func (*parkingLot) run()                {}
