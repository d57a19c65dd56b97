//go:build !linux

package otlp

import (
	"errors"
	"os"
)

// There are no child processes here, hence no tables.

func newTable() (tableMemory, *os.File, error) { return nil, nil, errors.ErrUnsupported }

func openTable(f *os.File) (tableMemory, error) {
	f.Close()
	return nil, errors.ErrUnsupported
}

func (m tableMemory) unmap() {}
