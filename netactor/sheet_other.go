//go:build !linux

package netactor

import (
	"errors"

	"github.com/coppice-go/coppice/fdipc"
)

func newSheet() (*sheet, *fdipc.Handle, error) { return nil, nil, errors.ErrUnsupported }

func openSheet(h *fdipc.Handle) (*sheet, error) {
	_ = h.Close()
	return nil, errors.ErrUnsupported
}
