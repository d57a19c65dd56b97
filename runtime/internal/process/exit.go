package process

import (
	"syscall"
	"time"
)

// Exit is how a process ended, as the kernel reports it.
type Exit struct {
	Code   int            // exit code; -1 when a signal ended it
	Signal syscall.Signal // 0 when it exited
	Core   bool           // a core was dumped

	UserTime, SystemTime time.Duration // of the process and of its children that it waited for
	MaxRSS               int64         // bytes, of the largest of them

	// Lost is set if there is no status, because other code of this program reaped the process:
	// wait4(-1) does that, exec.Cmd.Wait does not.
	Lost error
}
