package coppice

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	// maxCoreDump is how long a process may write its core dump. A file system that does not answer
	// must not keep a slot empty for good; 5 minutes are 60 GiB at 200 MB/s.
	maxCoreDump = 5 * time.Minute

	// coreDumpPoll is how often it is looked whether the dump is written: the kernel reports its
	// end as the end of the process, so this is only how late a kill may be.
	coreDumpPoll = time.Second
)

// endsAfterAbort waits for the end of a process that got SIGABRT, and reports whether it has ended.
// The process has grace for that, and longer while the kernel writes its core dump, which SIGKILL
// would cut.
func endsAfterAbort(ended <-chan struct{}, grace time.Duration, dumping func() bool) bool {
	began := time.Now()
	for wait := grace; ; wait = coreDumpPoll {
		timer := time.NewTimer(wait)
		select {
		case <-ended:
			timer.Stop()
			return true
		case <-timer.C:
		}
		if time.Since(began) >= maxCoreDump || !dumping() {
			return false
		}
	}
}

// coreFile says where the kernel puts the core dump of a process, by the pattern of core(5). What
// the pattern takes of the process and is not known is *.
func coreFile(pattern string, pid int) string {
	if program, piped := strings.CutPrefix(pattern, "|"); piped {
		program, _, _ = strings.Cut(program, " ")
		if strings.HasSuffix(program, "/systemd-coredump") {
			return fmt.Sprintf("kept by systemd: coredumpctl info %d", pid)
		}
		return "given to " + program
	}
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		switch {
		case pattern[i] != '%':
			b.WriteByte(pattern[i])
			continue
		case i+1 == len(pattern):
			continue // it is dropped
		}
		switch i++; pattern[i] {
		case '%':
			b.WriteByte('%')
		case 'p', 'P':
			b.WriteString(strconv.Itoa(pid))
		default:
			b.WriteByte('*')
		}
	}
	name := b.String()
	if !strings.Contains(pattern, "%p") {
		name += fmt.Sprintf(" or %s.%d", name, pid) // kernel.core_uses_pid
	}
	if !strings.HasPrefix(name, "/") {
		name += ", in the directory that the process was in"
	}
	return name
}
