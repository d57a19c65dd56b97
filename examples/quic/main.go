// Quic is an HTTP/3 service by quic-go in worker processes, over a UDP socket that
// the master holds. Its own parts are the policy ReusePort, which keeps a client's
// datagrams with one worker, and server, which drains.
//
//	go -C examples/quic run . -addr 127.0.0.1:8443
//	go -C examples/quic run . -chaos
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/coppice-go/coppice/examples/internal/chaos"
	coppice "github.com/coppice-go/coppice/runtime"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8443", "listen `address`; port 0 picks one")
	workers := flag.Int("workers", 2, "worker processes")
	shutdown := flag.Duration("shutdown", 10*time.Second, "how long a worker may take to end")
	url := flag.String("get", "", "be a client of this `URL` instead, for ten seconds")
	broken := flag.Bool("chaos", false, "kill and reload it under clients, count at them what it cost, and end")
	flag.Parse()
	if *url != "" {
		if err := get(*url, 10, time.Second); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}

	coppice.Main(coppice.Config{
		Load: secrets(), // in the master
		Hooks: coppice.Hooks{Started: func(rt *coppice.Runtime) {
			url := fmt.Sprintf("https://%s/", rt.Listeners()[0].Addr)
			fmt.Printf("%s  master pid %d\n", url, os.Getpid())
			if *broken {
				chaos.Run(rt, func(rt *coppice.Runtime) { harm(rt, url) })
			} else {
				fmt.Print(rt.Snapshot())
			}
		}},
		Children: []coppice.ChildSpec{coppice.Pool{
			Name: "web", Size: *workers, Shutdown: *shutdown,
			// The old worker of a slot and the new one have the same socket. One at a
			// time, so that neither reads what is the other's.
			Rollout: coppice.Rollout{StopFirst: true},
			Worker: func(ctx context.Context, w *coppice.Worker) error {
				return serve(ctx, w, *addr)
			},
		}},
	})
}

// serve is the worker.
func serve(ctx context.Context, w *coppice.Worker, addr string) error {
	pair, reset, err := parse(w.Config())
	if err != nil {
		return err
	}
	conn, err := w.ListenPacketSpec(ctx, coppice.ListenerSpec{Network: "udp", Address: addr, Policy: coppice.ReusePort})
	if err != nil {
		return err
	}
	defer conn.Close()
	s, err := newServer(conn, &tls.Config{Certificates: []tls.Certificate{pair}}, reset, echo(w))
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- s.serve() }() // ends with shutdown, below
	if err := w.Ready(); err != nil {
		return errors.Join(err, s.close(), <-served)
	}
	select {
	case err := <-served:
		return errors.Join(err, s.close())
	case <-ctx.Done():
	}
	return errors.Join(s.shutdown(w.WorkContext()), <-served)
}

// echo answers with the worker and what it was sent; /slow takes a while.
func echo(w *coppice.Worker) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			fmt.Println("answering slowly")
			select {
			case <-time.After(500 * time.Millisecond):
			case <-w.WorkContext().Done():
			}
		}
		fmt.Fprintf(rw, "%s of generation %d, pid %d: ", w.Name(), w.Generation(), os.Getpid())
		_, _ = io.Copy(rw, http.MaxBytesReader(rw, r.Body, 1<<20))
	})
}
