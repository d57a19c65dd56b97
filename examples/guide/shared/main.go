// Shared is the third step of docs/guide.md: the workers count together, in an actor of the master.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	coppice "github.com/coppice-go/coppice/runtime"
)

// visit asks the actor visits for the number of a visit.
type visit struct{}

func init() { actors.RegisterType[visit]("guide.visit") }

type visits struct{ n uint64 }

// Receive handles one message after the other, so n needs no lock.
func (v *visits) Receive(c actor.Context) {
	if _, ok := c.Message().(visit); ok {
		v.n++
		c.Respond(v.n)
	}
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8000", "listen `address`")
	flag.Parse()

	coppice.Main(coppice.Config{Children: []coppice.ChildSpec{
		coppice.Actor{Name: "visits", New: func() actor.Actor { return new(visits) }},
		coppice.Pool{Name: "web", Size: 4, Worker: func(ctx context.Context, w *coppice.Worker) error {
			return serve(ctx, w, *addr)
		}},
	}})
}

func serve(ctx context.Context, w *coppice.Worker, addr string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(rw http.ResponseWriter, r *http.Request) {
		n, err := actors.Ask[uint64](r.Context(), w.System(), w.Lookup("visits"), visit{})
		if err != nil {
			http.Error(rw, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(rw, w.Name(), "visit", n)
	})
	mux.HandleFunc("GET /crash", func(http.ResponseWriter, *http.Request) {
		go panic("no recover helps here")
		select {}
	})
	ln, err := w.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return w.Serve(ctx, ln, &http.Server{Handler: mux})
}
