//go:build race

package runtimetest

import (
	"os"
	"strings"
	"syscall"
)

// endAtOnce keeps this program, and those that it starts, from sleeping for a second before they
// exit, as a race build does: a process that has ended would seem to hang. The setting takes effect
// only at the start of a program, so this program is started anew.
func endAtOnce() {
	const option = "atexit_sleep_ms="
	race := os.Getenv("GORACE")
	if strings.Contains(race, option) {
		return
	}
	self, err := os.Executable()
	if err == nil {
		err = os.Setenv("GORACE", strings.TrimSpace(race+" "+option+"10"))
	}
	if err == nil {
		err = syscall.Exec(self, os.Args, os.Environ())
	}
	panic(err)
}
