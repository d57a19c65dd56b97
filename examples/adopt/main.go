// Adopt is an ordinary web service, brought under Coppice by a few lines; before
// is what it was.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"

	coppice "github.com/coppice-go/coppice/runtime"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8000", "listen `address`; port 0 picks one")
	flag.Parse()

	mux := http.NewServeMux()
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) { fmt.Fprintln(rw, "hello,", r.URL.Path) })

	coppice.Serve(4, func(ctx context.Context, w *coppice.Worker) error {
		ln, err := w.Listen("tcp", *addr)
		if err != nil {
			return err
		}
		return w.Serve(ctx, ln, &http.Server{Handler: mux})
	})
}
