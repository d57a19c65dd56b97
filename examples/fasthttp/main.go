// Fasthttp is a web service by fasthttp in worker processes. Its own part is
// server, which tells Worker.Serve how a fasthttp server drains.
//
//	go -C examples/fasthttp run . -addr 127.0.0.1:8000
//	go -C examples/fasthttp run . -chaos
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/coppice-go/coppice/examples/internal/chaos"
	coppice "github.com/coppice-go/coppice/runtime"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8000", "listen `address`; port 0 picks one")
	workers := flag.Int("workers", 2, "worker processes")
	shutdown := flag.Duration("shutdown", 10*time.Second, "how long a worker may take to end")
	idle := flag.Duration("idle", time.Second, "how much of it idle connections may take to ask once more")
	broken := flag.Bool("chaos", false, "kill and reload it under clients, count at them what it cost, and end")
	flag.Parse()

	coppice.Main(coppice.Config{
		Hooks: coppice.Hooks{Started: func(rt *coppice.Runtime) {
			url := fmt.Sprintf("http://%s/", rt.Listeners()[0].Addr)
			fmt.Printf("%s  master pid %d\n", url, os.Getpid())
			if *broken {
				chaos.Run(rt, func(rt *coppice.Runtime) { harm(rt, url) })
			} else {
				fmt.Print(rt.Snapshot())
			}
		}},
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
