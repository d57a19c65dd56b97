// Workers is the second step of docs/guide.md: the service in four processes.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"sync/atomic"

	coppice "github.com/coppice-go/coppice/runtime"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8000", "listen `address`")
	flag.Parse()

	coppice.Serve(4, func(ctx context.Context, w *coppice.Worker) error {
		var visits atomic.Int64
		mux := http.NewServeMux()
		mux.HandleFunc("GET /", func(rw http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(rw, w.Name(), "visit", visits.Add(1))
		})
		mux.HandleFunc("GET /crash", func(http.ResponseWriter, *http.Request) {
			go panic("no recover helps here")
			select {}
		})
		ln, err := w.Listen("tcp", *addr)
		if err != nil {
			return err
		}
		return w.Serve(ctx, ln, &http.Server{Handler: mux})
	})
}
