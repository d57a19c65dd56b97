// Proxy is a web service behind a load balancer that speaks the PROXY protocol: HAProxy, a cloud's
// network balancer, nginx with proxy_protocol on. Handlers see the client's address, and one client
// has one worker.
//
//	go run . -addr 127.0.0.1:8000
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/pires/go-proxyproto"

	coppice "github.com/coppice-go/coppice/runtime"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8000", "listen `address`; port 0 picks one")
	workers := flag.Int("workers", 2, "worker processes")
	shutdown := flag.Duration("shutdown", 10*time.Second, "how long a worker may take to end")
	trust := flag.String("trust", "127.0.0.0/8,::1/128", "address `ranges` of balancers, whose word is taken")
	header := flag.Duration("header", 2*time.Second, "how long a balancer may take to write its header")
	flag.Parse()

	coppice.Main(coppice.Config{
		Hooks: coppice.Hooks{Started: announce},
		Children: []coppice.ChildSpec{
			coppice.ListenerSpec{
				Name: "http", Network: "tcp", Address: *addr,
				// The listener process looks at the header's source, and leaves the header where it
				// is.
				Policy: coppice.Hash, Peek: coppice.Peek{Proxy: true, Timeout: *header},
			},
			coppice.Pool{Name: "web", Size: *workers, Shutdown: *shutdown, Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listener(ctx, "http")
				if err != nil {
					return err
				}
				if ln, err = behind(ln, strings.Split(*trust, ","), *header); err != nil {
					return err
				}
				return w.Serve(ctx, ln, &http.Server{Handler: pages(w), ReadHeaderTimeout: 10 * time.Second})
			}},
		},
	})
}

func pages(w *coppice.Worker) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(rw, "%s serves %s\n", w.Name(), r.RemoteAddr)
	})
	mux.HandleFunc("GET /slow", func(rw http.ResponseWriter, r *http.Request) {
		fmt.Println("answering slowly")
		<-time.After(200 * time.Millisecond)
		fmt.Fprintln(rw, "done")
	})
	mux.HandleFunc("GET /counts", func(rw http.ResponseWriter, r *http.Request) {
		tree, err := w.Tree(r.Context())
		if err != nil {
			http.Error(rw, err.Error(), http.StatusInternalServerError)
			return
		}
		tree.Walk(func(n coppice.Tree) {
			for _, l := range n.Listeners {
				if l.Stats == nil {
					continue
				}
				open := 0
				for _, w := range l.Stats.Workers {
					open += w.Counts.Open()
				}
				fmt.Fprintf(rw, "open %d peeked %d claimed %d\n", open, l.Stats.Counts.Peeked, l.Stats.Counts.Claimed)
			}
		})
	})
	return mux
}

// behind reads the header off each connection of ln. It closes a connection of a trusted address
// without a header, and one of another address with a header.
func behind(ln net.Listener, trusted []string, timeout time.Duration) (net.Listener, error) {
	policy, err := proxyproto.TrustProxyHeaderFromRanges(trusted)
	if err != nil {
		return nil, err
	}
	return &listener{proxyproto.Listener{Listener: ln, ConnPolicy: policy, ReadHeaderTimeout: timeout}}, nil
}

type listener struct{ proxyproto.Listener }

// Accept returns connections that name what they wrap, as tls.Conn does: so their traces are found.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if pc, ok := c.(*proxyproto.Conn); ok {
		return conn{pc}, err
	}
	return c, err
}

type conn struct{ *proxyproto.Conn }

// NetConn returns the connection without the header.
func (c conn) NetConn() net.Conn { return c.Raw() }

func announce(rt *coppice.Runtime) {
	for _, l := range rt.Listeners() {
		fmt.Printf("http://%s/  master pid %d\n", l.Addr, os.Getpid())
	}
	fmt.Print(rt.Snapshot())
}
