package mark

import (
	"runtime"
	"syscall"
)

// init keeps the main goroutine on the main thread, which is the parent of the children: package
// process takes that thread over. Later it may be lost for good: os/signal locks a thread, whatever
// it is.
func init() {
	v, ok := syscall.Getenv(Var)
	if !ok {
		return
	}
	_ = syscall.Unsetenv(Var) // fails on an empty name only
	if v == Trial {
		runtime.LockOSThread()
		return
	}
	m := parse(v)
	if m.PID != int64(syscall.Getpid()) && m.Bad == "" {
		return // inherited by mistake
	}
	runtime.LockOSThread()
	Got = &m
	for _, fd := range append(m.Files, m.State) {
		var st syscall.Stat_t
		if fd < 3 || syscall.Fstat(int(fd), &st) != nil {
			if m.Bad == "" {
				m.Bad = string(number(nil, fd)) + ": no descriptor"
			}
			continue
		}
		syscall.CloseOnExec(int(fd))
	}
}
