package process

import (
	"runtime"
	"sync"
)

// SpareThreads is how many threads each process of the tree makes at its start, for times when the
// kernel refuses new threads (pids.max, RLIMIT_NPROC, memory). The Go runtime ends a program if the
// kernel refuses it a thread. It needs a thread while system calls take long, for example starts
// that fail for lack of processes.
const SpareThreads = 8

// KeepThreads makes n threads. The Go runtime keeps its threads.
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
