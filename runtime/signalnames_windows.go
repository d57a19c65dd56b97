package coppice

import "syscall"

// Signals that Windows does not have: no signal that arrives has one of these numbers.
const (
	sigTTIN = syscall.Signal(-1 - iota)
	sigTTOU
	sigUSR1
	sigUSR2
)

// signalName returns the name of a signal: "terminated".
func signalName(sig syscall.Signal) string { return sig.String() }
