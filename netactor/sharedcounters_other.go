//go:build !linux

package netactor

import (
	"errors"

	"github.com/coppice-go/coppice/fdipc"
)

func newSharedCounters() (*sharedCounters, *fdipc.Handle, error) {
	return nil, nil, errors.ErrUnsupported
}

func openSharedCounters(h *fdipc.Handle) (*sharedCounters, error) {
	_ = h.Close()
	return nil, errors.ErrUnsupported
}
