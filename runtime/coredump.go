package coppice

import "time"

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
