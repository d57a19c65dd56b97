package coppice

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/tracing"
)

// goroutineBody is a child that is a goroutine of the master.
type goroutineBody struct {
	child *child
	ended chan struct{}
	how   Exit
}

// goChild starts a child as a goroutine, with conn as its end of the channel. It
// shares the master's tracing. The goroutine ends with its worker function.
func goChild(c *child, conn *fdipc.Conn, shared tracing.Pipeline) *goroutineBody {
	b := &goroutineBody{child: c, ended: make(chan struct{})}
	go func() {
		defer close(b.ended)
		bye := protect(func() farewell {
			return c.run(conn, func(welcome) tracing.Pipeline { return borrowed{shared} })
		})
		if bye.Kind == byePanic {
			b.how = Exit{Code: 2, Words: bye.Text}
		}
		c.part(bye)
	}()
	return b
}

// protect turns a panic of f into a farewell.
func protect(f func() farewell) (bye farewell) {
	defer func() {
		if v := recover(); v != nil {
			bye = farewell{byePanic, fmt.Sprintf("panic: %v\n\n%s", v, debug.Stack())}
		}
	}()
	return f()
}

// borrowed is a pipeline that its user must not end.
type borrowed struct{ tracing.Pipeline }

func (borrowed) Shutdown(ctx context.Context) error { return nil }

func (b *goroutineBody) pid() int { return 0 }

// terminate ends the drain. A goroutine can be told more, but not made to obey.
func (b *goroutineBody) terminate() { b.child.beginDrain(errAsked, 0) }

// kill does what terminate does and takes the channel away: whatever of the
// child goes on living has no part in the tree any more.
func (b *goroutineBody) kill() {
	b.terminate()
	go b.child.conn.Close() // ends by itself; kill does not wait
}

func (b *goroutineBody) done() <-chan struct{} { return b.ended }
func (b *goroutineBody) exit() Exit            { return b.how }
