package coppice

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

// leakAfter is how long a goroutine that is killed has to return, before it is
// counted as leaked and nobody waits for it any more.
const leakAfter = 100 * time.Millisecond

// goroutineBody is a child that is a goroutine of the master.
type goroutineBody struct {
	child    *child
	conn     *fdipc.Conn // its end of the channel: it may be killed before it knows of it
	began    time.Time
	returned chan struct{} // closed when the goroutine has ended

	once  sync.Once
	ended chan struct{} // closed when it has returned, or is leaked
	how   Exit          // set before ended
	leak  bool          // likewise
}

// goChild starts a child as a goroutine, with conn as its end of the channel. It
// shares the master's tracing. The goroutine ends with its worker function.
func goChild(c *child, conn *fdipc.Conn, shared tracing.Pipeline) *goroutineBody {
	b := &goroutineBody{child: c, conn: conn, began: time.Now(), returned: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		var how Exit
		defer func() { // runs after runtime.Goexit, too
			close(b.returned)
			b.end(how, false)
		}()
		bye := protect(func() farewell {
			return c.run(conn, func(welcome) tracing.Pipeline { return borrowed{shared} })
		})
		if bye.Kind == byePanic {
			how = Exit{Code: 2, Words: bye.cut().Text}
		}
		c.leaveNothing()
		c.part(bye)
	}()
	return b
}

func (b *goroutineBody) end(how Exit, leak bool) {
	b.once.Do(func() {
		b.how, b.leak = how, leak
		close(b.ended)
	})
}

// protect turns a panic of f into a farewell.
func protect(f func() farewell) (bye farewell) {
	defer func() {
		if v := recover(); v != nil {
			bye = farewell{Kind: byePanic, Text: panicMark + supervisor.Cut(fmt.Sprint(v)) + "\n\n" + string(debug.Stack())}
		}
	}()
	return f()
}

// borrowed is a pipeline that its user must not end.
type borrowed struct{ tracing.Pipeline }

func (borrowed) Shutdown(ctx context.Context) error { return nil }

func (b *goroutineBody) pid() int              { return 0 }
func (b *goroutineBody) asked(string)          {}
func (b *goroutineBody) printedLast() []string { return nil }

// terminate ends the drain. A goroutine can be told more, but not made to obey.
func (b *goroutineBody) terminate() { b.child.beginDrain(errAsked, 0, 0) }

// kill does what terminate does and takes the channel away, and soon the sockets too: whatever
// of the child goes on living has no part in the tree any more, and is leaked.
func (b *goroutineBody) kill() {
	b.terminate()
	go b.conn.Close() // ends by itself; kill does not wait
	time.AfterFunc(leakAfter, func() {
		b.end(Exit{}, true)
		select {
		case <-b.child.set: // it may be given up while it is being equipped
		case <-b.returned:
		}
		b.child.leaveNothing()
	})
}

// leaked returns a channel that is closed when what was leaked has ended; nil
// when nothing was. To be asked after done.
func (b *goroutineBody) leaked() <-chan struct{} {
	if b.leak {
		return b.returned
	}
	return nil
}

// abort cannot show one child's goroutines apart from the master's.
func (b *goroutineBody) abort() { b.kill() }

var errNotKnown = errors.New("not known of a goroutine")

func (b *goroutineBody) waited() (time.Duration, error) { return 0, errNotKnown }
func (b *goroutineBody) traced() bool                   { return false }

func (b *goroutineBody) done() <-chan struct{} { return b.ended }
func (b *goroutineBody) exit() Exit            { return b.how }
func (b *goroutineBody) sent() signals         { return 0 }
