// Embed shows Coppice inside a program that has a life of its own: its flags,
// its signals, its own web page. It starts a tree, goes on, shuts the tree down,
// and goes on living.
//
//	go run ./examples/embed
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "listen `address` of the workers")
	flag.Parse()

	// In a worker process Start does not return. What stands above it ran there
	// too: keep it cheap and without effects.
	ctx := context.Background()
	rt, err := coppice.Start(ctx, coppice.Config{
		Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Size: 2, Worker: serve(*addr)}},
	})
	if err != nil {
		log.Fatal(err)
	}

	// The program's own server and signals are what they would be without a tree.
	own, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = http.Serve(own, http.HandlerFunc(stillHere)) }() // ends with the program
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)

	fmt.Println("the tree says:    ", get(rt.Listeners()[0].Addr))
	fmt.Println("the program says: ", get(own.Addr()))

	bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := rt.Shutdown(bounded); err != nil {
		log.Fatal(err)
	}
	fmt.Println("the tree is gone")
	fmt.Println("the program says: ", get(own.Addr()))
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		log.Fatal(err)
	}
	if err := self.Signal(syscall.SIGHUP); err != nil {
		log.Fatal(err)
	}
	fmt.Println("the program got:  ", <-hup)
}

// serve is the life of a worker.
func serve(addr string) coppice.WorkerFunc {
	return func(ctx context.Context, w *coppice.Worker) error {
		ln, err := w.Listen("tcp", addr)
		if err != nil {
			return err
		}
		return w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(rw, "hello from", w.Name())
		})})
	}
}

func stillHere(rw http.ResponseWriter, _ *http.Request) { fmt.Fprintln(rw, "still here") }

func get(addr net.Addr) string {
	resp, err := http.Get("http://" + addr.String() + "/")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}
