//go:build !linux

package shm

import (
	"errors"

	"github.com/coppice-go/coppice/fdipc"
)

func NewSharedCounters() (*SharedCounters, *fdipc.Handle, error) {
	return nil, nil, errors.ErrUnsupported
}

func OpenSharedCounters(h *fdipc.Handle) (*SharedCounters, error) {
	_ = h.Close()
	return nil, errors.ErrUnsupported
}
