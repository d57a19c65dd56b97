//go:build !linux

package coppice

func sentByTerminal() bool { return false }
