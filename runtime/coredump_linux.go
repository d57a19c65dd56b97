package coppice

import (
	"bytes"
	"fmt"
	"os"
)

// dumpsCore reports whether the kernel writes the core dump of a process: the field CoreDumping of
// proc_pid_status(5), since Linux 4.15.
func dumpsCore(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return err == nil && bytes.Contains(status, []byte("\nCoreDumping:\t1\n"))
}
