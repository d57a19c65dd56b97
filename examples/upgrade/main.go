// Upgrade is a web service whose whole program, the master included, is replaced while it serves.
//
//	go build -ldflags "-X main.release=A" -o /tmp/shop ./examples/upgrade && /tmp/shop
//	go build -ldflags "-X main.release=B" -o /tmp/shop ./examples/upgrade
//	coppicectl upgrade
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
)

// release is set by the linker.
var release = "A"

func main() {
	var (
		addr    = flag.String("addr", "127.0.0.1:8000", "listen `address`")
		workers = flag.Int("workers", 2, "worker processes")
	)
	flag.Parse()
	if _, _, err := net.SplitHostPort(*addr); err != nil {
		fmt.Fprintln(os.Stderr, "upgrade: -addr:", err)
		os.Exit(2)
	}
	coppice.Main(coppice.Config{
		Hooks: coppice.Hooks{Started: func(rt *coppice.Runtime) {
			fmt.Printf("release %s is the master, process %d, on http://%s\n", release, os.Getpid(), rt.Listeners()[0].Addr)
		}},
		Children: children(*addr, *workers),
	})
}

// children are those of the release. Release B has a clock that A has not, and greets otherwise.
func children(addr string, workers int) []coppice.ChildSpec {
	specs := []coppice.ChildSpec{coppice.Pool{
		Name: "web", Size: workers,
		Worker: func(ctx context.Context, w *coppice.Worker) error {
			ln, err := w.Listen("tcp", addr)
			if err != nil {
				return err
			}
			hello := func(rw http.ResponseWriter, _ *http.Request) {
				fmt.Fprintf(rw, "release %s, %s, process %d\n", release, w.Name(), os.Getpid())
			}
			return w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(hello)})
		},
	}}
	if release == "A" {
		return specs
	}
	return append(specs, coppice.Func{Name: "clock", Run: func(ctx context.Context) error {
		ticks := time.NewTicker(time.Minute)
		defer ticks.Stop()
		for {
			select {
			case at := <-ticks.C:
				fmt.Println("it is", at.Format(time.TimeOnly))
			case <-ctx.Done():
				return nil
			}
		}
	}})
}
