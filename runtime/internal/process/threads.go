package process

import (
	"runtime"
	"sync"
)

// SpareThreads is how many threads each process of the tree has for times
// when the kernel gives them no more (pids.max, RLIMIT_NPROC, memory): the Go runtime
// ends a program that is refused one. It needs one where system calls take long, and that is
// when processes are started in vain.
const SpareThreads = 8

// KeepThreads has as many threads made. The Go runtime keeps those that it has.
func KeepThreads(n int) {
	var made sync.WaitGroup
	over := make(chan struct{})
	made.Add(n)
	for range n {
		go func() { // ends when all have their thread
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			made.Done()
			<-over
		}()
	}
	made.Wait()
	close(over)
}
