package coppice

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// ownMemory returns the memory that a process itself costs, in bytes: see [Recycle]. It is exact if
// it is above limit. Below, shared memory counts in full, because its share is a walk through all
// pages of the process (some 100 ms for each GiB; the sum takes some 50 µs). If the pid was reused,
// the value is wrong but harmless, because a kill goes through a pidfd.
func ownMemory(pid int, limit int64) (int64, bool) {
	if pid == 0 {
		return 0, false // a goroutine
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, false
	}
	own, ok := sumKB(status, "RssAnon:", "VmSwap:") // proc_pid_status(5)
	shared, _ := sumKB(status, "RssShmem:")
	if !ok || own+shared <= limit {
		return own + shared, ok
	}
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid)) // proc_pid_smaps(5)
	if err != nil {
		return own, true // of another user, without CAP_SYS_PTRACE: its own is known
	}
	return sumKB(rollup, "Pss_Anon:", "Pss_Shmem:", "SwapPss:")
}

// sumKB returns the sum of some lines of the form "key: n kB", in bytes. ok means that the first
// key was there.
func sumKB(text []byte, keys ...string) (sum int64, ok bool) {
	for line := range bytes.Lines(text) {
		for i, key := range keys {
			rest, found := bytes.CutPrefix(line, []byte(key))
			if !found {
				continue
			}
			n, err := strconv.ParseInt(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte("kB")))), 10, 64)
			if err != nil {
				return 0, false
			}
			sum, ok = sum+n<<10, ok || i == 0
		}
	}
	return sum, ok
}
