//go:build !linux

package coppice

// toJournal reports whether the output goes to systemd's journal, which is Linux's.
func toJournal() bool { return false }
