//go:build !linux

package coppice

import "github.com/coppice-go/coppice/runtime/internal/signalrules"

func sentByTerminal(signalrules.Signal) bool { return false }
