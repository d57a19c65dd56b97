//go:build !linux

package coppice

func residentMemory(int) (int64, bool) { return 0, false }
