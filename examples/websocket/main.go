// Websocket is an echo service over websockets in worker processes. A worker that
// is asked to stop tells each of its clients by a close frame, "going away", and
// waits until they have gone.
//
//	go run . -addr 127.0.0.1:8000
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/coder/websocket"

	coppice "github.com/coppice-go/coppice/runtime"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8000", "listen `address`; port 0 picks one")
	workers := flag.Int("workers", 2, "worker processes")
	shutdown := flag.Duration("shutdown", 10*time.Second, "how long a worker may take to end")
	flag.Parse()

	coppice.Main(coppice.Config{
		Hooks: coppice.Hooks{Started: announce},
		Children: []coppice.ChildSpec{coppice.Pool{
			Name: "chat", Size: *workers, Shutdown: *shutdown,
			Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listen("tcp", *addr)
				if err != nil {
					return err
				}
				return w.Serve(ctx, ln, &http.Server{Handler: echo{w, ctx}})
			},
		}},
	})
}

// echo answers each message with the worker's name and the message.
type echo struct {
	w    *coppice.Worker
	stop context.Context // ends when the worker is asked to stop
}

func (e echo) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(rw, r, nil)
	if err != nil {
		return // it has answered
	}
	defer c.CloseNow()
	goodbye := context.AfterFunc(e.stop, func() { // closing wakes the Read below
		_ = c.Close(websocket.StatusGoingAway, "this worker ends: connect again")
	})
	defer goodbye()
	// Not the request's context, which ends when the connection is taken over.
	for ctx := e.w.WorkContext(); ; {
		kind, text, err := c.Read(ctx)
		if err != nil {
			return
		}
		if err := c.Write(ctx, kind, fmt.Appendf(nil, "%s of generation %d: %s", e.w.Name(), e.w.Generation(), text)); err != nil {
			return
		}
	}
}

func announce(rt *coppice.Runtime) {
	for _, l := range rt.Listeners() {
		fmt.Printf("ws://%s/  master pid %d\n", l.Addr, os.Getpid())
	}
	fmt.Print(rt.Snapshot())
}
