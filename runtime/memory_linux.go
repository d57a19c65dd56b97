package coppice

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// residentMemory returns the resident memory of a process in bytes. If the pid was reused, the
// value is wrong but harmless, because a kill goes through a pidfd.
func residentMemory(pid int) (int64, bool) {
	if pid == 0 {
		return 0, false // a goroutine
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid)) // proc_pid_statm(5): size, resident, …
	if err != nil {
		return 0, false
	}
	f := bytes.Fields(b)
	if len(f) < 2 {
		return 0, false
	}
	pages, err := strconv.ParseInt(string(f[1]), 10, 64)
	return pages * int64(os.Getpagesize()), err == nil
}
