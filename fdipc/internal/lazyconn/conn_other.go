//go:build !linux

// Package lazyconn is empty where there are no connections from other processes.
package lazyconn
