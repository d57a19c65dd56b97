//go:build !linux

package main

import "github.com/coppice-go/coppice/fdipc"

func child() bool { return false }

func pinSelf() error { return fdipc.ErrUnsupported }

func handleRows() []row    { return nil }
func messageRows() []row   { return nil }
func roundtripRows() []row { return nil }
