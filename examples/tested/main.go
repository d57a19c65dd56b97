// Tested is a small service and the tests that a service of workers can have;
// docs/testing.md explains them. It keeps a note: PUT writes it, GET reads it.
//
//	go run ./examples/tested -dir /tmp
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	coppice "github.com/coppice-go/coppice/runtime"
)

// config is what the workers get.
type config struct{ Addr, Dir string }

func main() {
	var c config
	flag.StringVar(&c.Addr, "addr", "127.0.0.1:8000", "listen `address`; port 0 picks one")
	flag.StringVar(&c.Dir, "dir", os.TempDir(), "the `directory` of the note")
	flag.Parse()
	cfg := tree(c)
	cfg.Hooks.Started = func(rt *coppice.Runtime) { fmt.Printf("http://%s/\n", rt.Listeners()[0].Addr) }
	coppice.Main(cfg)
}

// tree is the service: two workers, and an actor in the master that counts.
func tree(c config) coppice.Config {
	return coppice.Config{
		Load: func(context.Context) ([]byte, error) { return json.Marshal(c) },
		Children: []coppice.ChildSpec{
			coppice.Actor{Name: "writes", New: func() actor.Actor { return new(writes) }},
			coppice.Pool{Name: "web", Size: 2, Worker: serve},
		},
	}
}

// at gets the name of the point that a worker is at: a test can strike there.
var at = func(point string) {}

// serve is the worker function.
func serve(ctx context.Context, w *coppice.Worker) error {
	var c config
	if err := json.Unmarshal(w.Config(), &c); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	ln, err := w.Listen("tcp", c.Addr)
	if err != nil {
		return err
	}
	note := filepath.Join(c.Dir, "note")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(rw http.ResponseWriter, r *http.Request) {
		b, err := os.ReadFile(note)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = rw.Write(b)
	})
	mux.HandleFunc("PUT /", func(rw http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err == nil {
			err = replace(note, text)
		}
		var n uint64
		if err == nil {
			n, err = actors.Ask[uint64](r.Context(), w.System(), w.Lookup("writes"), wrote{})
		}
		if err != nil {
			http.Error(rw, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(rw, "%s: write %d", w.Name(), n)
	})
	return w.Serve(ctx, ln, &http.Server{Handler: mux})
}

// replace writes a file so that who reads it finds the old text or the new one,
// also when the worker is killed.
func replace(name string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), "note-*")
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(text); err != nil {
		return err
	}
	at("before the rename")
	return os.Rename(f.Name(), name)
}

// wrote tells the actor writes of a write; it answers with their number.
type wrote struct{}

func init() { actors.RegisterType[wrote]("tested.wrote") }

type writes struct{ n uint64 }

// Receive counts.
func (a *writes) Receive(ctx actor.Context) {
	if _, ok := ctx.Message().(wrote); ok {
		a.n++
		ctx.Respond(a.n)
	}
}
