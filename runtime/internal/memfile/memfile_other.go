//go:build !linux

package memfile

import (
	"errors"
	"os"
)

// Sealed needs Linux.
func Sealed(string, []byte) (*os.File, error) { return nil, errors.ErrUnsupported }

// Map needs Linux.
func Map(*os.File, int) ([]byte, error) { return nil, errors.ErrUnsupported }

// View needs Linux.
func View(*os.File, int) ([]byte, error) { return nil, errors.ErrUnsupported }

// Unmap needs Linux.
func Unmap([]byte) {}

// Duplicate needs Linux.
func Duplicate(*os.File) (*os.File, error) { return nil, errors.ErrUnsupported }
