// Fasthttp is a web service by fasthttp in worker processes. Its own part is
// server, which tells Worker.Serve how a fasthttp server drains.
//
//	go run . -addr 127.0.0.1:8000
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/valyala/fasthttp"

	coppice "github.com/coppice-go/coppice/runtime"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8000", "listen `address`; port 0 picks one")
	workers := flag.Int("workers", 2, "worker processes")
	shutdown := flag.Duration("shutdown", 10*time.Second, "how long a worker may take to end")
	idle := flag.Duration("idle", time.Second, "how much of it idle connections may take to ask once more")
	flag.Parse()

	coppice.Main(coppice.Config{
		Hooks: coppice.Hooks{Started: announce},
		Children: []coppice.ChildSpec{coppice.Pool{
			Name: "web", Size: *workers, Shutdown: *shutdown,
			Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listen("tcp", *addr)
				if err != nil {
					return err
				}
				return w.Serve(ctx, ln, drained(ctx, *idle, func(c *fasthttp.RequestCtx) {
					if string(c.Path()) == "/slow" {
						fmt.Println("answering slowly")
						<-time.After(200 * time.Millisecond)
					}
					fmt.Fprintf(c, "%s of generation %d\n", w.Name(), w.Generation())
				}))
			},
		}},
	})
}

func announce(rt *coppice.Runtime) {
	for _, l := range rt.Listeners() {
		fmt.Printf("http://%s/  master pid %d\n", l.Addr, os.Getpid())
	}
	fmt.Print(rt.Snapshot())
}
