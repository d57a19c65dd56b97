package coppice

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"strconv"
	"time"
)

// clockTick is the unit of proc_pid_stat(5): USER_HZ, which is 100 on each architecture of Go.
const clockTick = time.Second / 100

// usageOf reads what a process uses; false if it has ended, or is no process (pid 0).
func usageOf(pid int) (u usage, ok bool) {
	if u.memory, ok = ownMemory(pid, math.MaxInt64); !ok {
		return u, false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, false
	}
	// The second field, in brackets, may have spaces. utime and stime are the fields 14 and 15.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return u, false
	}
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return u, false
		}
		u.cpu += n * int64(clockTick)
	}
	fds := fmt.Sprintf("/proc/%d/fd", pid)
	if st, err := os.Stat(fds); err == nil && st.Size() > 0 {
		u.files = st.Size() // since Linux 6.2
		return u, true
	}
	files, err := os.ReadDir(fds)
	u.files = int64(len(files))
	return u, err == nil
}
