package coppice

import (
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/cgroup"
	"github.com/coppice-go/coppice/runtime/internal/child"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/process"
	"github.com/coppice-go/coppice/tracing"
)

// backend is what a worker runs in: a process, or a goroutine of the master.
type backend interface {
	pid() int
	group() *cgroup.Cgroup          // its cgroup; nil = none of its own
	asked(how string)               // notes that the worker was asked to end
	terminate()                     // the last warning: end at once
	abort()                         // prints the stacks of all goroutines, and ends it
	kill()                          // ends it without asking
	exited() <-chan struct{}        // closed when it has ended; processes that it left behind may live
	finish()                        // waits for exited, ends what is left behind and reads the last output; called once
	exit() Exit                     // how it ended; after finish
	sent() signals                  // those that the master sent before exited
	printedLast() []string          // the last lines that it has printed, besides its dump
	dump() string                   // after finish: the stacks that it has printed at its end
	leaked() <-chan struct{}        // after finish; see supervisor.Instance
	fillReport(*CrashReport)        // after finish: adds when it lived and what it printed or left
	waited() (time.Duration, error) // for CPUs, so far
	traced() bool                   // by a debugger
	cause() error                   // after finish: why there was no process; nil = there was, or it is a goroutine
}

// readToEnd ends the channel to a child that has ended, once its last frames are read. A descendant
// of the child may keep the channel open.
func readToEnd(conn *fdipc.Conn) {
	conn.PeerGone()
	select {
	case <-conn.Done():
	case <-time.After(process.Linger):
	}
	_ = conn.Close()
}

// backends starts the backends of workers. For processes see fork.
type backends struct {
	spawner
	pipeline tracing.Pipeline
	child    child.Config // of goroutines
}

// A workerStart is what the process of a worker is started with.
type workerStart struct {
	hello childproto.Hello
	exe   *executable
	env   Environment

	environ []string           // to which env's variables are added
	size    int                // of the pool
	place   func() *assignment // the worker's present name and slot
}

// startGoroutine starts a worker as a goroutine. channel configures the master's end of the
// channel; config is the worker's configuration.
func (b *backends) startGoroutine(channel fdipc.Config, config []byte) (*fdipc.Conn, backend) {
	cfg := b.child
	cfg.Configuration = config
	c := child.New(cfg)
	mine, its := fdipc.Pipe(channel, c.ConnConfig())
	return mine, startGoroutineChild(c, its, b.pipeline)
}

// assignment is a worker's place in its pool.
type assignment struct {
	name        string
	slot        int
	incarnation int
}
