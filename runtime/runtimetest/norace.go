//go:build !race

package runtimetest

func endAtOnce() {}
