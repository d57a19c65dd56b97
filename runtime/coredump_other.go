//go:build !linux

package coppice

func dumpsCore(int) bool { return false }
