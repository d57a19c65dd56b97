package coppice

import (
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/child"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/tracing"
)

// backend is what a worker consists of: a process, or a goroutine of the master.
type backend interface {
	pid() int
	asked(how string)        // notes that the worker was asked to end
	terminate()              // the last warning: end at once
	abort()                  // show where every goroutine is, and end
	kill()                   // without asking
	exited() <-chan struct{} // closed when it has ended; what it has left behind may live
	finish()                 // waits for exited, ends what is left behind and reads the last output; called once
	exit() Exit              // how it ended; after finish
	sent() signals           // by the master, until exited
	printedLast() []string
	leaked() <-chan struct{}        // after finish; see supervisor.Instance
	fillReport(*CrashReport)        // after finish: adds when it lived and what it left
	waited() (time.Duration, error) // for CPUs, until now
	traced() bool                   // by a debugger
}

// backends starts what workers consist of. For processes see fork.
type backends struct {
	spawner
	pipeline tracing.Pipeline
	tree     []string // for the children to compare with theirs

	child child.Config // of goroutines
}

// A workerStart is what a process is started with to be a worker.
type workerStart struct {
	hello childproto.Hello
	exe   *executable
	env   Environment
	size  int                // of the pool
	place func() *assignment // what the worker is called by now
}

// startGoroutine starts a worker as a goroutine. channel is the configuration of the master's end of
// the channel, config the worker's.
func (b *backends) startGoroutine(channel fdipc.Config, config []byte) (*fdipc.Conn, backend) {
	cfg := b.child
	cfg.Configuration = config
	c := child.New(cfg)
	mine, its := fdipc.Pipe(channel, c.ConnConfig())
	return mine, startGoroutineChild(c, its, b.pipeline)
}

// isClosed reports whether ch is closed. Nothing is ever sent on it.
func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// assignment is what a worker is in its pool.
type assignment struct {
	name        string
	slot        int
	incarnation int
}
