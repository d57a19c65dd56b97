//go:build !linux

package coppice

func outlaw() bool { return false }
