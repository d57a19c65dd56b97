// Cluster is what docs/node-cluster.md shows: a service as one would write it with Node's cluster,
// with messages in both directions, events, and variables for the workers.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"sync/atomic"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	coppice "github.com/coppice-go/coppice/runtime"
)

var addr = flag.String("addr", "127.0.0.1:8000", "listen `address`")

type (
	request struct{}                  // from a worker to the master, which answers with its number
	crashes struct{ SoFar uint64 }    // from the master to every worker
	counter struct{ n uint64 }        // the actor of the master
	inbox   struct{ n atomic.Uint64 } // the actor of each worker
)

func init() {
	actors.RegisterType[request]("cluster.request")
	actors.RegisterType[crashes]("cluster.crashes")
}

func (m *counter) Receive(c actor.Context) { // process.on("message") of the primary
	if _, ok := c.Message().(request); ok {
		m.n++
		c.Respond(m.n)
	}
}

func (in *inbox) Receive(c actor.Context) { // process.on("message") of a worker
	if m, ok := c.Message().(crashes); ok {
		in.n.Store(m.SoFar)
	}
}

func main() {
	flag.Parse()
	coppice.Main(coppice.Config{Children: []coppice.ChildSpec{
		coppice.Actor{Name: "counter", New: func() actor.Actor { return new(counter) }},
		coppice.Pool{
			Name: "web", Size: 4, Worker: work, // cluster.fork({ROLE: "web"}), four times
			Environment: coppice.Environment{Env: []string{"ROLE=web"}},
		},
		coppice.Func{Name: "watch", Run: watch},
	}})
}

// work runs in each worker.
func work(ctx context.Context, w *coppice.Worker) error {
	in := new(inbox)
	if _, err := w.System().Spawn(ctx, "inbox", func() actor.Actor { return in }); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(rw http.ResponseWriter, r *http.Request) {
		n, err := actors.Ask[uint64](r.Context(), w.System(), w.Lookup("counter"), request{}) // process.send
		if err != nil {
			http.Error(rw, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(rw, w.Name(), os.Getenv("ROLE"), "request", n, "crashes", in.n.Load())
	})
	mux.HandleFunc("GET /crash", func(http.ResponseWriter, *http.Request) {
		go panic("no recover helps here")
		select {}
	})
	ln, err := w.ListenSpec(ctx, coppice.ListenerSpec{ // one worker for all that send the same sid
		Network: "tcp", Address: *addr, Policy: coppice.Hash, Peek: coppice.Peek{By: coppice.PeekCookie, Cookie: "sid"},
	})
	if err != nil {
		return err
	}
	return w.Serve(ctx, ln, &http.Server{Handler: mux})
}

// watch runs in the master.
func watch(ctx context.Context) error {
	rt, n := coppice.Running(), uint64(0)
	for ev := range rt.Events(0).All(ctx) {
		if ev.Kind == coppice.ChildExited { // cluster.on("exit"), but for what was asked to end
			n++
			log.Println(ev.Path, "ended:", ev.Reason) // the pool starts the next one by itself
		}
		if ev.Kind == coppice.ChildStarted || ev.Kind == coppice.WorkerReplaced { // cluster.on("online")
			inboxes, err := rt.System().Group("web", "inbox").Members(ctx)
			if err != nil {
				return err
			}
			for _, pid := range inboxes {
				_ = rt.System().Send(ctx, pid, crashes{n}) // worker.send; an error: it has ended
			}
		}
	}
	return nil
}
