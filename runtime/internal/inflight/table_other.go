//go:build !linux

package inflight

import (
	"errors"
	"os"
)

// New needs Linux.
func New() (*Table, *os.File, error) { return nil, nil, errors.ErrUnsupported }

// Open needs Linux.
func Open(*os.File) (*Table, error) { return nil, errors.ErrUnsupported }

// Close needs Linux.
func (*Table) Close() {}
