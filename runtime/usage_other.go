//go:build !linux

package coppice

func usageOf(int) (usage, bool) { return usage{}, false }
