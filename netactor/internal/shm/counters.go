package shm

import (
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/tracing"
)

// SharedCounters is a page of counters that a worker shares with the listener process, one for each
// listener that it has joined. It outlives the worker: when a worker is killed, the number of
// connections that it had closed is known exactly, without a frame for each.
//
// The worker writes; the listener process reads, and trusts no value in the page. Layout, in 64-bit
// words of the machine's byte order:
//
//	0  magic
//	1  connections closed since it joined
//	2  how long the hand-overs to it took: HandOverTimes
//
// A nil *SharedCounters counts nothing.
type SharedCounters struct{ Words []atomic.Uint64 }

const (
	countersMagic  = 0x3145484332544543
	CountersClosed = 1
	countersTimes  = 2
	countersWords  = countersTimes + len(netactor.HandOverTimes{})
	CountersBytes  = 4096
)

// CountersAt returns the counters in b, a page of shared memory.
func CountersAt(b []byte) *SharedCounters {
	return &SharedCounters{unsafe.Slice((*atomic.Uint64)(unsafe.Pointer(unsafe.SliceData(b))), countersWords)}
}

// Closed returns how many connections the worker has closed. ok is false if c is nil.
func (c *SharedCounters) Closed() (n uint64, ok bool) {
	if c == nil {
		return 0, false
	}
	n = c.Words[CountersClosed].Load()
	runtime.KeepAlive(c)
	return n, true
}

// CountClosed counts a connection that was closed.
func (c *SharedCounters) CountClosed() {
	if c != nil {
		c.Words[CountersClosed].Add(1)
		runtime.KeepAlive(c)
	}
}

// CountClaimed counts a hand-over.
func (c *SharedCounters) CountClaimed(took time.Duration) {
	if c != nil {
		c.Words[countersTimes+bucket(took)].Add(1)
		runtime.KeepAlive(c)
	}
}

// Latency returns how long the hand-overs took.
func (c *SharedCounters) Latency() (h netactor.HandOverTimes) {
	if c != nil {
		for i := range h {
			h[i] = c.Words[countersTimes+i].Load()
		}
		runtime.KeepAlive(c)
	}
	return h
}

// bounds are the bounds of tracing.Bounds.
var bounds = func() (b [len(netactor.HandOverTimes{}) - 1]time.Duration) {
	for i, s := range tracing.Bounds {
		b[i] = time.Duration(s * float64(time.Second))
	}
	return b
}()

// bucket returns the bucket that d belongs to.
func bucket(d time.Duration) int {
	for i, b := range bounds {
		if d <= b {
			return i
		}
	}
	return len(bounds)
}
