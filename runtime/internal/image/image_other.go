//go:build !linux

package image

import "os"

func endUnasked(os.Signal) {}
