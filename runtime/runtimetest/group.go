//go:build !windows

package runtimetest

import "syscall"

// ownGroup is for a program to which a Ctrl-C at the test is not addressed.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
