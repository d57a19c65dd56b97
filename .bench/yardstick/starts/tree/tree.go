// Package tree is the tree of the programs beside it.
package tree

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"

	coppice "github.com/coppice-go/coppice/runtime"
)

// Main is the tree, of as many HTTP servers as the first argument says; without one it returns at
// once. It prints "up PID" when all are ready, PID being the last worker's.
func Main() {
	if len(os.Args) == 1 {
		return
	}
	size, err := strconv.Atoi(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	coppice.Main(coppice.Config{
		Logger: slog.New(slog.DiscardHandler),
		Hooks: coppice.Hooks{Started: func(rt *coppice.Runtime) {
			pid := 0
			rt.Snapshot().Walk(func(t coppice.Tree) {
				if t.Role == "worker" {
					pid = t.PID
				}
			})
			fmt.Println("up", pid)
		}},
		Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Size: size, Worker: serve}},
	})
}

func serve(ctx context.Context, w *coppice.Worker) error {
	ln, err := w.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	return w.Serve(ctx, ln, &http.Server{Handler: http.NotFoundHandler()})
}
