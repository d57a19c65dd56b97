package main

import (
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"
)

// crash ends this process in the way named by how. It returns only when it
// does not know the way.
func crash(how string) error {
	switch how {
	case "panic":
		go panic("asked to panic")
	case "exit":
		os.Exit(3)
	case "segv":
		*(*byte)(unsafe.Add(nil, 1<<20)) = 1 // a fault at an address that is not nil: no recover catches it
	case "fatal":
		concurrentMapWrites()
	case "kill":
		self, err := os.FindProcess(os.Getpid())
		if err != nil {
			return err
		}
		if err := self.Kill(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("how=%q is none of panic, exit, segv, fatal, kill", how)
	}
	select {}
}

// concurrentMapWrites dies of what no recover can catch.
func concurrentMapWrites() {
	m := map[int]int{}
	for range 4 {
		go func() {
			for i := 0; ; i++ {
				m[i%8] = i
			}
		}()
	}
}

// block keeps every P of this process busy for d.
func block(d time.Duration) {
	end := time.Now().Add(d)
	done := make(chan struct{})
	procs := runtime.GOMAXPROCS(0)
	for range procs {
		go func() {
			for time.Now().Before(end) {
			}
			done <- struct{}{}
		}()
	}
	for range procs {
		<-done
	}
}
