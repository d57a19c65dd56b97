package coppice

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/cgroup"
	"github.com/coppice-go/coppice/runtime/internal/child"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

// leakAfter is how long a goroutine that is killed has to return. After that it is counted as
// leaked, and no longer waited for.
const leakAfter = 100 * time.Millisecond

// goroutineChild is a child that is a goroutine of the master.
type goroutineChild struct {
	child    *child.Session
	conn     *fdipc.Conn // its end of the channel, for kill: child may not have it yet
	began    time.Time
	returned chan struct{} // closed when the goroutine has ended

	once  sync.Once
	ended chan struct{} // closed when it has returned, or is leaked
	how   Exit          // set before ended
	leak  bool          // likewise
}

// startGoroutineChild starts a child as a goroutine, with conn as its end of the channel. It
// shares the master's tracing. The goroutine ends with its worker function.
func startGoroutineChild(c *child.Session, conn *fdipc.Conn, shared tracing.Pipeline) *goroutineChild {
	b := &goroutineChild{child: c, conn: conn, began: time.Now(), returned: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		var how Exit
		defer func() { // runs after runtime.Goexit, too
			close(b.returned)
			b.end(how, false)
		}()
		notice := recoverPanic(func() childproto.ExitNotice {
			return c.Run(conn, func(childproto.Hello) tracing.Pipeline { return sharedPipeline{shared} })
		})
		if notice.Kind == childproto.NoticePanic {
			how = Exit{Code: 2, Words: notice.Cut().Text}
		}
		c.CloseSockets()
		c.End(notice)
	}()
	return b
}

func (b *goroutineChild) end(how Exit, leak bool) {
	b.once.Do(func() {
		b.how, b.leak = how, leak
		close(b.ended)
	})
}

// recoverPanic turns a panic of f into an exit notice.
func recoverPanic(f func() childproto.ExitNotice) (notice childproto.ExitNotice) {
	defer func() {
		if v := recover(); v != nil {
			notice = childproto.ExitNotice{Kind: childproto.NoticePanic, Text: childproto.PanicMark + supervisor.Cut(fmt.Sprint(v)) + "\n\n" + string(debug.Stack())}
		}
	}()
	return f()
}

// sharedPipeline is a pipeline that its user must not end.
type sharedPipeline struct{ tracing.Pipeline }

func (sharedPipeline) Shutdown(ctx context.Context) error { return nil }

func (b *goroutineChild) pid() int              { return 0 }
func (b *goroutineChild) group() *cgroup.Cgroup { return nil }
func (b *goroutineChild) asked(string)          {}
func (b *goroutineChild) printedLast() []string { return nil }
func (b *goroutineChild) dump() string          { return "" }

// terminate ends the drain. A goroutine cannot be forced to return.
func (b *goroutineChild) terminate() { b.child.BeginDrain(0, 0) }

// kill does what terminate does, and closes the channel, and soon the sockets. If the goroutine
// runs on, it has no part in the tree any more and is leaked.
func (b *goroutineChild) kill() {
	b.terminate()
	go b.conn.Close() // ends when the channel is closed; kill does not wait
	time.AfterFunc(leakAfter, func() {
		b.end(Exit{}, true)
		select {
		case <-b.child.Equipped(): // kill may come while the child is being equipped
		case <-b.returned:
		}
		b.child.CloseSockets()
	})
}

// leaked returns a channel that is closed when the leaked goroutine has ended; nil if it is not
// leaked. It is called after finish.
func (b *goroutineChild) leaked() <-chan struct{} {
	if b.leak {
		return b.returned
	}
	return nil
}

// abort cannot show one child's goroutines apart from the master's.
func (b *goroutineChild) abort() { b.kill() }

var errNotOfGoroutine = errors.New("not known of a goroutine")

func (b *goroutineChild) waited() (time.Duration, error) { return 0, errNotOfGoroutine }
func (b *goroutineChild) traced() bool                   { return false }
func (b *goroutineChild) cause() error                   { return nil }

func (b *goroutineChild) exited() <-chan struct{} { return b.ended }
func (b *goroutineChild) finish()                 { <-b.ended }
func (b *goroutineChild) exit() Exit              { return b.how }
func (b *goroutineChild) sent() signals           { return 0 }
