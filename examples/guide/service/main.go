// Service is the fourth step of docs/guide.md: a configuration that a reload brings, and what a
// service that others rely on has set.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8000", "listen `address`")
	file := flag.String("greeting", "greeting", "a `file` with the greeting")
	flag.Parse()

	coppice.Main(coppice.Config{
		Load: func(context.Context) ([]byte, error) { return os.ReadFile(*file) },
		Children: []coppice.ChildSpec{coppice.Pool{
			Name: "web", Size: 4,
			Worker: func(ctx context.Context, w *coppice.Worker) error { return serve(ctx, w, *addr) },

			Shutdown:    10 * time.Second,                           // for the requests in progress
			Liveness:    coppice.Liveness{Timeout: 5 * time.Second}, // a worker that hangs is replaced
			Recycle:     coppice.Recycle{SoftMemory: 512 << 20},     // one that grows, too
			Poison:      coppice.Poison{Deaths: 2},                  // requests that kill are refused
			Environment: coppice.Environment{MaxProcs: coppice.FairShare},
		}},
	})
}

func serve(ctx context.Context, w *coppice.Worker, addr string) error {
	greeting := strings.TrimSpace(string(w.Config()))
	if greeting == "" {
		return errors.New("the greeting is empty")
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(rw http.ResponseWriter, r *http.Request) { fmt.Fprintln(rw, w.Name(), greeting) })
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
