//go:build !windows

package coppice

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Signals that not every system has.
const (
	sigTTIN = syscall.SIGTTIN
	sigTTOU = syscall.SIGTTOU
	sigUSR1 = syscall.SIGUSR1
	sigUSR2 = syscall.SIGUSR2
)

// signalName returns the name of a signal: "SIGTERM".
func signalName(sig syscall.Signal) string { return unix.SignalName(sig) }
