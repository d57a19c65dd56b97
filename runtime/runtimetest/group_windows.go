package runtimetest

import "syscall"

// ownGroup is for a program to which a Ctrl-C at the test is not addressed.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
