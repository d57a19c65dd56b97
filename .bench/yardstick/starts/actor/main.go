// Actor imports what a tree cannot do without: protoactor's actors and net/http. With an argument
// it is a server without requests, else it ends at once.
package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"

	"github.com/asynkron/protoactor-go/actor"
)

func main() {
	if len(os.Args) == 1 {
		return
	}
	_ = actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		fmt.Println("up", os.Getpid())
		err = http.Serve(ln, http.NotFoundHandler())
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
