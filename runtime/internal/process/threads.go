package process

import (
	"runtime"
	"sync"
)

// SpareThreads is how many threads each process of the tree makes at its start, for times when the
// kernel refuses new ones (pids.max, RLIMIT_NPROC, memory). The Go runtime ends a program that is
// refused a thread. It needs one when system calls take long, as starts do that fail for want of
// processes.
const SpareThreads = 8

// KeepThreads makes n threads. The Go runtime keeps the threads that it has.
func KeepThreads(n int) {
	var made sync.WaitGroup
	over := make(chan struct{})
	made.Add(n)
	for range n {
		go func() { // ends when all n have their thread
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			made.Done()
			<-over
		}()
	}
	made.Wait()
	close(over)
}
